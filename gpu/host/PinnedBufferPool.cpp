#include <faiss_ext/gpu/host/PinnedBufferPool.h>

#include <string>
#include <utility>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/host/PinnedPages.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

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

PinnedBufferPool::PinnedBufferPool(
        size_t capacity, TransferCounters& counters, Pages pages)
        : capacity_(capacity), counters_(counters), pages_(pages) {}

PinnedBufferPool::PinnedBufferPool(size_t capacity, TransferCounters& counters)
        : PinnedBufferPool(capacity, counters, Pages::Shared) {}

PinnedBufferPool::~PinnedBufferPool() {
    if (lostByFork()) {
        return;
    }
    const RelaxedCapture relaxed;
    for (auto& pending : pending_) {
        try {
            pending.event->wait();
        } catch (const CudaError&) {
            // Either the GPU no longer works on anything, or this waits.
            FAISS_EXT_CUDA_NOTHROW(cudaDeviceSynchronize());
        }
        unpin(pending.data, pending.size);
    }
    for (auto& bucket : idle_) {
        for (char* data : bucket.second) {
            unpin(data, bucket.first);
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
        throw OutOfMemory(
                "pinned staging memory exhausted: " +
                std::to_string(bucketSize(bytes)) + " bytes needed, " +
                std::to_string(pinnedBytes()) + " of " +
                std::to_string(capacity_) +
                " in use; raise StagedConfig::pinnedBytes");
    }
    return buffer;
}

PinnedBuffer PinnedBufferPool::tryAcquire(size_t bytes) {
    // Before the lock, which nobody gives back who held it at a fork.
    beforeCuda();
    Request request{bucketSize(bytes), nullptr};
    while (true) {
        const Step step = nextStep(request);
        switch (step.kind) {
            case Step::Lend:
                return PinnedBuffer(this, step.data, request.size);
            case Step::Pin:
                return PinnedBuffer(this, pin(request.size), request.size);
            case Step::GiveUp:
                return PinnedBuffer();
            default:
                perform(step, request);
        }
    }
}

void PinnedBufferPool::trim() {
    if (lostByFork()) {
        return;
    }
    Request request{0, nullptr};
    for (Step step = nextStep(request); step.kind != Step::GiveUp;
         step = nextStep(request)) {
        perform(step, request);
    }
}

/// All that a request decides by is looked at under one lock: whoever gives up
/// did so while every buffer was in use.
PinnedBufferPool::Step PinnedBufferPool::nextStep(const Request& request) {
    const size_t size = request.size;
    std::lock_guard<std::mutex> guard(mutex_);
    if (size > capacity_) {
        return {Step::GiveUp, nullptr, 0, nullptr};
    }
    if (char* data = takeIdle(size)) {
        return {Step::Lend, data, size, nullptr};
    }
    const auto oldest = pending_.empty() ? nullptr : pending_.front().event;
    if (oldest && oldest != request.unreached) {
        return {Step::LookAtOldest, nullptr, 0, oldest};
    }
    if (size > 0 && size <= capacity_ - pinnedBytes_) {
        pinnedBytes_ += size;
        return {Step::Pin, nullptr, 0, nullptr};
    }
    if (Step step = unpinAnyIdle(); step.data) {
        return step;
    }
    if (size > 0 && oldest) {
        return {Step::WaitForOldest, nullptr, 0, oldest};
    }
    return {Step::GiveUp, nullptr, 0, nullptr};
}

/// A step that gives the request no buffer.
void PinnedBufferPool::perform(const Step& step, Request& request) {
    switch (step.kind) {
        case Step::LookAtOldest:
            if (step.event->reached()) {
                settle(step.event);
            } else {
                request.unreached = step.event;
            }
            break;
        case Step::WaitForOldest:
            ++counters_.hostWaits;
            waitUnlessInterrupted(*step.event);
            settle(step.event);
            break;
        default: {
            const RelaxedCapture relaxed;
            unpin(step.data, step.size);
        }
    }
}

/// Pins what nextStep has counted as pinned.
char* PinnedBufferPool::pin(size_t size) {
    const RelaxedCapture relaxed;
    void* data = nullptr;
    try {
        if (pages_ == Pages::Private) {
            data = pinned_pages::pin(size);
        } else {
            FAISS_EXT_CUDA_TRY(
                    cudaHostAlloc(&data, size, cudaHostAllocDefault));
        }
    } catch (const CudaError&) {
        std::lock_guard<std::mutex> guard(mutex_);
        pinnedBytes_ -= size;
        throw;
    }
    ++counters_.pinnedAllocations;
    return static_cast<char*>(data);
}

void PinnedBufferPool::unpin(char* data, size_t size) noexcept {
    if (pages_ == Pages::Private) {
        pinned_pages::unpin(data, size);
    } else {
        FAISS_EXT_CUDA_NOTHROW(cudaFreeHost(data));
    }
}

void PinnedBufferPool::release(char* data, size_t size) {
    if (lostByFork()) {
        return;
    }
    std::lock_guard<std::mutex> guard(mutex_);
    idle_[size].push_back(data);
}

void PinnedBufferPool::releaseAfter(
        char* data, size_t size, cudaStream_t stream) {
    auto event = std::make_shared<Event>();
    event->record(stream);
    std::lock_guard<std::mutex> guard(mutex_);
    pending_.push_back({data, size, std::move(event)});
}

/// The GPU is done with the buffer released first: it may be used again.
void PinnedBufferPool::settle(const std::shared_ptr<const Event>& reached) {
    std::lock_guard<std::mutex> guard(mutex_);
    // Unless another thread that looked at it, too, has said so already.
    if (!pending_.empty() && pending_.front().event == reached) {
        idle_[pending_.front().size].push_back(pending_.front().data);
        pending_.pop_front();
    }
}

/// An idle buffer of exactly this bucket, or nullptr; under the lock.
char* PinnedBufferPool::takeIdle(size_t size) {
    auto bucket = idle_.find(size);
    if (bucket == idle_.end() || bucket->second.empty()) {
        return nullptr;
    }
    char* data = bucket->second.back();
    bucket->second.pop_back();
    return data;
}

/// An idle buffer of any size, to be unpinned, if there is one; under the lock.
PinnedBufferPool::Step PinnedBufferPool::unpinAnyIdle() {
    for (auto& bucket : idle_) {
        if (char* data = takeIdle(bucket.first)) {
            pinnedBytes_ -= bucket.first;
            return {Step::Unpin, data, bucket.first, nullptr};
        }
    }
    return {Step::GiveUp, nullptr, 0, nullptr};
}

} // namespace gpu
} // namespace faiss_ext
