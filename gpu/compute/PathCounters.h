#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

/// How the queries of an index were answered, counted by the kernels into
/// pinned memory. Any thread may ask, without a wait: the counts are whole once
/// the index's stream has passed what is asked about.
class FAISS_EXT_API PathCounters {
   public:
    /// Pins nothing yet. `counters` is told of what is pinned, and lives until
    /// freeNow.
    explicit PathCounters(TransferCounters& counters);

    /// Where kernels count, pinned by the first call; null where the host has
    /// no such memory left: then these queries are not counted. Under the lock
    /// of the resources. Throws CudaError.
    exact::PathCounts* forKernels();

    /// Unpins it, once no kernel counts any more; for the end of all.
    void freeNow() noexcept;

    void addTo(TransferStats& stats) const;

    /// All that were counted since the memory was pinned, whatever reset() did.
    QueryPaths counted() const;

    /// From now on counts as from zero; what kernels in flight still count is
    /// counted from then on.
    void reset();

   private:
    using Counts = std::array<uint64_t, 3>;
    Counts read() const;

    PinnedBufferPool pool_;
    PinnedBuffer memory_;
    std::atomic<exact::PathCounts*> counts_{nullptr};
    /// What was counted before the last reset: the kernels alone write the
    /// counts.
    std::array<std::atomic<uint64_t>, 3> before_{};
};

} // namespace gpu
} // namespace faiss_ext
