#include <faiss_ext/gpu/host/CopyTeam.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>

#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

namespace {

void copyThroughCaches(char* destination, const char* source, size_t bytes) {
    std::memcpy(destination, source, bytes);
}

#ifdef __SSE2__
/// By non-temporal stores.
void copyPastCaches(char* destination, const char* source, size_t bytes) {
    constexpr size_t kLine = 64;
    const size_t toLine = -reinterpret_cast<uintptr_t>(destination) % kLine;
    const size_t head = std::min(bytes, toLine);
    std::memcpy(destination, source, head);
    size_t done = head;
    for (; done + kLine <= bytes; done += kLine) {
        for (size_t i = done; i < done + kLine; i += sizeof(__m128i)) {
            const auto* from = reinterpret_cast<const __m128i*>(source + i);
            _mm_stream_si128(
                    reinterpret_cast<__m128i*>(destination + i),
                    _mm_loadu_si128(from));
        }
    }
    std::memcpy(destination + done, source + done, bytes - done);
    // Before whoever is told that the copy is made.
    _mm_sfence();
}
#else
constexpr auto copyPastCaches = copyThroughCaches;
#endif

} // namespace

/// The copies of one call, shared out among threads chunk by chunk: a thread
/// that is held up leaves the rest to the others.
class CopyTeam::Job {
   public:
    Job(const std::vector<HostCopy>& copies, int threads, size_t chunkBytes)
            : copies_(copies), chunkBytes_(chunkBytes) {
        size_t bytes = 0;
        for (const HostCopy& copy : copies_) {
            chunks_ += chunksOf(copy);
            bytes += copy.bytes;
        }
        // By bytes: many small arrays have a chunk each.
        const size_t useful = std::max<size_t>(1, bytes / chunkBytes_);
        threads_ = std::clamp<size_t>(threads, 1, useful);
        span_ = (chunks_ + threads_ - 1) / threads_;
    }

    /// How many threads are to take part.
    size_t threads() const {
        return threads_;
    }

    /// Copies chunks until none is left to begin. Threads that claim at the
    /// same time are one span apart: neighbouring chunks may share a huge page,
    /// which one thread at a time can make.
    void work() {
        for (size_t claim = next_++; claim < span_ * threads_;
             claim = next_++) {
            if (claim == 0) {
                interval.begin = HostInterval::Clock::now();
            }
            const size_t chunk = claim % threads_ * span_ + claim / threads_;
            if (chunk < chunks_) {
                copyChunk(chunk);
                if (++made_ == chunks_) {
                    interval.end = HostInterval::Clock::now();
                }
            }
        }
    }

    /// Nobody begins another chunk.
    void stop() {
        next_ = span_ * threads_;
    }

    /// When it was under way, once it is made.
    HostInterval interval;

    // Below: under the lock of Workers.

    /// Threads of the team that may still join.
    size_t wanted = 0;
    /// Threads of the team that work on it.
    size_t busy = 0;

   private:
    /// Bytes from the last boundary before the destination to the destination.
    size_t phaseOf(const HostCopy& copy) const {
        return reinterpret_cast<uintptr_t>(copy.destination) % chunkBytes_;
    }

    size_t chunksOf(const HostCopy& copy) const {
        return copy.bytes == 0
                       ? 0
                       : (phaseOf(copy) + copy.bytes - 1) / chunkBytes_ + 1;
    }

    void copyChunk(size_t chunk) const {
        for (const HostCopy& copy : copies_) {
            const size_t chunks = chunksOf(copy);
            if (chunk >= chunks) {
                chunk -= chunks;
                continue;
            }
            const size_t phase = phaseOf(copy);
            const size_t begin = std::max(phase, chunk * chunkBytes_) - phase;
            const size_t left = copy.bytes - begin;
            const size_t room = chunkBytes_ - (chunk == 0 ? phase : size_t(0));
            const auto copyBytes =
                    copy.forGpu ? copyPastCaches : copyThroughCaches;
            copyBytes(
                    static_cast<char*>(copy.destination) + begin,
                    static_cast<const char*>(copy.source) + begin,
                    std::min(left, room));
            return;
        }
    }

    const std::vector<HostCopy>& copies_;
    const size_t chunkBytes_;
    size_t chunks_ = 0;
    size_t threads_ = 1;
    /// Chunks of each thread, if all are equally fast.
    size_t span_ = 0;
    std::atomic<size_t> next_{0};
    std::atomic<size_t> made_{0};
};

