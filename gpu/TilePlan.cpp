#include <faiss_ext/gpu/TilePlan.h>

#include <algorithm>

namespace faiss_ext {
namespace gpu {

namespace {

// A starting value from the cost model, not yet from a measurement: at the
// 52 GB/s of a PCIe 5 link 16 MiB take 0.3 ms, fifty times the 6 us of a copy
// call, and three such tiles each way stay small beside Faiss' scratch memory.
constexpr size_t kTileBytes = size_t(16) << 20;

constexpr int kDefaultDepth = 3;

/// Largest number of rows of `bytes` each of which `depth` buffers fit into
/// `available`, given that the pool rounds a buffer up to a power of two.
idx_t rowsThatFit(size_t available, int depth, size_t bytes) {
    size_t buffer = 1;
    while (buffer <= available / depth / 2) {
        buffer *= 2;
    }
    return std::max<idx_t>(1, static_cast<idx_t>(buffer / bytes));
}

} // namespace

TilePlan planTiles(
        idx_t n,
        const RowBytes& row,
        const StagedConfig& config,
        size_t poolBytes,
        size_t outBytes) {
    TilePlan plan{n, 1, 1};
    const size_t widest = std::max(row.stagedIn, row.stagedOut);
    if (widest == 0) {
        return plan;
    }
    const int depth =
            config.pipelineDepth == 0 ? kDefaultDepth : config.pipelineDepth;
    idx_t rows = config.tileRows;
    if (rows == 0) {
        rows = std::max<idx_t>(1, static_cast<idx_t>(kTileBytes / widest));
    }
    if (row.pinnedIn > 0) {
        rows = std::min(rows, rowsThatFit(poolBytes, depth, row.pinnedIn));
    }
    if (row.pinnedOut > 0) {
        rows = std::min(rows, rowsThatFit(outBytes, depth, row.pinnedOut));
    }
    if (rows >= n) {
        return plan;
    }
    plan.tiles = (n + rows - 1) / rows;
    // Equal tiles: a short last one would compute at a worse rate.
    plan.tileRows = (n + plan.tiles - 1) / plan.tiles;
    plan.tiles = (n + plan.tileRows - 1) / plan.tileRows;
    plan.depth = static_cast<int>(std::min<idx_t>(depth, plan.tiles));
    return plan;
}

} // namespace gpu
} // namespace faiss_ext
