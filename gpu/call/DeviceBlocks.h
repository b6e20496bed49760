#pragma once

#include <faiss/gpu/GpuResources.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/index/TransferStats.h>

namespace faiss_ext {
namespace gpu {

/// The memory on the GPU, and the events, of the tiles that are under way; kept
/// from call to call. Not Faiss' temporary memory, which is safe only in the
/// order of one stream.
class DeviceBlocks {
   public:
    /// Of one tile. The events outlive a call: a later one that takes the
    /// slot's memory waits for them, on its stream.
    struct Slot {
        std::optional<faiss::gpu::GpuMemoryReservation> in;
        std::optional<faiss::gpu::GpuMemoryReservation> out;
        /// Upload stream: the rows are in `in`.
        Event uploaded;
        /// Default stream, or each of several: `in` has been read, `out`
        /// written.
        std::vector<Event> computed;
        /// Copy stream: `out` has been read.
        Event downloaded;
    };

    /// `waitUntilUnused` returns when nothing in flight uses these blocks. All
    /// outlive this. Allocates nothing.
    DeviceBlocks(
            faiss::gpu::GpuResources& resources,
            int device,
            TransferCounters& counters,
            std::function<void()> waitUntilUnused);

    /// Makes sure that there are `depth` slots with blocks of `in` and `out`
    /// bytes; 0: none is needed. Blocks that are too small are exchanged once
    /// nothing uses them, and where the GPU is short of memory all go first.
    /// Throws what `resources` throw where that does not help.
    void reserve(int depth, size_t in, size_t out);

    /// Frees all blocks, once nothing uses them. Throws as `waitUntilUnused`.
    void free();

    /// Frees them at once.
    void freeNow() noexcept;

    /// The CUDA context is lost: what Faiss would abort on when it cannot free
    /// it is not freed.
    void keepForEver() noexcept;

    Slot& operator[](size_t slot) {
        return slots_[slot];
    }

   private:
    void reserveAll(int depth, size_t in, size_t out);
    void grow(
            std::optional<faiss::gpu::GpuMemoryReservation>& block,
            size_t bytes);

    faiss::gpu::GpuResources& resources_;
    const int device_;
    TransferCounters& counters_;
    const std::function<void()> waitUntilUnused_;
    std::vector<Slot> slots_;
};

} // namespace gpu
} // namespace faiss_ext
