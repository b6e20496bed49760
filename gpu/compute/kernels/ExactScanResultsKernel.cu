#include <faiss_ext/gpu/compute/kernels/ExactKeys.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactLimit.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScan.cuh>

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

/// All vectors again, and the k least keys, ascending, in kept [k], which is
/// where it ends; returns how many. keys [room], merged [k].
template <Metric metric, bool aligned, typename Stored>
__device__ __noinline__ int scanAlone(
        const Stored* data,
        idx_t count,
        const float* x,
        int d,
        int k,
        int room,
        uint64_t* keys,
        uint64_t*& kept,
        uint64_t*& merged) {
    using Tile = ScanTile<metric, 1, 1>;
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
        const Stored* y = data + (row < count ? row : count - 1) * d;
        const float loss = lossOfPair<metric, aligned>(x, y, d, lane.group);
        const uint64_t key = keyOfLoss(loss, static_cast<uint32_t>(row));
        if (key < limit && row < count && Tile::owns(lane.group)) {
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

/// A block a query. Shared memory: keys [room], and twice k for scanAlone().
template <Metric metric, bool aligned, typename Stored>
__global__ void __launch_bounds__(kThreads) scanResultsKernel(
        const Stored* data,
        idx_t count,
        ScanState scan,
        int room,
        float* distances,
        idx_t* labels,
        PathCounts* counts) {
    extern __shared__ uint64_t keys[];
    __shared__ LimitScratch<kThreads> scratch;
    __shared__ uint32_t found;
    letNextKernelBegin();
    afterFormerKernel();
    const idx_t query = blockIdx.x;
    const int k = scan.k;
    const bool all = scan.listsAll(count);
    const uint32_t listed =
            all ? static_cast<uint32_t>(count) : scan.counts[query];
    const bool ranOver = listed > static_cast<uint32_t>(scan.capacity);
    uint64_t* sorted = keys;
    int sortedCount = 0;
    if (ranOver) {
        sorted = keys + room;
        uint64_t* merged = sorted + k;
        sortedCount = scanAlone<metric, aligned>(
                data,
                count,
                scan.x + query * scan.d,
                scan.d,
                k,
                room,
                keys,
                sorted,
                merged);
    } else {
        const uint64_t* const list = scan.lists + query * scan.capacity;
        const auto forEach = [&](auto&& take) {
            for (uint32_t base = 0; base < listed; base += kAtOnce * kThreads) {
                uint64_t own[kAtOnce];
#pragma unroll
                for (int i = 0; i < kAtOnce; ++i) {
                    const uint32_t at = base + i * kThreads + threadIdx.x;
                    own[i] = at < listed ? list[at] : kMissing;
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
            sortedCount = range.count > 0 ? 1 : 0;
            if (threadIdx.x == 0) {
                keys[0] = range.least;
            }
            __syncthreads();
        } else {
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
            sortedCount = static_cast<int>(found);
            sortKeys(keys, sortedCount);
        }
    }
    for (int i = threadIdx.x; i < k; i += kThreads) {
        const uint64_t key = i < sortedCount ? sorted[i] : kMissing;
        distances[query * k + i] = distanceOf(metric, key);
        labels[query * k + i] = labelOf(key);
    }
    if (counts && threadIdx.x == 0) {
        // Others may add to the same counts.
        atomicAdd(
                reinterpret_cast<unsigned long long*>(
                        ranOver ? &counts->last : &counts->certified),
                1ull);
    }
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
    const int room = roomFor(scan.k);
    const size_t bytes = (size_t(room) + 2 * scan.k) * sizeof(uint64_t);
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        const bool aligned =
                rowsAligned(data, vectors.d) && rowsAligned(scan.x, vectors.d);
        const bool l2 = metric == Metric::L2;
        const auto kernel =
                l2 ? (aligned ? scanResultsKernel<Metric::L2, true, Stored>
                              : scanResultsKernel<Metric::L2, false, Stored>)
                   : (aligned ? scanResultsKernel<
                                        Metric::InnerProduct,
                                        true,
                                        Stored>
                              : scanResultsKernel<
                                        Metric::InnerProduct,
                                        false,
                                        Stored>);
        const cudaError_t error = allowShared(kernel, bytes);
        if (error != cudaSuccess) {
            return error;
        }
        return launchAfter(
                kernel,
                dim3(static_cast<unsigned>(scan.n)),
                kThreads,
                bytes,
                stream,
                data,
                vectors.n,
                scan,
                room,
                distances,
                labels,
                counts);
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
