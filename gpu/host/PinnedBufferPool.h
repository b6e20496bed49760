#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/index/TransferStats.h>

namespace faiss_ext {
namespace gpu {

class PinnedBufferPool;

/// A piece of pinned host memory on loan from a PinnedBufferPool: move-only,
/// goes back to the pool at the end of its life. The pool must outlive it.
class FAISS_EXT_API PinnedBuffer {
   public:
    PinnedBuffer() = default;
    ~PinnedBuffer();
    PinnedBuffer(PinnedBuffer&& other) noexcept;
    PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;

    /// Host pointer, or nullptr for an empty buffer.
    char* data() const noexcept {
        return data_;
    }

    /// Bytes: at least what was asked for.
    size_t size() const noexcept {
        return size_;
    }

    /// Gives the buffer back now, to be used again once the work enqueued so
    /// far on `stream` is done. Does not wait. Throws CudaError; then the
    /// buffer stays with the caller.
    void releaseAfter(cudaStream_t stream);

   private:
    friend class PinnedBufferPool;
    PinnedBuffer(PinnedBufferPool* pool, char* data, size_t size);

    PinnedBufferPool* pool_ = nullptr;
    char* data_ = nullptr;
    size_t size_ = 0;
};

/// A bounded pool of pinned host memory. Pinning costs a fraction of a
/// millisecond a MiB, so buffers, in sizes that are powers of two, are kept and
/// used again; a buffer still in use by the GPU waits for its event first.
///
/// Safe for any number of threads. No CUDA call is made while the pool's lock
/// is held: what to do is decided under it, and done without it. Buffers must
/// be back before the pool is destroyed, which waits for the events of those
/// released with `releaseAfter`. Where CUDA was lost by a fork, buffers and
/// pool end without a word, and new ones are refused by CudaError.
class FAISS_EXT_API PinnedBufferPool {
   public:
    /// Which memory it pins: of cudaHostAlloc, which is shared with forked
    /// children, or private memory (PinnedPages.h).
    enum class Pages { Shared, Private };

    /// At most `capacity` bytes are pinned at any time, apart from what another
    /// thread is about to unpin. `counters` is told of waits and allocations,
    /// and must outlive the pool.
    PinnedBufferPool(size_t capacity, TransferCounters& counters, Pages pages);
    /// Of shared memory: for buffers that no user sees.
    PinnedBufferPool(size_t capacity, TransferCounters& counters);
    ~PinnedBufferPool();

    PinnedBufferPool(const PinnedBufferPool&) = delete;
    PinnedBufferPool& operator=(const PinnedBufferPool&) = delete;

    /// Hands out a buffer of at least `bytes`; bytes >= 1. Takes, in this
    /// order: a free buffer; one whose event is reached; newly pinned memory
    /// within the capacity, for which idle buffers of other sizes are unpinned
    /// if need be; the buffer released first, after waiting for its event.
    /// Throws OutOfMemory when the capacity cannot hold the request, which
    /// names both, CudaError when pinning fails, and Interrupted while it
    /// waits.
    PinnedBuffer acquire(size_t bytes);

    /// The same, but an empty buffer where the capacity cannot hold the
    /// request.
    PinnedBuffer tryAcquire(size_t bytes);

    /// Unpins every buffer that is not in use. Does not wait.
    void trim();

    size_t capacity() const noexcept {
        return capacity_;
    }

    /// Bytes pinned now, in use or idle.
    size_t pinnedBytes() const;

    /// The size that a request for `bytes` is rounded up to.
    static size_t bucketSize(size_t bytes);

   private:
    friend class PinnedBuffer;

    /// A buffer that the GPU may still use. The event belongs to this one
    /// release, and is shared with those who look at it.
    struct Pending {
        char* data;
        size_t size;
        std::shared_ptr<const Event> event;
    };

    /// What a request does next.
    struct Step {
        enum Kind { Lend, LookAtOldest, Pin, Unpin, WaitForOldest, GiveUp };
        Kind kind;
        /// Lend, Unpin: an idle buffer, which is the request's from now on.
        char* data;
        /// Its size.
        size_t size;
        /// LookAtOldest, WaitForOldest: of the buffer released first.
        std::shared_ptr<const Event> event;
    };

    /// The request for one buffer or, with size 0, for all that can be
    /// unpinned.
    struct Request {
        const size_t size;
        /// Of the buffer released first, where it was looked at in vain.
        std::shared_ptr<const Event> unreached;
    };

    Step nextStep(const Request& request);
    void perform(const Step& step, Request& request);
    char* pin(size_t size);
    void unpin(char* data, size_t size) noexcept;
    void release(char* data, size_t size);
    void releaseAfter(char* data, size_t size, cudaStream_t stream);
    void settle(const std::shared_ptr<const Event>& reached);
    char* takeIdle(size_t size);
    Step unpinAnyIdle();

    const size_t capacity_;
    TransferCounters& counters_;
    const Pages pages_;

    mutable std::mutex mutex_;
    // All below: under mutex_.
    size_t pinnedBytes_ = 0;
    std::map<size_t, std::vector<char*>> idle_;
    // In the order of release.
    std::deque<Pending> pending_;
};

} // namespace gpu
} // namespace faiss_ext
