#pragma once

#include <faiss/gpu/GpuResources.h>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/ComputeLane.h>
#include <faiss_ext/gpu/compute/Searcher.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>

namespace faiss_ext {
namespace gpu {

/// Searches the store of a flat index with Faiss' kernels. Faiss computes 512
/// queries at a time, on two streams, and selects the nearest of one query with
/// one of the GPU's many processors: so parts of the queries run side by side,
/// or, of few queries, slices of the vectors, merged as Faiss merges its tiles.
/// Queries are float32.
class FAISS_EXT_API FaissSearcher : public Searcher {
   public:
    /// All outlive this. `searchedBy`: what it says of itself.
    FaissSearcher(
            ComputeLanes& lanes,
            faiss::gpu::FlatIndex& store,
            faiss::MetricType metric,
            float metricArg,
            const char* searchedBy);

    ComputeNeeds needs(idx_t n, int k) const override;
    const char* searchedBy() const override {
        return searchedBy_;
    }
    SliceNeeds sliceNeeds(idx_t n, int k, const Slices& slices) const override;
    void enqueue(
            const ComputeContext& context,
            const QueryRows& queries,
            const SearchResults& results) override;
    void enqueueSlice(
            const ComputeContext& context,
            const QueryRows& queries,
            const Slices& slices,
            void* found,
            int slice) override;
    void mergeSlices(
            const ComputeContext& context,
            const QueryRows& queries,
            const Slices& slices,
            void* found,
            const SearchResults& results) override;

   private:
    StoreQueries asked(
            const QueryRows& queries, const SearchResults& results) const;

    ComputeLanes& lanes_;
    faiss::gpu::FlatIndex& store_;
    const faiss::MetricType metric_;
    const float metricArg_;
    const VectorsView vectors_;
    const char* const searchedBy_;
};

} // namespace gpu
} // namespace faiss_ext
