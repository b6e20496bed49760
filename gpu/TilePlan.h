#pragma once

#include <cstddef>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/FaissVersion.h>
#include <faiss_ext/gpu/StagedConfig.h>

namespace faiss_ext {
namespace gpu {

/// What decides how a call is cut into tiles: the bytes that one row puts into
/// each staging buffer, 0 where an array needs none.
struct RowBytes {
    /// Rows copied to the index's GPU.
    size_t stagedIn = 0;
    /// Of these, from pageable memory, so through pinned memory of the pool.
    size_t pinnedIn = 0;
    /// Rows that leave the index's GPU through a staging block.
    size_t stagedOut = 0;
    /// Of these, through pinned memory.
    size_t pinnedOut = 0;
};

/// How a call of n rows is cut: tiles 0 .. tiles-1 of tileRows rows, the last
/// one shorter; at most `depth` of them are under way at once.
struct TilePlan {
    idx_t tileRows = 0;
    idx_t tiles = 0;
    int depth = 1;

    idx_t firstRow(idx_t tile) const {
        return tile * tileRows;
    }
    idx_t rowsOf(idx_t tile, idx_t n) const {
        const idx_t left = n - firstRow(tile);
        return left < tileRows ? left : tileRows;
    }
};

/// Cuts n >= 1 rows by `config`, which is one without zeros (withDefaults). One
/// tile where nothing is staged or all of it is no more than
/// config.oneTileBytes and fits into pinned memory; otherwise equal tiles of
/// config.tileBytes at most, a multiple of tuning::kComputeRows, and never more
/// than the pinned memory holds `depth` times: poolBytes for rows coming in,
/// outBytes for rows going out. config.tileRows, if not 0, takes the place of
/// both sizes. Fewer tiles are under way at once, down to one, where pinned
/// memory has no room for a row of each.
FAISS_EXT_API TilePlan planTiles(
        idx_t n,
        const RowBytes& row,
        const StagedConfig& config,
        size_t poolBytes,
        size_t outBytes);

} // namespace gpu
} // namespace faiss_ext
