#include <faiss_ext/gpu/compute/FaissSearcher.h>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/kernels/FillMissing.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// The metrics whose smallest distances are the nearest, in all versions of
/// Faiss, and the inner product.
bool sliceable(faiss::MetricType metric) {
    switch (metric) {
        case faiss::METRIC_INNER_PRODUCT:
        case faiss::METRIC_L2:
        case faiss::METRIC_L1:
        case faiss::METRIC_Linf:
        case faiss::METRIC_Lp:
        case faiss::METRIC_Canberra:
        case faiss::METRIC_BrayCurtis:
        case faiss::METRIC_JensenShannon:
            return true;
        default:
            return false;
    }
}

} // namespace

FaissSearcher::FaissSearcher(
        ComputeLanes& lanes,
        faiss::gpu::FlatIndex& store,
        faiss::MetricType metric,
        float metricArg,
        const char* searchedBy)
        : lanes_(lanes),
          store_(store),
          metric_(metric),
          metricArg_(metricArg),
          vectors_(viewOf(store)),
          searchedBy_(searchedBy) {}

ComputeNeeds FaissSearcher::needs(idx_t n, int k) const {
    ComputeNeeds needs;
    // A product and a sum for each component of each vector.
    needs.rowOperations = 2.0 * vectors_.n * vectors_.d;
    needs.storesToPinned = true;
    if (vectors_.n == 0 || !searchedByFaiss(store_)) {
        return needs;
    }
    needs.laneBytes = laneBytesOf(store_, n, k, vectors_.n);
    if (vectors_.n >= tuning::kLaneVectors) {
        needs.lanes = k > tuning::kManyNeighbours ? tuning::kLanesForMany
                                                  : tuning::kComputeLanes;
    }
    if (sliceable(metric_)) {
        needs.sliceableVectors = vectors_.n;
        needs.rowResults = k;
    }
    return needs;
}

SliceNeeds FaissSearcher::sliceNeeds(
        idx_t n, int k, const Slices& slices) const {
    return {laneBytesOf(store_, n, k, slices.vectors),
            foundBytesOf(n, k, slices.count),
            mergeBytesOf(n, k)};
}

void FaissSearcher::enqueue(
        const ComputeContext& context,
        const QueryRows& queries,
        const SearchResults& results) {
    if (vectors_.n == 0) {
        // Faiss waits, and takes every metric for a distance.
        FAISS_EXT_CUDA_TRY(launchFillMissing(
                results.distances,
                results.labels,
                queries.n * queries.k,
                distanceOfMissing(metric_),
                context.stream));
        return;
    }
    searchStore(store_, lanes_.on(context), asked(queries, results));
}

void FaissSearcher::enqueueSlice(
        const ComputeContext& context,
        const QueryRows& queries,
        const Slices& slices,
        void* found,
        int slice) {
    searchSlice(
            store_,
            lanes_.on(context),
            asked(queries, {}),
            slices,
            found,
            slice);
}

void FaissSearcher::mergeSlices(
        const ComputeContext& context,
        const QueryRows& queries,
        const Slices& slices,
        void* found,
        const SearchResults& results) {
    mergeFound(lanes_.on(context), asked(queries, results), slices, found);
}

StoreQueries FaissSearcher::asked(
        const QueryRows& queries, const SearchResults& results) const {
    return {metric_,
            metricArg_,
            queries.n,
            static_cast<const float*>(queries.x),
            queries.k,
            results.distances,
            results.labels};
}

} // namespace gpu
} // namespace faiss_ext
