#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>

namespace faiss_ext {
namespace gpu {

/// What an index has moved, waited for and allocated since it was made or since
/// the counts were last reset. Copies that Faiss makes by itself (in `add`) are
/// not in it.
struct TransferStats {
    /// Copies and bytes from host memory to the index's GPU.
    uint64_t copiesToDevice = 0;
    uint64_t bytesToDevice = 0;

    /// Copies and bytes from the index's GPU to host memory; bytes that kernels
    /// wrote there, of few queries, are no copy.
    uint64_t copiesToHost = 0;
    uint64_t bytesToHost = 0;

    /// Copies and bytes between two GPUs.
    uint64_t copiesAcrossDevices = 0;
    uint64_t bytesAcrossDevices = 0;

    /// How often the calling thread waited for the GPU.
    uint64_t hostWaits = 0;

    /// Allocations of staging memory (zero in steady state).
    uint64_t deviceAllocations = 0;
    uint64_t pinnedAllocations = 0;
};

/// The running counts behind TransferStats; any thread may read them while a
/// search counts.
class TransferCounters {
   public:
    std::atomic<uint64_t> copiesToDevice{0};
    std::atomic<uint64_t> bytesToDevice{0};
    std::atomic<uint64_t> copiesToHost{0};
    std::atomic<uint64_t> bytesToHost{0};
    std::atomic<uint64_t> copiesAcrossDevices{0};
    std::atomic<uint64_t> bytesAcrossDevices{0};
    std::atomic<uint64_t> hostWaits{0};
    std::atomic<uint64_t> deviceAllocations{0};
    std::atomic<uint64_t> pinnedAllocations{0};

    TransferStats snapshot() const {
        return {copiesToDevice,
                bytesToDevice,
                copiesToHost,
                bytesToHost,
                copiesAcrossDevices,
                bytesAcrossDevices,
                hostWaits,
                deviceAllocations,
                pinnedAllocations};
    }

    void reset() {
        for (auto* count :
             {&copiesToDevice,
              &bytesToDevice,
              &copiesToHost,
              &bytesToHost,
              &copiesAcrossDevices,
              &bytesAcrossDevices,
              &hostWaits,
              &deviceAllocations,
              &pinnedAllocations}) {
            *count = 0;
        }
    }
};

} // namespace gpu
} // namespace faiss_ext
