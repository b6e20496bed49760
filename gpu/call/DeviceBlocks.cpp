#include <faiss_ext/gpu/call/DeviceBlocks.h>

#include <utility>

#include <faiss_ext/gpu/host/PinnedBufferPool.h>

namespace faiss_ext {
namespace gpu {

DeviceBlocks::DeviceBlocks(
        faiss::gpu::GpuResources& resources,
        int device,
        TransferCounters& counters,
        std::function<void()> waitUntilUnused)
        : resources_(resources),
          device_(device),
          counters_(counters),
          waitUntilUnused_(std::move(waitUntilUnused)) {}

void DeviceBlocks::reserve(int depth, size_t in, size_t out) {
    while (slots_.size() < static_cast<size_t>(depth)) {
        slots_.emplace_back();
    }
    try {
        reserveAll(depth, in, out);
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, resources_.getDefaultStream(device_));
        // Those of other sizes, or of later slots, make room.
        free();
        reserveAll(depth, in, out);
    }
}

void DeviceBlocks::reserveAll(int depth, size_t in, size_t out) {
    for (int slot = 0; slot < depth; ++slot) {
        grow(slots_[slot].in, in);
        grow(slots_[slot].out, out);
    }
}

void DeviceBlocks::grow(
        std::optional<faiss::gpu::GpuMemoryReservation>& block, size_t bytes) {
    if (bytes == 0 || (block && block->size >= bytes)) {
        return;
    }
    if (block) {
        // All, and not this slot alone: freeing waits for the whole device.
        waitUntilUnused_();
        block.reset();
    }
    // Powers of two, so that slowly growing calls do not allocate each time.
    block.emplace(resources_.allocMemoryHandle(faiss::gpu::AllocRequest(
            faiss::gpu::AllocType::Other,
            device_,
            faiss::gpu::MemorySpace::Device,
            resources_.getDefaultStream(device_),
            PinnedBufferPool::bucketSize(bytes))));
    ++counters_.deviceAllocations;
}

void DeviceBlocks::free() {
    for (const Slot& slot : slots_) {
        if (slot.in || slot.out) {
            waitUntilUnused_();
            freeNow();
            return;
        }
    }
}

void DeviceBlocks::freeNow() noexcept {
    for (Slot& slot : slots_) {
        slot.in.reset();
        slot.out.reset();
    }
}

void DeviceBlocks::keepForEver() noexcept {
    for (Slot& slot : slots_) {
        for (auto* block : {&slot.in, &slot.out}) {
            if (*block) {
                (*block)->data = nullptr;
            }
        }
    }
}

} // namespace gpu
} // namespace faiss_ext
