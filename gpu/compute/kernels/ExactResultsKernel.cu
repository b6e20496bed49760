#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 256;
constexpr int kCollectThreads = 1024;

/// Whether `best` is known to be the k best.
__device__ inline bool isProven(const QueryState& queries, idx_t query) {
    const QueryPath path = queries.paths[query];
    const uint64_t kth = queries.best[query * queries.k + queries.k - 1];
    return path != QueryPath::Last && path != QueryPath::Incomplete &&
           certified(lossOf(kth), queries.leastCut[query]);
}

/// A thread a query; their lists are cleared by whole warps.
__global__ void collectAgainKernel(QueryState queries) {
    const int lane = threadIdx.x % 32;
    const idx_t query = idx_t(blockIdx.x) * kThreads + threadIdx.x;
    const int k = queries.k;
    bool again = false;
    if (query < queries.n && queries.paths[query] != QueryPath::Last &&
        !isProven(queries, query)) {
        const uint64_t kth = queries.best[query * k + k - 1];
        again = kth != kMissing;
        queries.paths[query] = again ? QueryPath::Widened : QueryPath::Last;
        if (again) {
            queries.cut[query] = lossOf(kth);
            queries.leastCut[query] = missingLoss();
        }
    }
    const unsigned lanes = __ballot_sync(kWholeWarp, again);
    if (lane == 0 && lanes != 0) {
        atomicAdd(queries.againCount, static_cast<uint32_t>(__popc(lanes)));
    }
    for (unsigned left = lanes; left != 0; left &= left - 1) {
        uint64_t* best = queries.best + (query - lane + __ffs(left) - 1) * k;
        for (int i = lane; i < k; i += 32) {
            best[i] = kMissing;
        }
    }
}

/// One block, so that the queries come in ascending order.
__global__ void __launch_bounds__(kCollectThreads)
        collectLastKernel(QueryState queries) {
    constexpr int kWarps = kCollectThreads / 32;
    __shared__ uint32_t ofWarp[kWarps];
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    uint32_t before = 0;
    for (idx_t base = 0; base < queries.n; base += kCollectThreads) {
        const idx_t query = base + threadIdx.x;
        const bool last = query < queries.n && !isProven(queries, query);
        const unsigned lanes = __ballot_sync(kWholeWarp, last);
        if (lane == 0) {
            ofWarp[warp] = __popc(lanes);
        }
        __syncthreads();
        uint32_t place = before;
        for (int w = 0; w < kWarps; ++w) {
            place += w < warp ? ofWarp[w] : 0;
            before += ofWarp[w];
        }
        if (last) {
            place += __popc(lanes & ((1u << lane) - 1));
            queries.last[place] = static_cast<uint32_t>(query);
            queries.paths[query] = QueryPath::Last;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        *queries.lastCount = before;
    }
}

/// What the last path begins with.
__global__ void clearBestKernel(QueryState queries) {
    const uint32_t count = *queries.lastCount;
    for (uint32_t i = blockIdx.x; i < count; i += gridDim.x) {
        uint64_t* best = queries.best + idx_t(queries.last[i]) * queries.k;
        for (int j = threadIdx.x; j < queries.k; j += kThreads) {
            best[j] = kMissing;
        }
    }
}

__global__ void writeResultsKernel(
        Metric metric, QueryState queries, float* distances, idx_t* labels) {
    const idx_t end = queries.n * queries.k;
    const idx_t step = idx_t(gridDim.x) * kThreads;
    for (idx_t i = idx_t(blockIdx.x) * kThreads + threadIdx.x; i < end;
         i += step) {
        const uint64_t key = queries.best[i];
        distances[i] = distanceOf(metric, key);
        labels[i] = labelOf(key);
    }
}

/// One block. Others may add to the same counts.
__global__ void countPathsKernel(QueryState queries, PathCounts* counts) {
    __shared__ unsigned ofPath[3];
    if (threadIdx.x < 3) {
        ofPath[threadIdx.x] = 0;
    }
    __syncthreads();
    for (idx_t query = threadIdx.x; query < queries.n; query += kThreads) {
        atomicAdd(&ofPath[static_cast<unsigned>(queries.paths[query])], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned long long* const totals[3] = {
                reinterpret_cast<unsigned long long*>(&counts->certified),
                reinterpret_cast<unsigned long long*>(&counts->widened),
                reinterpret_cast<unsigned long long*>(&counts->last)};
        for (int path = 0; path < 3; ++path) {
            if (ofPath[path]) {
                atomicAdd(totals[path], ofPath[path]);
            }
        }
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
    collectLastKernel<<<1, kCollectThreads, 0, stream>>>(queries);
    if (queries.n > 0) {
        clearBestKernel<<<blocksFor(queries.n, 1, 1024), kThreads, 0, stream>>>(
                queries);
    }
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
            stream>>>(metric, queries, distances, labels);
    if (counts) {
        countPathsKernel<<<1, kThreads, 0, stream>>>(queries, counts);
    }
    return cudaGetLastError();
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
