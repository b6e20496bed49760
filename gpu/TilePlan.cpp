#include <faiss_ext/gpu/TilePlan.h>

#include <algorithm>

#include <faiss_ext/gpu/PinnedBufferPool.h>
#include <faiss_ext/gpu/Tuning.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// How many rows of `bytes` each fit into one of `depth` equal buffers of a
/// pool that has `available` bytes: the pool makes powers of two, and none
/// smaller than its smallest. 0 if there is no room for `depth` such buffers.
idx_t rowsThatFit(size_t available, int depth, size_t bytes) {
    size_t buffer = PinnedBufferPool::bucketSize(1);
    if (buffer > available / depth) {
        return 0;
    }
    while (buffer <= available / depth / 2) {
        buffer *= 2;
    }
    return static_cast<idx_t>(buffer / bytes);
}

/// What the rows of a tile are to be a multiple of, where it may have `rows`.
idx_t grainOf(idx_t rows) {
    for (const idx_t grain : tuning::kComputeRows) {
        if (rows >= grain) {
            return grain;
        }
    }
    return 1;
}

idx_t divideUp(idx_t a, idx_t b) {
    return (a + b - 1) / b;
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
    // Rows of a tile that `depth` slots of pinned memory hold.
    const auto bounded = [&](size_t bytes, int depth) {
        idx_t rows = config.tileRows;
        if (rows == 0) {
            rows = std::max<idx_t>(1, static_cast<idx_t>(bytes / widest));
        }
        if (row.pinnedIn > 0) {
            rows = std::min(rows, rowsThatFit(poolBytes, depth, row.pinnedIn));
        }
        if (row.pinnedOut > 0) {
            rows = std::min(rows, rowsThatFit(outBytes, depth, row.pinnedOut));
        }
        return rows;
    };
    if (bounded(config.oneTileBytes, 1) >= n) {
        return plan;
    }
    int depth = config.pipelineDepth;
    while (depth > 1 && bounded(config.tileBytes, depth) == 0) {
        --depth;
    }
    // Where not even one row fits, the pool will say so.
    const idx_t rows = std::max<idx_t>(1, bounded(config.tileBytes, depth));
    const idx_t grain = config.tileRows == 0 ? grainOf(rows) : 1;
    // Equal tiles: a short last one would compute at a worse rate.
    plan.tiles = divideUp(n, rows / grain * grain);
    plan.tileRows = divideUp(divideUp(n, plan.tiles), grain) * grain;
    plan.tiles = divideUp(n, plan.tileRows);
    plan.depth = static_cast<int>(std::min<idx_t>(depth, plan.tiles));
    return plan;
}

} // namespace gpu
} // namespace faiss_ext
