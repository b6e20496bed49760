#include <faiss_ext/gpu/compute/SlicedSearch.h>

#include <algorithm>
#include <optional>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/call/Tuning.h>

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

/// How a store is cut for one search.
struct Cut {
    Slices slices;
    size_t resultBytes;
    /// On how many lanes they are searched, in turns; 2 at least.
    size_t lanes;
    size_t laneBytes;
};

/// The largest slices, for as many lanes as may be, that there is memory for.
std::optional<Cut> cutOf(
        const faiss::gpu::FlatIndex& store,
        const CallLanes& lanes,
        const StagedConfig& config,
        const StoreQueries& queries) {
    const idx_t n = queries.n;
    const int k = queries.k;
    const idx_t vectors = vectorsIn(store);
    const idx_t least = leastSliceOf(n, k, config);
    const idx_t mostLanes = config.computeLanes > 0 ? config.computeLanes
                                                    : tuning::kComputeLanes;
    for (idx_t slices = std::min(mostLanes, vectors / least);
         slices > 1 && vectors / slices >= least;
         slices *= 2) {
        Cut cut{};
        cut.slices.vectors = divideUp(vectors, slices);
        cut.slices.count =
                static_cast<int>(divideUp(vectors, cut.slices.vectors));
        cut.resultBytes = resultBytesOf(n, k, cut.slices.count);
        cut.laneBytes = laneBytesOf(store, n, k, cut.slices.vectors);
        cut.lanes = lanes.affordable(
                std::min<size_t>(mostLanes, cut.slices.count),
                cut.laneBytes,
                cut.resultBytes + mergeBytesOf(n, k));
        if (cut.lanes > 1) {
            return cut;
        }
    }
    return std::nullopt;
}

} // namespace

idx_t leastSliceOf(idx_t n, int k, const StagedConfig& config) {
    return std::max<idx_t>(config.sliceVectors, n * k);
}

bool searchInSlices(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& resources,
        CallLanes lanes,
        const StagedConfig& config,
        const StoreQueries& queries) {
    if (queries.n > tuning::kComputeRows || !sliceable(queries.metric) ||
        !searchedByFaiss(store)) {
        return false;
    }
    auto cut = cutOf(store, lanes, config, queries);
    if (!cut || !lanes.open(cut->lanes, cut->laneBytes, cut->resultBytes)) {
        return false;
    }
    Slices& slices = cut->slices;
    slices.found = lanes.besides();
    lanes.fork();
    for (int slice = 0; slice < slices.count; ++slice) {
        searchSliceOnLane(
                store, lanes.on(slice % lanes.size()), queries, slices, slice);
    }
    lanes.join();
    mergeSlices(resources, queries, slices);
    return true;
}

} // namespace gpu
} // namespace faiss_ext
