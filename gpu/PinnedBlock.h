#pragma once

#include <memory>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/PinnedBufferPool.h>
#include <faiss_ext/gpu/TransferStats.h>

namespace faiss_ext {
namespace gpu {

/// A pool of pinned memory that its blocks keep alive: for results that the GPU
/// writes where the caller reads them, and that live as long as he likes.
class FAISS_EXT_API PinnedBlockPool {
   public:
    /// At most `capacity` bytes are pinned at any time.
    explicit PinnedBlockPool(size_t capacity);

    PinnedBufferPool& buffers() noexcept {
        return buffers_;
    }

    /// How often memory was pinned.
    uint64_t allocations() const noexcept {
        return counters_.pinnedAllocations;
    }

   private:
    TransferCounters counters_;
    PinnedBufferPool buffers_;
};

/// Pinned memory on loan from a PinnedBlockPool, returned at the end of its
/// life, by any thread. Not movable.
class FAISS_EXT_API PinnedBlock {
   public:
    /// A block of at least `bytes`, or nullptr where the pool's capacity cannot
    /// hold it. Does not wait. Throws CudaError if pinning fails.
    static std::unique_ptr<PinnedBlock> tryMake(
            const std::shared_ptr<PinnedBlockPool>& pool, size_t bytes);

    PinnedBlock(const PinnedBlock&) = delete;
    PinnedBlock& operator=(const PinnedBlock&) = delete;

    void* data() const noexcept {
        return buffer_.data();
    }

   private:
    PinnedBlock(std::shared_ptr<PinnedBlockPool> pool, PinnedBuffer buffer);

    // In this order: the buffer goes back before the pool may end.
    const std::shared_ptr<PinnedBlockPool> pool_;
    const PinnedBuffer buffer_;
};

} // namespace gpu
} // namespace faiss_ext
