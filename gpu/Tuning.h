#pragma once

#include <cstddef>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/StagedConfig.h>

/// Every size at which this library goes another way, in one place. A constant
/// below is what a 0 in StagedConfig means. Nothing here has been measured yet:
/// each says from which costs it was reckoned, and which sweep will settle it.
///
/// The costs, of a PCIe 5 x16 host: 52 GB/s between pinned memory and the GPU,
/// 6 us to enqueue a copy, 3 us to launch a kernel, up to 100 us until a host
/// function runs; 10 GB/s for one thread that copies between touched host
/// pages, 1.6 us for each page that it is the first to touch.

namespace faiss_ext {
namespace gpu {
namespace tuning {

/// StagedConfig::oneTileBytes: where a call is cut into tiles. Not cut, 16 MiB
/// add 0.3 ms of copy to the computation; cut into four, at most three quarters
/// of that are hidden, for some 60 us of further launches a tile. So below, the
/// two are about even. Sweep: results of 1 to 64 MiB into pinned and pageable
/// arrays, at nb = 10,000.
constexpr size_t kOneTileBytes = size_t(16) << 20;

/// StagedConfig::tileBytes: how large the tiles are then. 16 MiB take 0.3 ms,
/// fifty times the cost of the copy call, and three such tiles each way stay
/// small beside Faiss' scratch memory. Sweep: 1 to 64 MiB at n k = 10^8.
constexpr size_t kTileBytes = size_t(16) << 20;

/// What the rows of a tile are a multiple of: Faiss computes 512 queries at a
/// time, on two streams in turns (chooseTileSize in its Distance.cu), so that
/// 1250 rows take it as long as 1536. On an H200, nb 1,000,000, d 128, k 1000,
/// 10,000 queries took 241 ms in tiles of 1250 rows, 214 ms in tiles of 1024.
constexpr int64_t kComputeRows = 512;

/// StagedConfig::mappedBytes: results as small as those of a few queries could
/// be written over the link by the kernels that make them, which saves the 6 us
/// of a copy call and the start of the copy. But for L2, Faiss' last kernel
/// reads the distances again to add the norms of the queries, from host memory
/// then, some 2 us; and how fast its scattered stores are over a link is not
/// known. So not until it is measured. Sweep: 1 KiB to 1 MiB with 1 to 100
/// queries, L2 and inner product.
constexpr size_t kMappedBytes = 0;

/// Where the GPU has no memory for two tiles, they are halved, but not below
/// this: 1 MiB takes 20 us on the link, no more than the launches for a tile.
/// Then one tile at a time takes Faiss' temporary memory. Nothing to sweep: it
/// is for calls that would fail.
constexpr size_t kSmallestTileBytes = size_t(1) << 20;

/// StagedConfig::pipelineDepth: one tile goes up, one computes, one comes back.
/// More would smooth uneven tiles; these are equal. Sweep: 1 to 4 with
/// kTileBytes.
constexpr int kPipelineDepth = 3;

/// StagedConfig::batchedQueries: what Faiss computes at a time. On an H200,
/// with 10,000 or a million vectors of 128 dimensions and k = 100, 64 queries
/// take 1.1 to 1.6 times as long as one.
constexpr int64_t kBatchedQueries = 512;

/// StagedConfig::copyThreads: at most so many, and no more than half of what
/// the machine has, the other half being the second threads of the same cores,
/// or needed elsewhere. Eight threads at 10 GB/s are faster than the link. On
/// new pages they are not (2.5 GB/s each), but there the kernel's locks let few
/// more gain anything. Sweep: 1 to 32 with results of 1 GiB, into touched and
/// into new pageable arrays.
constexpr int kCopyThreads = 8;

/// StagedConfig::copyChunkBytes: 256 KiB keep a thread busy for 25 us, several
/// times what it takes to wake one; the smallest copy that is shared is one
/// that has two chunks. Sweep: 64 KiB to 4 MiB, with results of 0.1 to 16 MiB.
constexpr size_t kCopyChunkBytes = size_t(256) << 10;

/// StagedConfig::pinnedBytes: six tiles of 16 MiB and room for more. Pinned
/// memory is taken from the whole machine, so it is not much more. No speed
/// depends on it unless it is smaller than the tiles.
constexpr size_t kPinnedBytes = size_t(256) << 20;

/// The pinned buffer of Faiss' resources is used for results when it is no
/// smaller than this; below, tiles would be cut too small to be worth it. Faiss
/// makes it 256 MiB, so it matters only to those who ask for less.
constexpr size_t kSmallestFaissBuffer = size_t(1) << 20;

} // namespace tuning

/// `config` with the values above in place of zeros; tileRows stays 0 where
/// bytes decide. Throws InvalidArray for a value that means nothing.
FAISS_EXT_API StagedConfig withDefaults(const StagedConfig& config);

} // namespace gpu
} // namespace faiss_ext
