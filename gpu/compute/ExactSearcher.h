#pragma once

#include <faiss/gpu/GpuResources.h>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/ExactPlan.h>
#include <faiss_ext/gpu/compute/ExactVectors.h>
#include <faiss_ext/gpu/compute/Searcher.h>

namespace faiss_ext {
namespace gpu {

/// What an exact search is made with.
struct ExactSearch {
    faiss::gpu::GpuResources& resources;
    int device;
    ExactVectors& kept;
    VectorsView vectors;
    exact::Metric metric;
    exact::TensorArithmetic arithmetic;
    /// How often the vectors have changed.
    uint64_t changes;
    ExactSizes most;
    TransferCounters& counters;
};

/// Searches a flat index by the exact engine: the results are the k first by D
/// (compute/exact/Distance.h), ties by label, bit for bit, whatever the tiles.
/// Vectors that scores in half precision rule out are not compared; where that
/// cannot be proven, all are (docs/exact-search.md). Everything is enqueued on
/// the default stream, the fallbacks included; the host waits for memory alone
/// that Faiss' temporary memory lacks. Queries are float32.
class FAISS_EXT_API ExactSearcher : public Searcher {
   public:
    /// What `search` refers to outlives this.
    explicit ExactSearcher(const ExactSearch& search) : search_(search) {}

    ComputeNeeds needs(idx_t n, int k) const override;
    const char* searchedBy() const override;
    void enqueue(
            const ComputeContext& context,
            const QueryRows& queries,
            const SearchResults& results) override;

   private:
    const ExactSearch search_;
};

} // namespace gpu
} // namespace faiss_ext
