#include <faiss_ext/gpu/compute/kernels/ExactScan.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScanLists.cuh>

#include <algorithm>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
/// Of a multiprocessor, for blocks to share.
constexpr size_t kSharedBytes = 200 << 10;
/// Dimensions of eight queries whose copies have room.
constexpr int kMostOfEight = 4096;
static_assert(kScanMostDimensions <= 2 * kMostOfEight, "and of four");

/// What was fastest of 1M x 128 and 1M x 512 on an H200, for so many queries at
/// once.
template <int Vectors, int Steps, int Blocks>
struct ScanShapeOf {
    /// Of each four lanes, at once.
    static constexpr int kVectors = Vectors;
    /// Loads of each that are on their way at once.
    static constexpr int kSteps = Steps;
    /// Of a multiprocessor.
    static constexpr int kBlocks = Blocks;
};

template <typename Stored, bool aligned, int Queries>
struct ScanShape : ScanShapeOf<1, 4, 2> {};
template <>
struct ScanShape<float, true, 4> : ScanShapeOf<2, 2, 3> {}; // 130 us, 509
template <>
struct ScanShape<Half, true, 1> : ScanShapeOf<2, 8, 4> {}; // 81
template <>
struct ScanShape<Half, true, 4> : ScanShapeOf<2, 4, 2> {}; // 95

/// Blocks in y take `Queries` queries each; those in x tiles of 8 vectors, or a
/// multiple, for each warp. Shared memory: the queries' copies.
template <
        Metric metric,
        typename Stored,
        bool aligned,
        int Queries,
        typename Shape = ScanShape<Stored, aligned, Queries>>
__global__ void __launch_bounds__(kThreads, Shape::kBlocks)
        scanKernel(const Stored* data, idx_t count, ScanState scan, int width) {
    constexpr int kVectors = Shape::kVectors;
    using Tile = ScanTile<metric, Queries, kVectors>;
    constexpr int kRows = 8 * kVectors;
    extern __shared__ __align__(16) float copies[];
    __shared__ GatheredKeys gathered[kWarps];
    // Not above which a loss, and a key, must be.
    __shared__ float cuts[Queries];
    __shared__ uint64_t cutKeys[Queries];
    letNextKernelBegin();
    afterFormerKernel();
    const uint32_t firstQuery = blockIdx.y * Queries;
    const bool all = scan.listsAll(count);
    copyQueries<Queries>(scan.x, scan.n, scan.d, firstQuery, width, copies);
    if (threadIdx.x < Queries) {
        // Nothing is not above NaN.
        float cut = floatOf(0x7fffffff);
        uint64_t key = 0;
        if (firstQuery + threadIdx.x < scan.n) {
            key = all ? kMissing : scan.cuts[firstQuery + threadIdx.x];
            cut = key == kMissing ? nextDown(missingLoss()) : lossOf(key);
        }
        cuts[threadIdx.x] = cut;
        cutKeys[threadIdx.x] = key;
    }
    __syncthreads();
    const ScanLane lane;
    const int warp = threadIdx.x / 32;
    WarpKeys keys = {
            scan.counts, scan.lists, scan.capacity, firstQuery, gathered[warp]};
    const auto rowsOf = [&](uint32_t tile, const Stored*(&rows)[kVectors]) {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
            const idx_t row = idx_t(tile) * kRows + v * 8 + lane.vector;
            rows[v] = data + (row < count ? row : count - 1) * scan.d;
        }
    };
    const auto end = [&](uint32_t tile, const float(&losses)[Tile::kOwn]) {
        const idx_t first = idx_t(tile) * kRows + lane.vector;
        if (all) {
#pragma unroll
            for (int i = 0; i < Tile::kOwn; ++i) {
                const int pair = Tile::pairOf(i, lane.group);
                const uint32_t query = firstQuery + pair % Queries;
                const idx_t row = first + pair / Queries * 8;
                if (Tile::owns(lane.group) && query < scan.n && row < count) {
                    scan.lists[idx_t(query) * scan.capacity + row] =
                            keyOfLoss(losses[i], static_cast<uint32_t>(row));
                }
            }
            return;
        }
        bool any = false;
#pragma unroll
        for (int i = 0; i < Tile::kOwn; ++i) {
            any |= losses[i] <= cuts[Tile::pairOf(i, lane.group) % Queries];
        }
        if (!__any_sync(kWholeWarp, any)) {
            return;
        }
#pragma unroll
        for (int i = 0; i < Tile::kOwn; ++i) {
            const int pair = Tile::pairOf(i, lane.group);
            const idx_t row = first + pair / Queries * 8;
            const uint64_t key =
                    keyOfLoss(losses[i], static_cast<uint32_t>(row));
            const bool passes = losses[i] <= cuts[pair % Queries] &&
                                key <= cutKeys[pair % Queries] && row < count &&
                                Tile::owns(lane.group);
            keys.add(passes, key, pair % Queries);
        }
        keys.template makeRoom<Tile::kOwn>();
    };
    const ScanLoop<metric, Stored, aligned, Queries, kVectors, Shape::kSteps>
            loop = {copies, width, scan.d, lane.group};
    loop.run(
            blockIdx.x * kWarps + warp,
            gridDim.x * kWarps,
            static_cast<uint32_t>((count + kRows - 1) / kRows),
            rowsOf,
            end);
    keys.append();
}

template <bool aligned, int Queries, typename Stored>
cudaError_t launchBy(
        Metric metric,
        const Stored* data,
        idx_t count,
        const ScanState& scan,
        cudaStream_t stream) {
    using Shape = ScanShape<Stored, aligned, Queries>;
    const auto kernel =
            metric == Metric::L2
                    ? scanKernel<Metric::L2, Stored, aligned, Queries>
                    : scanKernel<
                              Metric::InnerProduct,
                              Stored,
                              aligned,
                              Queries>;
    const int width = scanWidth<Shape::kSteps>(scan.d);
    const size_t bytes = size_t(Queries) * width * sizeof(float);
    int processors = 0;
    cudaError_t error = multiprocessors(processors);
    if (error == cudaSuccess) {
        error = allowShared(kernel, bytes);
    }
    if (error != cudaSuccess) {
        return error;
    }
    const unsigned groups = blocksFor(scan.n, Queries);
    // As many as are at work at once.
    const int64_t fit =
            int64_t(kSharedBytes / (bytes + kWarps * sizeof(GatheredKeys)));
    const int64_t most = std::max<int64_t>(
            1, std::min<int64_t>(Shape::kBlocks, fit) * processors / groups);
    const dim3 grid(
            blocksFor(count, kWarps * 8 * Shape::kVectors, most), groups);
    return launchAfter(
            kernel, grid, kThreads, bytes, stream, data, count, scan, width);
}

} // namespace

cudaError_t launchScan(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        cudaStream_t stream) {
    if (scan.n == 0 || vectors.n == 0) {
        return cudaSuccess;
    }
    if (!scanServes(scan.n, scan.d, scan.k)) {
        return cudaErrorInvalidValue;
    }
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        constexpr bool kHalf = sizeof(Stored) == sizeof(Half);
        const bool aligned = rowsAligned(data, vectors.d);
        // (Of float32, four queries take no longer than one.)
        const auto launch = !aligned ? launchBy<false, 4, Stored>
                                     : kHalf && scan.n == 1 ? launchBy < true,
                   kHalf ? 1 : 4,
                   Stored >
                : scan.n <= 4 || scan.d > kMostOfEight
                  ? launchBy<true, 4, Stored>
                  : launchBy<true, 8, Stored>;
        return launch(metric, data, vectors.n, scan, stream);
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
