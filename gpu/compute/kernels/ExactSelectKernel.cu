#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactKeys.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

/// Threads of a block: more where there are so few queries that each has a
/// multiprocessor.
constexpr int kThreads = 128;
constexpr int kMostThreads = 512;
/// Four lanes compare the query with one row: each holds four neighbouring
/// chains of D.
constexpr int kLanes = 4;
/// Survivors that are sorted at once. Most lists are shorter, and much shared
/// memory would leave room for few blocks.
constexpr int kAtOnce = 512;

/// D of a query and a row, in all of the four lanes.
template <Metric metric, bool aligned, typename Stored>
__device__ inline float distanceOfLanes(
        const float* x, const Stored* y, int d, int lane) {
    float chain[4] = {0, 0, 0, 0};
#pragma unroll 8
    for (int i = 4 * lane; i < d; i += kChains) {
        const Four a = loadFour<aligned>(x, i, d);
        const Four b = loadFour<aligned>(y, i, d);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            chain[c] = addDimension<metric>(a.at[c], b.at[c], chain[c]);
        }
    }
    const float own = joinChains(chain[0], chain[1], chain[2], chain[3]);
    const float two = add(own, __shfl_xor_sync(kWholeWarp, own, 1));
    return add(add(two, __shfl_xor_sync(kWholeWarp, two, 2)), 0.0f);
}

/// Keys of a query's survivors below `limit`, in no order; `found` counts them.
template <Metric metric, bool aligned, typename Stored>
__device__ inline void findKeys(
        const Stored* data,
        const float* x,
        int d,
        const uint32_t* survivors,
        int count,
        uint64_t limit,
        uint64_t* keys,
        int& found) {
    const int lane = threadIdx.x % kLanes;
    // All lanes of a warp go on together.
    for (int base = 0; base < count; base += blockDim.x / kLanes) {
        const int i = base + threadIdx.x / kLanes;
        // Who has none does the last one again.
        const uint32_t label = survivors[i < count ? i : count - 1];
        const float distance = distanceOfLanes<metric, aligned>(
                x, data + int64_t(label) * d, d, lane);
        if (lane == 0 && i < count) {
            const uint64_t key = resultKey(metric, distance, label);
            if (key < limit) {
                keys[atomicAdd(&found, 1)] = key;
            }
        }
    }
}

/// A block a query. Shared memory: kAtOnce keys, and two lists of the k best.
template <bool aligned, typename Stored>
__global__ void __launch_bounds__(kMostThreads)
        selectKernel(const Stored* data, IndexState state, QueryState queries) {
    extern __shared__ uint64_t keys[];
    const idx_t query = blockIdx.x;
    const uint32_t survivors = queries.counts[query];
    if (survivors == 0) {
        return;
    }
    const int k = queries.k;
    const bool ranOver = survivors > static_cast<uint32_t>(queries.capacity);
    const int count = ranOver ? queries.capacity : static_cast<int>(survivors);
    uint64_t* kept = keys + kAtOnce;
    uint64_t* merged = kept + k;
    __shared__ int found;
    // Everybody has read the count before it is written.
    __syncthreads();
    if (threadIdx.x == 0) {
        found = 0;
        queries.counts[query] = 0;
        if (ranOver) {
            queries.paths[query] = QueryPath::Incomplete;
        }
    }
    uint64_t* const best = queries.best + query * k;
    // (This waits for all threads.)
    int keptCount = copyBest(best, k, kept);
    const float* x = queries.x + query * queries.d;
    const uint32_t* list = queries.survivors + query * queries.capacity;
    const bool l2 = state.terms->metric == Metric::L2;
    bool changed = false;
    for (int first = 0; first < count; first += kAtOnce) {
        const int these = count - first < kAtOnce ? count - first : kAtOnce;
        const uint64_t limit = keptCount == k ? kept[k - 1] : kMissing;
        if (l2) {
            findKeys<Metric::L2, aligned>(
                    data,
                    x,
                    queries.d,
                    list + first,
                    these,
                    limit,
                    keys,
                    found);
        } else {
            findKeys<Metric::InnerProduct, aligned>(
                    data,
                    x,
                    queries.d,
                    list + first,
                    these,
                    limit,
                    keys,
                    found);
        }
        __syncthreads();
        const int foundCount = found;
        __syncthreads();
        if (foundCount == 0) {
            continue;
        }
        changed = true;
        if (threadIdx.x == 0) {
            found = 0;
        }
        sortKeys(keys, foundCount);
        mergeKeys(
                keys,
                foundCount,
                kept,
                keptCount,
                k,
                [&](int place, uint64_t key) { merged[place] = key; });
        uint64_t* const former = kept;
        kept = merged;
        merged = former;
        keptCount = keptCount + foundCount < k ? keptCount + foundCount : k;
        __syncthreads();
    }
    if (!changed) {
        return;
    }
    for (int i = threadIdx.x; i < keptCount; i += blockDim.x) {
        best[i] = kept[i];
    }
    if (threadIdx.x == 0 && keptCount >= queries.rank) {
        const float cut = lossOf(kept[queries.rank - 1]);
        if (cut < queries.cut[query]) {
            queries.cut[query] = cut;
        }
    }
}

} // namespace

cudaError_t launchSelect(
        const VectorsView& vectors,
        const IndexState& state,
        const QueryState& queries,
        cudaStream_t stream) {
    if (queries.n == 0) {
        return cudaSuccess;
    }
    int processors = 0;
    const cudaError_t error = multiprocessors(processors);
    if (error != cudaSuccess) {
        return error;
    }
    const int d = vectors.d;
    // Up to 36 KiB, of k <= 2048.
    const size_t bytes = (kAtOnce + 2 * size_t(queries.k)) * sizeof(uint64_t);
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        const bool aligned = rowsAligned(data, d) && rowsAligned(queries.x, d);
        const auto select = aligned ? selectKernel<true, Stored>
                                    : selectKernel<false, Stored>;
        select<<<
                blocksFor(queries.n, 1),
                queries.n <= processors ? kMostThreads : kThreads,
                bytes,
                stream>>>(data, state, queries);
        return cudaGetLastError();
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
