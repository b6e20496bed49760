#include <faiss_ext/gpu/PinnedBlock.h>

#include <utility>

namespace faiss_ext {
namespace gpu {

PinnedBlockPool::PinnedBlockPool(size_t capacity)
        : buffers_(capacity, counters_) {}

PinnedBlock::PinnedBlock(
        std::shared_ptr<PinnedBlockPool> pool, PinnedBuffer buffer)
        : pool_(std::move(pool)), buffer_(std::move(buffer)) {}

std::unique_ptr<PinnedBlock> PinnedBlock::tryMake(
        const std::shared_ptr<PinnedBlockPool>& pool, size_t bytes) {
    PinnedBuffer buffer = pool->buffers().tryAcquire(bytes);
    if (!buffer.data()) {
        return nullptr;
    }
    return std::unique_ptr<PinnedBlock>(
            new PinnedBlock(pool, std::move(buffer)));
}

} // namespace gpu
} // namespace faiss_ext
