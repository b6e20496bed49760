#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// What decides how a call is cut into tiles: the bytes that one row puts into
/// each staging buffer, 0 where an array needs none, and what it computes.
struct RowCosts {
    /// Rows copied to the index's GPU.
    size_t stagedIn = 0;
    /// Of these, from pageable memory, so through pinned memory of the pool.
    size_t pinnedIn = 0;
    /// Rows that leave the index's GPU through a staging block.
    size_t stagedOut = 0;
    /// Of these, through pinned memory.
    size_t pinnedOut = 0;
    /// Floating-point operations; 0: not known.
    double operations = 0;
    /// Rows that are computed side by side, a multiple of tuning::kComputeRows:
    /// others take as long as the next multiple.
    idx_t step = tuning::kComputeRows;
};

/// How a call is cut: tiles 0 .. tiles() - 1, each of rows that follow those of
/// the one before. At most `depth` tiles are under way at once.
struct TilePlan {
    /// The first row of each tile, and the number of rows.
    std::vector<idx_t> bounds{0};
    /// Of the largest tile.
    idx_t tileRows = 0;
    int depth = 1;
    idx_t tiles() const {
        return static_cast<idx_t>(bounds.size()) - 1;
    }
    idx_t firstRow(idx_t tile) const {
        return bounds[tile];
    }
    idx_t rowsOf(idx_t tile) const {
        return bounds[tile + 1] - bounds[tile];
    }
    void append(idx_t rows) {
        bounds.push_back(bounds.back() + rows);
        tileRows = std::max(tileRows, rows);
    }
};

/// Cuts n >= 1 rows. One tile where nothing is staged, or all of it fits into
/// pinned memory and is no more than sizes.oneTileBytes, or than
/// sizes.tileBytes where the copies take no time worth hiding
/// (tuning::kOperationsPerByte) or the rows are few (tuning::kComputeRows).
/// Otherwise tiles of sizes.tileBytes at most, and never more than the pinned
/// memory holds `depth` times: poolBytes for rows coming in, outBytes for rows
/// going out. Their rows are multiples of row.step where they can be. mostRows,
/// if not 0, takes the place of both sizes, for equal tiles. Fewer tiles are
/// under way at once, down to one, where pinned memory has no room for a row of
/// each.
FAISS_EXT_API TilePlan planTiles(
        idx_t n,
        const RowCosts& row,
        const TileSizes& sizes,
        idx_t mostRows,
        size_t poolBytes,
        size_t outBytes);

} // namespace gpu
} // namespace faiss_ext
