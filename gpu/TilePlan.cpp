#include <faiss_ext/gpu/TilePlan.h>

#include <algorithm>

#include <faiss_ext/gpu/PinnedBufferPool.h>
#include <faiss_ext/gpu/Rounding.h>
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

/// Tiles of up to `rows` rows, all equal: a short last one would compute at a
/// worse rate.
void cutEvenly(TilePlan& plan, idx_t rows) {
    plan.tileRows = divideUp(plan.n, divideUp(plan.n, rows));
    plan.tiles = divideUp(plan.n, plan.tileRows);
}

/// Tiles of up to `rows` rows of `rowBytes`, rows >= tuning::kComputeRows.
void cutWithRamps(TilePlan& plan, idx_t rows, size_t rowBytes) {
    plan.step = tuning::kComputeRows;
    while (plan.step * rowBytes < tuning::kSmallestTileBytes &&
           2 * plan.step <= rows) {
        plan.step *= 2;
    }
    // What is left for the tiles between the ramps to the largest one.
    const auto between = [&](int ramp) {
        return plan.n - 2 * plan.step * ((idx_t(1) << ramp) - 1);
    };
    while (plan.step << (plan.ramp + 1) <= rows &&
           between(plan.ramp + 1) >= plan.step << plan.ramp) {
        ++plan.ramp;
    }
    const idx_t middle = between(plan.ramp);
    const idx_t count = divideUp(middle, plan.step << plan.ramp);
    plan.tileRows =
            roundUp<idx_t>(divideUp(middle, count), tuning::kComputeRows);
    plan.tiles = 2 * plan.ramp + divideUp(middle, plan.tileRows);
}

} // namespace

TilePlan planTiles(
        idx_t n,
        const RowCosts& row,
        const StagedConfig& config,
        size_t poolBytes,
        size_t outBytes) {
    TilePlan plan;
    plan.n = plan.tileRows = n;
    plan.tiles = 1;
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
    const bool copiesAreShort =
            row.operations >=
            tuning::kOperationsPerByte * (row.stagedIn + row.stagedOut);
    const bool rowsAreFew = n < 2 * tuning::kComputeRows;
    const size_t oneTile =
            copiesAreShort || rowsAreFew
                    ? std::max(config.oneTileBytes, config.tileBytes)
                    : config.oneTileBytes;
    if (bounded(oneTile, 1) >= n) {
        return plan;
    }
    int depth = config.pipelineDepth;
    while (depth > 1 && bounded(config.tileBytes, depth) == 0) {
        --depth;
    }
    // Where not even one row fits, the pool will say so.
    const idx_t rows = std::max<idx_t>(1, bounded(config.tileBytes, depth));
    if (config.tileRows == 0 && rows >= tuning::kComputeRows) {
        cutWithRamps(plan, rows, widest);
    } else {
        cutEvenly(plan, rows);
    }
    plan.depth = static_cast<int>(std::min<idx_t>(depth, plan.tiles));
    return plan;
}

} // namespace gpu
} // namespace faiss_ext
