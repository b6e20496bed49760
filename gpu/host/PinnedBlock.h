#pragma once

#include <memory>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>
#include <faiss_ext/gpu/host/SmallBlocks.h>
#include <faiss_ext/gpu/index/TransferStats.h>

namespace faiss_ext {
namespace gpu {

/// A pool of pinned memory that its blocks keep alive: for results that the GPU
/// writes where the caller reads them, and that live as long as he likes. A
/// fork copies the memory (PinnedPages.h), where the running kernel can do that
/// safely; elsewhere the pool has none.
class FAISS_EXT_API PinnedBlockPool {
   public:
    /// At most `capacity` bytes are pinned at any time.
    explicit PinnedBlockPool(size_t capacity);

    size_t capacity() const noexcept {
        return buffers_.capacity();
    }

    /// Bytes pinned now, in use or idle.
    size_t pinnedBytes() const {
        return buffers_.pinnedBytes();
    }

    /// Unpins what no block is in. Does not wait.
    void trim();

    /// How often memory was pinned.
    uint64_t allocations() const noexcept {
        return counters_.pinnedAllocations;
    }

   private:
    friend class PinnedBlock;

    TransferCounters counters_;
    PinnedBufferPool buffers_;
    SmallBlocks small_;
};

/// Pinned memory on loan from a PinnedBlockPool, returned at the end of its
/// life, by any thread. Not movable.
class FAISS_EXT_API PinnedBlock {
   public:
    /// A block of at least `bytes` >= 1, or nullptr where the pool's capacity
    /// cannot hold it, or it has no memory. Small blocks share what can be
    /// pinned (SmallBlocks). Does not wait. Throws CudaError if pinning fails.
    static std::unique_ptr<PinnedBlock> tryMake(
            const std::shared_ptr<PinnedBlockPool>& pool, size_t bytes);

    PinnedBlock(const PinnedBlock&) = delete;
    PinnedBlock& operator=(const PinnedBlock&) = delete;

    void* data() const noexcept {
        return piece_.data() ? piece_.data() : buffer_.data();
    }

   private:
    PinnedBlock(
            std::shared_ptr<PinnedBlockPool> pool,
            SmallBlocks::Piece piece,
            PinnedBuffer buffer);

    // In this order: the memory goes back before the pool may end.
    const std::shared_ptr<PinnedBlockPool> pool_;
    // One of the two.
    const SmallBlocks::Piece piece_;
    const PinnedBuffer buffer_;
};

} // namespace gpu
} // namespace faiss_ext