class CopyTeam::Workers {
   public:
    ~Workers() {
        {
            std::lock_guard<std::mutex> guard(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        for (std::thread& thread : threads_) {
            thread.join();
        }
    }

    /// Lets up to `wanted` threads of the team work on the job. If this throws,
    /// nobody knows of it.
    void post(Job& job, size_t wanted) {
        {
            std::lock_guard<std::mutex> guard(mutex_);
            jobs_.push_back(&job);
            job.wanted = wanted;
            start(wanted);
        }
        // One call for all, even if some wake up for nothing: with a call for
        // each, 10,000 queries of k 100 took 3.3 ms into pageable memory in
        // place of 2.9 (by hand, as in Tuning.h).
        if (wanted > 1) {
            wake_.notify_all();
        } else {
            wake_.notify_one();
        }
    }

    /// Returns when nobody works on the job any more.
    void withdraw(Job& job) {
        std::unique_lock<std::mutex> guard(mutex_);
        jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
        done_.wait(guard, [&] { return job.busy == 0; });
    }

   private:
    /// Starts threads until there are `wanted`, or no more can be started.
    void start(size_t wanted) {
        try {
            while (threads_.size() < wanted) {
                threads_.emplace_back([this] { serve(); });
            }
        } catch (const std::exception&) {
            // Those that are there will do.
        }
    }

    /// What a thread of the team does all its life.
    void serve() {
        // For profilers.
        pthread_setname_np(pthread_self(), "faiss_ext_copy");
        std::unique_lock<std::mutex> guard(mutex_);
        while (true) {
            Job* job = nullptr;
            wake_.wait(guard, [&] { return ending_ || (job = open()); });
            if (!job) {
                return;
            }
            --job->wanted;
            ++job->busy;
            guard.unlock();
            job->work();
            guard.lock();
            if (--job->busy == 0) {
                done_.notify_all();
            }
        }
    }

    /// The oldest job that wants one more thread, or nullptr.
    Job* open() const {
        for (Job* job : jobs_) {
            if (job->wanted > 0) {
                return job;
            }
        }
        return nullptr;
    }

    std::mutex mutex_;
    // All below: under mutex_, except that the threads are joined without it.
    std::condition_variable wake_;
    std::condition_variable done_;
    std::vector<Job*> jobs_;
    std::vector<std::thread> threads_;
    bool ending_ = false;
};

CopyTeam::CopyTeam()
        : forks_(forksBefore()), workers_(std::make_unique<Workers>()) {}

CopyTeam::~CopyTeam() {
    if (!hasThreads()) {
        // The threads, which may hold the lock, are the parent's.
        workers_.release();
    }
}

bool CopyTeam::hasThreads() const {
    return forksBefore() == forks_;
}

void CopyTeam::copy(
        const std::vector<HostCopy>& copies,
        int threads,
        size_t chunkBytes) noexcept {
    Job job(copies, threads, chunkBytes);
    bool shared = job.threads() > 1 && hasThreads();
    if (shared) {
        try {
            workers_->post(job, job.threads() - 1);
        } catch (const std::exception&) {
            shared = false;
        }
    }
    job.work();
    if (shared) {
        workers_->withdraw(job);
    }
}

std::unique_ptr<CopyTeam::Ahead> CopyTeam::copyAhead(
        std::vector<HostCopy> copies, int threads, size_t chunkBytes) {
    if (threads == 1 || !hasThreads()) {
        return nullptr;
    }
    return std::unique_ptr<Ahead>(
            new Ahead(std::move(copies), threads, chunkBytes, *workers_));
}

CopyTeam::Ahead::Ahead(
        std::vector<HostCopy>&& copies,
        int threads,
        size_t chunkBytes,
        Workers& workers)
        : copies_(std::move(copies)),
          job_(std::make_unique<Job>(copies_, threads, chunkBytes)),
          workers_(&workers) {
    // All that are useful, but the team is not to be larger for it.
    workers_->post(*job_, std::min<size_t>(job_->threads(), threads - 1));
}

CopyTeam::Ahead::~Ahead() {
    job_->stop();
    finish();
}

void CopyTeam::Ahead::finish() noexcept {
    job_->work();
    if (workers_) {
        workers_->withdraw(*job_);
        workers_ = nullptr;
    }
}

HostInterval CopyTeam::Ahead::interval() const noexcept {
    return job_->interval;
}

} // namespace gpu
} // namespace faiss_ext
