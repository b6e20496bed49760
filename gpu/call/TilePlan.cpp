#include <faiss_ext/gpu/call/TilePlan.h>

#include <algorithm>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>

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
void cutEvenly(TilePlan& plan, idx_t n, idx_t rows) {
    const idx_t equal = divideUp(n, divideUp(n, rows));
    for (idx_t first = 0; first < n; first += equal) {
        plan.append(std::min(equal, n - first));
    }
}

/// Of the small tiles at one end, the smallest: of rows that are computed at
/// once, and of enough bytes to be worth a copy.
idx_t endTile(idx_t step, idx_t most, size_t rowBytes, size_t leastBytes) {
    idx_t rows = step;
    while (rows * rowBytes < leastBytes && 2 * rows <= most) {
        rows *= 2;
    }
    return rows;
}

/// Tiles of up to `most` rows, most >= step. The first upload and the last
/// copy-back have nothing to hide behind: where rows come in, the tiles grow
/// from a small first one, by twos, and where rows go out, each has about half
/// of what is left. Lanes end their parts in no order, so a tile that is larger
/// than all after it together is complete little before them: 10,000 queries of
/// k 100 took 3.6 % longer into pinned memory than into the GPU's with 6416 of
/// them in the first tile, 1.9 % with 5120 (nb 10,000, compared by hand as in
/// Tuning.h).
void cutWithRamps(
        TilePlan& plan,
        idx_t n,
        idx_t most,
        idx_t step,
        const RowCosts& row,
        size_t endBytes) {
    most -= most % step;
    idx_t left = n;
    const auto append = [&](idx_t rows) {
        plan.append(std::min(rows, left));
        left = n - plan.bounds.back();
    };
    if (row.stagedIn > 0) {
        const idx_t first = endTile(step, most, row.stagedIn, endBytes);
        for (idx_t rows = first; 2 * rows <= most && left >= rows + first;
             rows *= 2) {
            append(rows);
        }
    }
    if (row.stagedOut > 0) {
        const idx_t last = endTile(step, most, row.stagedOut, endBytes);
        while (left > 0) {
            const idx_t half = roundUp<idx_t>(divideUp<idx_t>(left, 2), step);
            append(std::min(std::max(half, last), most));
        }
    } else {
        const idx_t equal =
                roundUp<idx_t>(divideUp(left, divideUp(left, most)), step);
        while (left > 0) {
            append(equal);
        }
    }
}

} // namespace

TilePlan planTiles(
        idx_t n,
        const RowCosts& row,
        const TileSizes& sizes,
        idx_t mostRows,
        size_t poolBytes,
        size_t outBytes) {
    TilePlan plan;
    const size_t widest = std::max(row.stagedIn, row.stagedOut);
    if (widest == 0) {
        plan.append(n);
        return plan;
    }
    // Rows of a tile that `depth` slots of pinned memory hold.
    const auto bounded = [&](size_t bytes, int depth) {
        idx_t rows = mostRows;
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
                    ? std::max(sizes.oneTileBytes, sizes.tileBytes)
                    : sizes.oneTileBytes;
    if (bounded(oneTile, 1) >= n) {
        plan.append(n);
        return plan;
    }
    int depth = sizes.depth;
    while (depth > 1 && bounded(sizes.tileBytes, depth) == 0) {
        --depth;
    }
    // Where not even one row fits, the pool will say so.
    const idx_t rows = std::max<idx_t>(1, bounded(sizes.tileBytes, depth));
    const idx_t step = rows >= row.step ? row.step : tuning::kComputeRows;
    if (mostRows == 0 && rows >= step) {
        cutWithRamps(plan, n, rows, step, row, sizes.endTileBytes);
    } else {
        cutEvenly(plan, n, rows);
    }
    plan.depth = static_cast<int>(std::min<idx_t>(depth, plan.tiles()));
    return plan;
}

} // namespace gpu
} // namespace faiss_ext
