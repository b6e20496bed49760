#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 256;
constexpr int kCollectThreads = 1024;

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
        bool last = false;
        if (query < queries.n) {
            last = queries.paths[query] == QueryPath::Last;
            if (!last) {
                const uint64_t kth =
                        queries.best[query * queries.k + queries.k - 1];
                if (!certified(lossOf(kth), queries.leastCut[query])) {
                    last = true;
                    queries.paths[query] = QueryPath::Last;
                }
            }
        }
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
