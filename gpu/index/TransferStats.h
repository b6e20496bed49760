#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <string>

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

    /// Queries that the exact engine has answered, by how their results are
    /// known to be right: by a certificate; by one, in a second round of
    /// filtering; because they were compared with every vector. The GPU counts
    /// them: they are whole once the index's stream has passed the searches.
    /// Those of a search that began anew, for want of memory, count again.
    uint64_t certifiedQueries = 0;
    uint64_t widenedQueries = 0;
    uint64_t lastPathQueries = 0;

    /// What the last search was made by: "the exact engine" or "Faiss'
    /// kernels", with the reason where the exact engine was asked for; ""
    /// before the first one.
    std::string searchedBy;
};

/// The running counts behind TransferStats, but for those of queries; any
/// thread may read them while a search counts.
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
    /// In words that live for ever.
    std::atomic<const char*> searchedBy{""};

    TransferStats snapshot() const {
        return {copiesToDevice,
                bytesToDevice,
                copiesToHost,
                bytesToHost,
                copiesAcrossDevices,
                bytesAcrossDevices,
                hostWaits,
                deviceAllocations,
                pinnedAllocations,
                0,
                0,
                0,
                searchedBy.load()};
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
        searchedBy = "";
    }
};

} // namespace gpu
} // namespace faiss_ext
