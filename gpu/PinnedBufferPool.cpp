#include <faiss_ext/gpu/PinnedBufferPool.h>

#include <string>
#include <utility>

#include <faiss_ext/gpu/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

// Smaller requests share one bucket: a page is the least that can be pinned.
constexpr size_t kSmallestBucket = 4096;

} // namespace

PinnedBuffer::PinnedBuffer(PinnedBufferPool* pool, char* data, size_t size)
        : pool_(pool), data_(data), size_(size) {}

PinnedBuffer::~PinnedBuffer() {
    if (data_) {
        pool_->release(data_, size_);
    }
}

PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)) {}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

void PinnedBuffer::releaseAfter(cudaStream_t stream) {
    if (data_) {
        pool_->releaseAfter(data_, size_, stream);
        data_ = nullptr;
        size_ = 0;
    }
}

PinnedBufferPool::PinnedBufferPool(size_t capacity, TransferCounters& counters)
        : capacity_(capacity), counters_(counters) {}

PinnedBufferPool::~PinnedBufferPool() {
    for (auto& pending : pending_) {
        try {
            pending.event.wait();
        } catch (const CudaError&) {
            // Either the GPU no longer works on anything, or this waits.
            FAISS_EXT_CUDA_NOTHROW(cudaDeviceSynchronize());
        }
        FAISS_EXT_CUDA_NOTHROW(cudaFreeHost(pending.data));
    }
    for (auto& bucket : idle_) {
        for (char* data : bucket.second) {
            FAISS_EXT_CUDA_NOTHROW(cudaFreeHost(data));
        }
    }
}

size_t PinnedBufferPool::bucketSize(size_t bytes) {
    size_t size = kSmallestBucket;
    while (size < bytes && size <= SIZE_MAX / 2) {
        size *= 2;
    }
    return size;
}

size_t PinnedBufferPool::pinnedBytes() const {
    std::lock_guard<std::mutex> guard(mutex_);
    return pinnedBytes_;
}

PinnedBuffer PinnedBufferPool::acquire(size_t bytes) {
    PinnedBuffer buffer = tryAcquire(bytes);
    if (!buffer.data()) {
        throw faiss::FaissException(
                "pinned staging memory exhausted: " +
                std::to_string(bucketSize(bytes)) + " bytes needed, " +
                std::to_string(pinnedBytes()) + " of " +
                std::to_string(capacity_) +
                " in use; raise StagedConfig::pinnedBytes or lower tileRows");
    }
    return buffer;
}

PinnedBuffer PinnedBufferPool::tryAcquire(size_t bytes) {
    const size_t size = bucketSize(bytes);
    while (true) {
        if (char* data = takeIdle(size)) {
            return PinnedBuffer(this, data, size);
        }
        if (reclaimReached()) {
            continue;
        }
        if (reserve(size)) {
            void* data = nullptr;
            const cudaError_t status =
                    cudaHostAlloc(&data, size, cudaHostAllocDefault);
            if (status != cudaSuccess) {
                std::lock_guard<std::mutex> guard(mutex_);
                pinnedBytes_ -= size;
            }
            FAISS_EXT_CUDA_TRY(status);
            ++counters_.pinnedAllocations;
            return PinnedBuffer(this, static_cast<char*>(data), size);
        }
        if (size > capacity_ ||
            !(unpinOneIdle() || reclaimOldest() || waitForOtherThreads())) {
            return PinnedBuffer();
        }
    }
}

void PinnedBufferPool::trim() {
    reclaimReached();
    while (unpinOneIdle()) {
    }
}

void PinnedBufferPool::release(char* data, size_t size) {
    std::lock_guard<std::mutex> guard(mutex_);
    idle_[size].push_back(data);
}

void PinnedBufferPool::releaseAfter(
        char* data, size_t size, cudaStream_t stream) {
    Event event = takeEvent();
    event.record(stream);
    std::lock_guard<std::mutex> guard(mutex_);
    pending_.push_back({data, size, std::move(event)});
}

