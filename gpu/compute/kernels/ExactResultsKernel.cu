#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 256;

/// Whether `best` is known to be the k best.
__device__ inline bool isProven(const QueryState& queries, idx_t query) {
    const QueryPath path = queries.paths[query];
    const uint64_t kth = queries.best[query * queries.k + queries.k - 1];
    return path != QueryPath::Last && path != QueryPath::Incomplete &&
           certified(lossOf(kth), queries.leastCut[query]);
}

/// Makes the lists of a warp's queries empty, of lanes that say so.
__device__ inline void clearBest(
        const QueryState& queries, idx_t query, unsigned lanes) {
    const int lane = threadIdx.x % 32;
    for (unsigned left = lanes; left != 0; left &= left - 1) {
        uint64_t* const best =
                queries.best + (query - lane + __ffs(left) - 1) * queries.k;
        for (int i = lane; i < queries.k; i += 32) {
            best[i] = kMissing;
        }
    }
}

/// A thread a query.
__global__ void collectAgainKernel(QueryState queries) {
    const idx_t query = idx_t(blockIdx.x) * kThreads + threadIdx.x;
    bool again = false;
    if (query < queries.n && queries.paths[query] != QueryPath::Last &&
        !isProven(queries, query)) {
        const uint64_t kth = queries.best[query * queries.k + queries.k - 1];
        again = kth != kMissing;
        queries.paths[query] = again ? QueryPath::Widened : QueryPath::Last;
        if (again) {
            queries.cut[query] = lossOf(kth);
            queries.leastCut[query] = missingLoss();
        }
    }
    const unsigned lanes = __ballot_sync(kWholeWarp, again);
    if (threadIdx.x % 32 == 0 && lanes != 0) {
        atomicAdd(queries.againCount, static_cast<uint32_t>(__popc(lanes)));
    }
    clearBest(queries, query, lanes);
}

/// A thread a query.
__global__ void collectLastKernel(QueryState queries) {
    const int lane = threadIdx.x % 32;
    const idx_t query = idx_t(blockIdx.x) * kThreads + threadIdx.x;
    const bool exists = query < queries.n;
    const bool last = exists && !isProven(queries, query);
    const bool widened =
            exists && !last && queries.paths[query] == QueryPath::Widened;
    const unsigned widenedLanes = __ballot_sync(kWholeWarp, widened);
    if (lane == 0 && widenedLanes != 0) {
        atomicAdd(
                queries.widenedCount,
                static_cast<uint32_t>(__popc(widenedLanes)));
    }
    const unsigned lanes = __ballot_sync(kWholeWarp, last);
    if (lanes == 0) {
        return;
    }
    uint32_t place = 0;
    if (lane == 0) {
        place = atomicAdd(
                queries.lastCount, static_cast<uint32_t>(__popc(lanes)));
    }
    place = __shfl_sync(kWholeWarp, place, 0);
    if (last) {
        queries.last[place + __popc(lanes & ((1u << lane) - 1))] =
                static_cast<uint32_t>(query);
        queries.paths[query] = QueryPath::Last;
    }
    clearBest(queries, query, lanes);
}

/// Of all queries. Others may add to the same counts, which may be far away:
/// one thread's business.
__device__ inline void countPaths(
        const QueryState& queries, PathCounts* counts) {
    const auto add = [](uint64_t& count, uint64_t these) {
        if (these > 0) {
            atomicAdd(
                    reinterpret_cast<unsigned long long*>(&count),
                    static_cast<unsigned long long>(these));
        }
    };
    const uint32_t last = *queries.lastCount;
    const uint32_t widened = *queries.widenedCount;
    add(counts->certified, queries.n - last - widened);
    add(counts->widened, widened);
    add(counts->last, last);
}

/// A thread several results.
__global__ void writeResultsKernel(
        Metric metric,
        QueryState queries,
        float* distances,
        idx_t* labels,
        PathCounts* counts) {
    if (counts && blockIdx.x == 0 && threadIdx.x == 0) {
        countPaths(queries, counts);
    }
    const idx_t end = queries.n * queries.k;
    const idx_t step = idx_t(gridDim.x) * kThreads;
    for (idx_t i = idx_t(blockIdx.x) * kThreads + threadIdx.x; i < end;
         i += step) {
        const uint64_t key = queries.best[i];
        distances[i] = distanceOf(metric, key);
        labels[i] = labelOf(key);
    }
}

} // namespace

cudaError_t launchCollectAgain(const QueryState& queries, cudaStream_t stream) {
    if (queries.n == 0) {
        return cudaSuccess;
    }
    collectAgainKernel<<<blocksFor(queries.n, kThreads), kThreads, 0, stream>>>(
            queries);
    return cudaGetLastError();
}

cudaError_t launchCollectLast(const QueryState& queries, cudaStream_t stream) {
    if (queries.n == 0) {
        return cudaSuccess;
    }
    collectLastKernel<<<blocksFor(queries.n, kThreads), kThreads, 0, stream>>>(
            queries);
    return cudaGetLastError();
}

cudaError_t launchWriteResults(
        Metric metric,
        const QueryState& queries,
        float* distances,
        idx_t* labels,
        PathCounts* counts,
        cudaStream_t stream) {
    if (queries.n == 0) {
        return cudaSuccess;
    }
    constexpr int64_t kMostBlocks = 16384;
    writeResultsKernel<<<
            blocksFor(queries.n * queries.k, kThreads, kMostBlocks),
            kThreads,
            0,
            stream>>>(metric, queries, distances, labels, counts);
    return cudaGetLastError();
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
