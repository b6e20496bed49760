#include <faiss_ext/gpu/compute/kernels/ExactKeys.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactLimit.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScan.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScanAgain.cuh>

#include <algorithm>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 512;
/// Keys of a list that a thread reads at once.
constexpr int kAtOnce = 4;
/// Vectors that a block compares at once, where a list ran over.
constexpr int kRows = kThreads / 4;

/// Keys that are sorted at last: no fewer than k, and where it saves a pass
/// over the list, more.
inline int roomFor(int k) {
    return powerOfTwoFrom(std::max(k + k / 4, 1024));
}

/// The k least keys of a list, ascending, in keys [room]; returns how many.
__device__ int selectListed(
        const uint64_t* list,
        uint32_t listed,
        int k,
        int room,
        LimitScratch<kThreads>& scratch,
        uint64_t* keys) {
    __shared__ uint32_t found;
    const auto forEach = [&](auto&& take) {
        for (uint32_t base = 0; base < listed; base += kAtOnce * kThreads) {
            uint64_t own[kAtOnce];
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                const uint32_t at = base + i * kThreads + threadIdx.x;
                own[i] = at < listed ? __ldcg(list + at) : kMissing;
            }
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                take(own[i]);
            }
        }
    };
    if (threadIdx.x == 0) {
        found = 0;
    }
    const KeyRange range = rangeOfKeys(scratch, forEach);
    if (k == 1) {
        if (threadIdx.x == 0) {
            keys[0] = range.least;
        }
        __syncthreads();
        return range.count > 0 ? 1 : 0;
    }
    uint64_t limit = limitOfKeys(
            scratch,
            range,
            static_cast<uint32_t>(k),
            static_cast<uint32_t>(room),
            forEach);
    limit = limit < range.largest ? limit : range.largest;
    forEach([&](uint64_t key) {
        if (key <= limit && key != kMissing) {
            keys[atomicAdd(&found, 1u)] = key;
        }
    });
    __syncthreads();
    const int count = static_cast<int>(found);
    sortKeys(keys, count);
    return count;
}

/// All vectors again, and the k least keys, ascending, in kept [k], which is
/// where it ends; returns how many. keys [room], merged [k].
template <bool aligned, typename Stored>
__device__ __noinline__ int scanAlone(
        Metric metric,
        const Stored* data,
        idx_t count,
        const float* x,
        bool wholeLoads,
        int d,
        int k,
        int room,
        uint64_t* keys,
        uint64_t*& kept,
        uint64_t*& merged) {
    __shared__ int found;
    const ScanLane lane;
    int keptCount = 0;
    uint64_t limit = kMissing;
    if (threadIdx.x == 0) {
        found = 0;
    }
    __syncthreads();
    const auto keep = [&] {
        const int foundCount = found;
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
        if (threadIdx.x == 0) {
            found = 0;
        }
        __syncthreads();
        limit = keptCount == k ? kept[k - 1] : kMissing;
    };
    for (idx_t first = 0; first < count; first += kRows) {
        const idx_t row = first + threadIdx.x / 32 * 8 + lane.vector;
        const float loss = lossOfPair<aligned>(
                metric,
                x,
                wholeLoads,
                data + (row < count ? row : count - 1) * d,
                d,
                lane.group);
        const uint64_t key = keyOfLoss(loss, static_cast<uint32_t>(row));
        if (key < limit && row < count && lane.group == 0) {
            keys[atomicAdd(&found, 1)] = key;
        }
        __syncthreads();
        if (found > room - kRows) {
            keep();
        }
        __syncthreads();
    }
    keep();
    return keptCount;
}

/// Where a search's results go.
struct ScanResults {
    float* distances;
    idx_t* labels;
    PathCounts* counts;
};

