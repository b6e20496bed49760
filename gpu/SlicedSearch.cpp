#include <faiss_ext/gpu/SlicedSearch.h>

#include <algorithm>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/Tuning.h>

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

int slicesOf(idx_t vectors, idx_t n, int k, const StagedConfig& config) {
    if (n > tuning::kComputeRows) {
        return 1;
    }
    const idx_t most = config.computeLanes > 0 ? config.computeLanes
                                               : tuning::kComputeLanes;
    idx_t slices = std::min<idx_t>(most, vectors / config.sliceVectors);
    // Where the queries alone keep the GPU selecting, each slice makes it
    // select more.
    while (slices > 1 && slices * n > tuning::kSlicedQueries &&
           vectors / slices < tuning::kVectorsPerNeighbour * k) {
        --slices;
    }
    return static_cast<int>(std::max<idx_t>(slices, 1));
}

bool searchInSlices(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& resources,
        CallLanes lanes,
        const StagedConfig& config,
        const StoreQueries& queries) {
    if (!sliceable(queries.metric) || !searchedByFaiss(store)) {
        return false;
    }
    SliceResults results{};
    size_t laneBytes = 0, resultBytes = 0;
    const auto cut = [&](idx_t slices) {
        const idx_t vectors = vectorsIn(store);
        results.vectors = divideUp(vectors, slices);
        results.slices = static_cast<int>(divideUp(vectors, results.vectors));
        laneBytes = laneBytesOf(store, queries.n, queries.k, results.vectors);
        resultBytes = resultBytesOf(queries.n, queries.k, results.slices);
    };
    cut(slicesOf(vectorsIn(store), queries.n, queries.k, config));
    const size_t mergeBytes = mergeBytesOf(queries.n, queries.k);
    while (results.slices > 1 &&
           !lanes.haveRoom(
                   results.slices, laneBytes, resultBytes + mergeBytes)) {
        cut(results.slices - 1);
    }
    if (results.slices == 1 ||
        !lanes.open(results.slices, laneBytes, resultBytes)) {
        return false;
    }
    results.found = lanes.besides();
    lanes.fork();
    for (int slice = 0; slice < results.slices; ++slice) {
        searchSliceOnLane(store, lanes.on(slice), queries, results, slice);
    }
    lanes.join();
    mergeSlices(resources, queries, results);
    return true;
}

} // namespace gpu
} // namespace faiss_ext
