#pragma once

#include <cstddef>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/FaissVersion.h>
#include <faiss_ext/gpu/StagedConfig.h>

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
};

/// How a call of n rows is cut: tiles 0 .. tiles-1, of tileRows rows but for
/// the first and last few: `ramp` tiles double from `step` rows up to there, as
/// many halve down to it again. At most `depth` tiles are under way at once.
///
/// The first tile's upload and the last one's copy-back have nothing to hide
/// behind, so they are small; large ones keep the GPU busiest.
struct TilePlan {
    idx_t n = 0;
    /// Of the largest tile.
    idx_t tileRows = 0;
    idx_t tiles = 0;
    int depth = 1;
    int ramp = 0;
    idx_t step = 0;

    /// Of tiles 0 .. tiles; the last is n.
    idx_t firstRow(idx_t tile) const {
        if (tile >= tiles - ramp) {
            return n - rampRows(tiles - tile);
        }
        return tile < ramp ? rampRows(tile)
                           : rampRows(ramp) + (tile - ramp) * tileRows;
    }
    idx_t rowsOf(idx_t tile) const {
        return firstRow(tile + 1) - firstRow(tile);
    }

   private:
    /// Of the smallest `count` tiles of a ramp.
    idx_t rampRows(idx_t count) const {
        return step * ((idx_t(1) << count) - 1);
    }
};

/// Cuts n >= 1 rows by `config`, which is one without zeros (withDefaults). One
/// tile where nothing is staged, or all of it fits into pinned memory and is no
/// more than config.oneTileBytes, or than config.tileBytes where the copies
/// take no time worth hiding (tuning::kOperationsPerByte) or the rows are few
/// (tuning::kComputeRows). Otherwise tiles of
/// config.tileBytes at most, and never more than the pinned memory holds
/// `depth` times: poolBytes for rows coming in, outBytes for rows going out.
/// Their rows are multiples of tuning::kComputeRows where they can be.
/// config.tileRows, if not 0, takes the place of both sizes, for equal tiles.
/// Fewer tiles are under way at once, down to one, where pinned memory has no
/// room for a row of each.
FAISS_EXT_API TilePlan planTiles(
        idx_t n,
        const RowCosts& row,
        const StagedConfig& config,
        size_t poolBytes,
        size_t outBytes);

} // namespace gpu
} // namespace faiss_ext