/// A block a query, and all of them for those whose lists ran over. Shared
/// memory: keys [room], and twice k for scanAlone().
template <bool aligned, typename Stored>
__global__ void __launch_bounds__(kThreads) scanResultsKernel(
        Metric metric,
        const Stored* data,
        idx_t count,
        ScanState scan,
        bool wholeLoads,
        int room,
        ScanResults results) {
    extern __shared__ uint64_t keys[];
    __shared__ LimitScratch<kThreads> scratch;
    __shared__ AgainScratch<kThreads> againScratch;
    letNextKernelBegin();
    afterFormerKernel();
    const int k = scan.k;
    const bool all = scan.listsAll(count);
    const uint32_t capacity = static_cast<uint32_t>(scan.capacity);
    bool over = false;
    if (!all) {
        for (idx_t i = threadIdx.x; i < scan.n; i += kThreads) {
            over |= scan.counts[i] > capacity;
        }
    }
    const auto write = [&](idx_t query,
                           const uint64_t* sorted,
                           int sortedCount,
                           uint64_t* pathCount) {
        for (int i = threadIdx.x; i < k; i += kThreads) {
            const uint64_t key = i < sortedCount ? sorted[i] : kMissing;
            results.distances[query * k + i] = distanceOf(metric, key);
            results.labels[query * k + i] = labelOf(key);
        }
        if (results.counts && threadIdx.x == 0) {
            // Others may add to the same counts.
            atomicAdd(reinterpret_cast<unsigned long long*>(pathCount), 1ull);
        }
    };
    const auto select = [&](idx_t query, uint32_t listed, uint64_t* pathCount) {
        const int found = selectListed(
                scan.lists + query * scan.capacity,
                listed,
                k,
                room,
                scratch,
                keys);
        write(query, keys, found, pathCount);
    };
    const idx_t own = blockIdx.x;
    if (own < scan.n) {
        const uint32_t listed =
                all ? static_cast<uint32_t>(count) : scan.counts[own];
        if (listed <= capacity) {
            select(own, listed, &results.counts->certified);
        }
    }
    if (!__syncthreads_or(over)) {
        return;
    }
    ScanRounds<Stored, aligned, kThreads> rounds = {
            metric, data, count, scan, wholeLoads, scratch, againScratch};
    rounds.run([&](idx_t query, uint32_t listed) {
        if (listed <= capacity) {
            select(query, listed, &results.counts->widened);
            return;
        }
        uint64_t* sorted = keys + room;
        uint64_t* merged = sorted + k;
        const int found = scanAlone<aligned>(
                metric,
                data,
                count,
                scan.x + query * scan.d,
                wholeLoads,
                scan.d,
                k,
                room,
                keys,
                sorted,
                merged);
        write(query, sorted, found, &results.counts->last);
    });
}

} // namespace

cudaError_t launchScanResults(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        float* distances,
        idx_t* labels,
        PathCounts* counts,
        cudaStream_t stream) {
    if (scan.n == 0) {
        return cudaSuccess;
    }
    if (!scanServes(scan.n, scan.d, scan.k)) {
        return cudaErrorInvalidValue;
    }
    const int room = roomFor(scan.k);
    const size_t bytes = (size_t(room) + 2 * scan.k) * sizeof(uint64_t);
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        const auto kernel = rowsAligned(data, vectors.d)
                                    ? scanResultsKernel<true, Stored>
                                    : scanResultsKernel<false, Stored>;
        int processors = 0;
        cudaError_t error = multiprocessors(processors);
        if (error == cudaSuccess) {
            error = allowShared(kernel, bytes);
        }
        if (error != cudaSuccess) {
            return error;
        }
        // All multiprocessors, for lists that ran over.
        const idx_t blocks = scan.listsAll(vectors.n)
                                     ? scan.n
                                     : std::max<idx_t>(scan.n, processors);
        return launchAfter(
                kernel,
                dim3(static_cast<unsigned>(blocks)),
                kThreads,
                bytes,
                stream,
                metric,
                data,
                vectors.n,
                scan,
                rowsAligned(scan.x, vectors.d),
                room,
                ScanResults{distances, labels, counts});
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
