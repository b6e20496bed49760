#include <faiss_ext/gpu/compute/kernels/ExactLimit.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScan.cuh>

#include <algorithm>
#include <cmath>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// A sample of `members` vectors for each of kScanParts parts, of which each
// gives its least key: the k-th least of these is a key that k vectors meet,
// hardly above the k-th least of the sample as long as there are several times
// k parts; and the fewer keys, the sooner it is found.

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kWarpRows = 8;
constexpr int kStepsAtOnce = 8;

/// Which vectors: one of each `step` neighbours, at no regular distance, for a
/// store may repeat some pattern.
struct Sample {
    /// Of a part.
    idx_t members;
    idx_t step;
    /// Vectors that there are; some parts may have none.
    idx_t count;

    __device__ uint32_t label(idx_t i) const {
        uint32_t hash = static_cast<uint32_t>(i) * 0x9e3779b1u;
        hash ^= hash >> 15;
        hash *= 0x85ebca77u;
        hash ^= hash >> 13;
        return static_cast<uint32_t>(i * step + hash % step);
    }
};

template <Metric metric, typename Stored, bool aligned, int Queries>
__global__ void __launch_bounds__(kThreads) scanSampleKernel(
        const Stored* data, Sample sample, ScanState scan, int width) {
    using Tile = ScanTile<metric, Queries, 1>;
    extern __shared__ __align__(16) float copies[];
    letNextKernelBegin();
    afterFormerKernel();
    const idx_t firstQuery = idx_t(blockIdx.y) * Queries;
    copyQueries<Queries>(scan.x, scan.n, scan.d, firstQuery, width, copies);
    __syncthreads();
    const ScanLane lane;
    const int warp = blockIdx.x * kWarps + threadIdx.x / 32;
    const int part = warp * kWarpRows + lane.vector;
    uint64_t least[Tile::kOwn];
#pragma unroll
    for (int i = 0; i < Tile::kOwn; ++i) {
        least[i] = kMissing;
    }
    const ScanLoop<metric, Stored, aligned, Queries, 1, kStepsAtOnce> loop = {
            copies, width, scan.d, lane.group};
    loop.run(
            0,
            1,
            static_cast<uint32_t>(sample.members),
            [&](uint32_t member, const Stored*(&rows)[1]) {
                const uint32_t label =
                        sample.label(idx_t(member) * kScanParts + part);
                rows[0] = data +
                          (label < sample.count ? label : 0) * idx_t(scan.d);
            },
            [&](uint32_t member, const float(&losses)[Tile::kOwn]) {
                const uint32_t label =
                        sample.label(idx_t(member) * kScanParts + part);
#pragma unroll
                for (int i = 0; i < Tile::kOwn; ++i) {
                    const uint64_t key = keyOfLoss(losses[i], label);
                    if (key < least[i] && label < sample.count) {
                        least[i] = key;
                    }
                }
            });
#pragma unroll
    for (int i = 0; i < Tile::kOwn; ++i) {
        const idx_t query = firstQuery + Tile::pairOf(i, lane.group) % Queries;
        if (Tile::owns(lane.group) && query < scan.n) {
            scan.parts[query * kScanParts + part] = least[i];
        }
    }
}

constexpr int kCutThreads = 512;

/// A block a query.
__global__ void __launch_bounds__(kCutThreads) scanCutKernel(ScanState scan) {
    constexpr int kOwn = kScanParts / kCutThreads;
    __shared__ LimitScratch<kCutThreads> scratch;
    letNextKernelBegin();
    afterFormerKernel();
    const idx_t query = blockIdx.x;
    const uint64_t* parts = scan.parts + query * kScanParts;
    uint64_t keys[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
        keys[i] = parts[i * kCutThreads + threadIdx.x];
    }
    const auto forEach = [&](auto&& take) {
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
            take(keys[i]);
        }
    };
    const KeyRange range = rangeOfKeys(scratch, forEach);
    const uint32_t k = static_cast<uint32_t>(scan.k);
    uint64_t cut = kMissing;
    if (k == 1) {
        cut = range.least;
    } else if (range.count >= k) {
        cut = limitOfKeys(scratch, range, k, k + k / 16, forEach);
        cut = cut < range.largest ? cut : range.largest;
    }
    if (threadIdx.x == 0) {
        scan.cuts[query] = cut;
        scan.counts[query] = 0;
    }
    constexpr int kWords = sizeof(ScanAgain) / sizeof(uint32_t);
    if (threadIdx.x < kWords) {
        reinterpret_cast<uint32_t*>(scan.again + query)[threadIdx.x] = 0;
    }
}

template <int Queries, bool aligned, typename Stored>
cudaError_t launchSample(
        Metric metric,
        const Stored* data,
        const Sample& sample,
        const ScanState& scan,
        cudaStream_t stream) {
    const auto kernel =
            metric == Metric::L2
                    ? scanSampleKernel<Metric::L2, Stored, aligned, Queries>
                    : scanSampleKernel<
                              Metric::InnerProduct,
                              Stored,
                              aligned,
                              Queries>;
    const int width = scanWidth<kStepsAtOnce>(scan.d);
    const size_t bytes = size_t(Queries) * width * sizeof(float);
    const cudaError_t error = allowShared(kernel, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    static_assert(kScanParts % (kWarps * kWarpRows) == 0, "whole blocks");
    const dim3 grid(
            kScanParts / (kWarps * kWarpRows), blocksFor(scan.n, Queries));
    return launchAfter(
            kernel, grid, kThreads, bytes, stream, data, sample, scan, width);
}

/// Of a part: the more, the fewer vectors pass the cut, each of which costs
/// something, too.
idx_t membersOf(idx_t vectors, int k, int capacity) {
    // Measured for 1M x 128, n 1: of k 1 and 10 one member, of 100 two to four,
    // of 1000 eight; and both costs grow with the dimensions.
    const double cheapest = std::sqrt(double(k) * vectors) / 4000;
    // The k-th best of the sample passes k / (8192 members) of all, but for
    // chance: so that lists run over in none of many millions of searches.
    const double passing = (k + 6 * std::sqrt(double(k)) + 20) * vectors;
    const double needed = passing / kScanParts / (capacity / 2);
    const double members = std::ceil(std::max(cheapest, needed));
    return std::max<idx_t>(
            1, std::min(static_cast<idx_t>(members), vectors / kScanParts));
}

} // namespace

cudaError_t launchScanCut(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        cudaStream_t stream) {
    if (scan.n == 0 || vectors.n == 0 || scan.listsAll(vectors.n)) {
        return cudaSuccess;
    }
    if (!scanServes(scan.n, scan.d, scan.k)) {
        return cudaErrorInvalidValue;
    }
    const idx_t members = membersOf(vectors.n, scan.k, scan.capacity);
    const Sample sample = {
            members,
            std::max<idx_t>(1, vectors.n / (members * kScanParts)),
            vectors.n};
    cudaError_t error = withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        const bool aligned = rowsAligned(data, vectors.d);
        const bool one = scan.n == 1 || vectors.d > 4096;
        const auto launch = one ? (aligned ? launchSample<1, true, Stored>
                                           : launchSample<1, false, Stored>)
                                : (aligned ? launchSample<8, true, Stored>
                                           : launchSample<8, false, Stored>);
        return launch(metric, data, sample, scan, stream);
    });
    if (error == cudaSuccess) {
        error = launchAfter(
                scanCutKernel,
                dim3(static_cast<unsigned>(scan.n)),
                kCutThreads,
                0,
                stream,
                scan);
    }
    return error;
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