/// An idle buffer of exactly this bucket, or nullptr.
char* PinnedBufferPool::takeIdle(size_t size) {
    std::lock_guard<std::mutex> guard(mutex_);
    auto bucket = idle_.find(size);
    if (bucket == idle_.end() || bucket->second.empty()) {
        return nullptr;
    }
    char* data = bucket->second.back();
    bucket->second.pop_back();
    return data;
}

/// Counts `size` more bytes as pinned if the capacity allows it.
bool PinnedBufferPool::reserve(size_t size) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (size > capacity_ - pinnedBytes_) {
        return false;
    }
    pinnedBytes_ += size;
    return true;
}

/// Takes the buffer that was released first out of the queue, to be looked at
/// without the lock; nothing if none is pending. It must be settled or put
/// back, and until then `acquire` does not count it as out of reach.
std::optional<PinnedBufferPool::Pending> PinnedBufferPool::takeOldest() {
    std::lock_guard<std::mutex> guard(mutex_);
    if (pending_.empty()) {
        return std::nullopt;
    }
    std::optional<Pending> oldest(std::move(pending_.front()));
    pending_.pop_front();
    ++beingLookedAt_;
    return oldest;
}

void PinnedBufferPool::putBack(Pending&& pending) {
    std::lock_guard<std::mutex> guard(mutex_);
    pending_.push_front(std::move(pending));
    --beingLookedAt_;
    lookedAt_.notify_all();
}

/// The GPU is done with the buffer: it may be lent again.
void PinnedBufferPool::settle(Pending&& pending) {
    std::lock_guard<std::mutex> guard(mutex_);
    idle_[pending.size].push_back(pending.data);
    events_.push_back(std::move(pending.event));
    --beingLookedAt_;
    lookedAt_.notify_all();
}

/// Makes pending buffers idle whose events are reached; tells whether any was.
bool PinnedBufferPool::reclaimReached() {
    bool any = false;
    while (auto pending = takeOldest()) {
        bool reached = false;
        try {
            reached = pending->event.reached();
        } catch (...) {
            putBack(std::move(*pending));
            throw;
        }
        if (!reached) {
            putBack(std::move(*pending));
            break;
        }
        settle(std::move(*pending));
        any = true;
    }
    return any;
}

/// Waits for the buffer that was released first and makes it idle; false if
/// none is pending.
bool PinnedBufferPool::reclaimOldest() {
    auto pending = takeOldest();
    if (!pending) {
        return false;
    }
    ++counters_.hostWaits;
    try {
        pending->event.wait();
    } catch (...) {
        putBack(std::move(*pending));
        throw;
    }
    settle(std::move(*pending));
    return true;
}

/// Whether another thread has a pending buffer in hand; if so, waits until it
/// has let go of it.
bool PinnedBufferPool::waitForOtherThreads() {
    std::unique_lock<std::mutex> guard(mutex_);
    if (beingLookedAt_ == 0) {
        return false;
    }
    lookedAt_.wait(guard, [this] { return beingLookedAt_ == 0; });
    return true;
}

/// Unpins one idle buffer of any size; false if there is none.
bool PinnedBufferPool::unpinOneIdle() {
    char* data = nullptr;
    size_t size = 0;
    {
        std::lock_guard<std::mutex> guard(mutex_);
        for (auto& bucket : idle_) {
            if (!bucket.second.empty()) {
                size = bucket.first;
                data = bucket.second.back();
                bucket.second.pop_back();
                break;
            }
        }
    }
    if (!data) {
        return false;
    }
    FAISS_EXT_CUDA_NOTHROW(cudaFreeHost(data));
    std::lock_guard<std::mutex> guard(mutex_);
    pinnedBytes_ -= size;
    return true;
}

Event PinnedBufferPool::takeEvent() {
    {
        std::lock_guard<std::mutex> guard(mutex_);
        if (!events_.empty()) {
            Event event = std::move(events_.back());
            events_.pop_back();
            return event;
        }
    }
    return Event();
}

} // namespace gpu
} // namespace faiss_ext
