#pragma once

#include <faiss/gpu/GpuResources.h>

#include <memory>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/Searcher.h>
#include <faiss_ext/gpu/index/TransferStats.h>

namespace faiss_ext {
namespace gpu {

/// Another searcher's search, of queries that are normalised first, into
/// scratch memory, since they may be the caller's. Everything is enqueued
/// where that is; the host waits for memory alone that Faiss' temporary memory
/// lacks. Queries are float32.
class FAISS_EXT_API CosineSearcher : public Searcher {
   public:
    /// Of queries with d components. The resources and the counters outlive
    /// this.
    CosineSearcher(
            std::unique_ptr<Searcher> searcher,
            faiss::gpu::GpuResources& resources,
            int device,
            int d,
            TransferCounters& counters);

    ComputeNeeds needs(idx_t n, int k) const override;
    const char* searchedBy() const override;
    ComputeWork leastWork(idx_t n, int k) const override;
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
    idx_t rowsAtOnce(idx_t n) const;
    idx_t rowsOnLane(idx_t n) const;
    size_t bytesOf(idx_t rows) const;
    ComputeContext behind(const ComputeContext& context, size_t bytes) const;
    QueryRows normalized(
            const QueryRows& queries,
            idx_t first,
            idx_t rows,
            char* to,
            cudaStream_t stream) const;

    const std::unique_ptr<Searcher> searcher_;
    faiss::gpu::GpuResources& resources_;
    const int device_;
    const int d_;
    TransferCounters& counters_;
};

} // namespace gpu
} // namespace faiss_ext
