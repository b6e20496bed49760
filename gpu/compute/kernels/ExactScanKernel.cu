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
/// Of a block's copies of queries.
constexpr size_t kMostCopies = 128 << 10;

/// Blocks in y take `Queries` queries each; those in x tiles of 8 Vectors
/// vectors for each warp. Shared memory: the queries' copies.
template <
        Metric metric,
        typename Stored,
        bool aligned,
        int Queries,
        int Vectors,
        int Steps,
        bool ahead,
        int Blocks>
__global__ void __launch_bounds__(kThreads, Blocks)
        scanKernel(const Stored* data, idx_t count, ScanState scan, int width) {
    using Tile = ScanTile<metric, Queries, Vectors>;
    constexpr int kRows = 8 * Vectors;
    extern __shared__ __align__(16) float copies[];
    __shared__ GatheredKeys gathered[kWarps];
    // Not above which a loss, and a key, must be.
    __shared__ float cuts[Queries];
    __shared__ uint64_t cutKeys[Queries];
    letNextKernelBegin();
    afterFormerKernel();
    const idx_t firstQuery = idx_t(blockIdx.y) * Queries;
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
    WarpKeys keys = {scan, firstQuery, gathered[warp]};
    const auto rowsOf = [&](idx_t tile, const Stored*(&rows)[Vectors]) {
#pragma unroll
        for (int v = 0; v < Vectors; ++v) {
            const idx_t row = tile * kRows + v * 8 + lane.vector;
            rows[v] = data + (row < count ? row : count - 1) * scan.d;
        }
    };
    const auto end = [&](idx_t tile, const float(&losses)[Tile::kOwn]) {
        const idx_t first = tile * kRows + lane.vector;
        if (all) {
#pragma unroll
            for (int i = 0; i < Tile::kOwn; ++i) {
                const int pair = Tile::pairOf(i, lane.group);
                const idx_t query = firstQuery + pair % Queries;
                const idx_t row = first + pair / Queries * 8;
                if (Tile::owns(lane.group) && query < scan.n && row < count) {
                    scan.lists[query * scan.capacity + row] =
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
    };
    const ScanLoop<metric, Stored, aligned, Queries, Vectors, Steps, ahead>
            loop = {copies, width, scan.d, lane.group};
    loop.run(
            idx_t(blockIdx.x) * kWarps + warp,
            idx_t(gridDim.x) * kWarps,
            (count + kRows - 1) / kRows,
            rowsOf,
            end);
    keys.append();
}

template <
        Metric metric,
        typename Stored,
        bool aligned,
        int Queries,
        int Vectors,
        int Steps,
        bool ahead,
        int Blocks>
cudaError_t launchTiles(
        const Stored* data,
        idx_t count,
        const ScanState& scan,
        cudaStream_t stream) {
    const auto kernel = scanKernel<
            metric,
            Stored,
            aligned,
            Queries,
            Vectors,
            Steps,
            ahead,
            Blocks>;
    const int width = scanWidth<Steps>(scan.d);
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
            1, std::min<int64_t>(Blocks, fit) * processors / groups);
    const dim3 grid(blocksFor(count, kWarps * 8 * Vectors, most), groups);
    return launchAfter(
            kernel, grid, kThreads, bytes, stream, data, count, scan, width);
}

/// `Queries` at once.
template <
        bool aligned,
        int Queries,
        int Vectors,
        int Steps,
        bool ahead,
        int Blocks,
        typename Stored>
cudaError_t launchBy(
        Metric metric,
        const Stored* data,
        idx_t count,
        const ScanState& scan,
        cudaStream_t stream) {
    const auto launch = metric == Metric::L2 ? launchTiles<
                                                       Metric::L2,
                                                       Stored,
                                                       aligned,
                                                       Queries,
                                                       Vectors,
                                                       Steps,
                                                       ahead,
                                                       Blocks>
                                             : launchTiles<
                                                       Metric::InnerProduct,
                                                       Stored,
                                                       aligned,
                                                       Queries,
                                                       Vectors,
                                                       Steps,
                                                       ahead,
                                                       Blocks>;
    return launch(data, count, scan, stream);
}

} // namespace

#ifndef SCAN_TIMING
cudaError_t launchScan(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        cudaStream_t stream) {
    if (scan.n == 0 || vectors.n == 0) {
        return cudaSuccess;
    }
    const auto fit = [&](int queries) {
        return queries * (size_t(scan.d) + 128) * sizeof(float) <= kMostCopies;
    };
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        if (!rowsAligned(data, vectors.d)) {
            const auto launch =
                    scan.n > 1 && fit(8)
                            ? launchBy<false, 8, 1, 4, false, 2, Stored>
                            : launchBy<false, 1, 1, 8, false, 3, Stored>;
            return launch(metric, data, vectors.n, scan, stream);
        }
        const auto launch = scan.n > 8 && fit(16)
                                    ? launchBy<true, 16, 1, 4, true, 2, Stored>
                            : scan.n > 4 && fit(8)
                                    ? launchBy<true, 8, 2, 2, true, 2, Stored>
                            : scan.n > 2 && fit(4)
                                    ? launchBy<true, 4, 2, 4, false, 2, Stored>
                            : scan.n > 1 && fit(2)
                                    ? launchBy<true, 2, 2, 4, false, 3, Stored>
                                    : launchBy<true, 1, 4, 4, false, 2, Stored>;
        return launch(metric, data, vectors.n, scan, stream);
    });
}
#endif

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
