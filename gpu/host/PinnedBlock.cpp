#include <faiss_ext/gpu/host/PinnedBlock.h>

#include <utility>

#include <faiss_ext/gpu/host/PinnedPages.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

PinnedBlockPool::PinnedBlockPool(size_t capacity)
        : buffers_(capacity, counters_, PinnedBufferPool::Pages::Private),
          small_(buffers_) {}

void PinnedBlockPool::trim() {
    small_.trim();
    buffers_.trim();
}

PinnedBlock::PinnedBlock(
        std::shared_ptr<PinnedBlockPool> pool,
        SmallBlocks::Piece piece,
        PinnedBuffer buffer)
        : pool_(std::move(pool)),
          piece_(std::move(piece)),
          buffer_(std::move(buffer)) {}

std::unique_ptr<PinnedBlock> PinnedBlock::tryMake(
        const std::shared_ptr<PinnedBlockPool>& pool, size_t bytes) {
    // Before any lock, which nobody gives back who held it at a fork.
    beforeCuda();
    if (!pinned_pages::areSafe()) {
        return nullptr;
    }
    SmallBlocks::Piece piece;
    if (bytes <= SmallBlocks::kLargest) {
        piece = pool->small_.tryTake(bytes);
    }
    PinnedBuffer buffer;
    if (!piece.data()) {
        buffer = pool->buffers_.tryAcquire(bytes);
        if (!buffer.data()) {
            return nullptr;
        }
    }
    return std::unique_ptr<PinnedBlock>(
            new PinnedBlock(pool, std::move(piece), std::move(buffer)));
}

} // namespace gpu
} // namespace faiss_ext
