#pragma once

#include <chrono>
#include <cstddef>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/index/StagedConfig.h>

/// Every size at which this library goes another way, in one place. A constant
/// below is what a 0 in StagedConfig means. Times are medians of one run on one
/// host: H200 (PCIe 5 x16, 55 GB/s between pinned memory and the GPU), 16 CPU
/// threads (13 GB/s each between touched host pages, 1.2 us for each page that
/// one is the first to touch), Faiss 1.7.3, d = 128. benchs/results has them,
/// but for those marked *, which were compared by hand, version against
/// version; `make bench` sweeps each constant again.

namespace faiss_ext {
namespace gpu {
namespace tuning {

/// StagedConfig::oneTileBytes: where a call is cut into tiles. At nb 10,000,
/// k 1000, pageable results, cut into two: 4 MiB take 0.97 ms in place of 0.63,
/// 8 MiB 1.13 and 1.03, 16 MiB 1.86 and 1.97. Cut with ramps, 3.6 MB (k 100)
/// take 1.2 ms in place of 1.4, 12 MB 3.1 in place of 3.5*. And how many
/// pageable results the calling thread copies once it has waited: with the last
/// tile's, up to 2 MiB and up to 4 MiB, 2000 queries of k 100 take 0.91, 0.83,
/// 0.84 ms, 5000 of k 10 0.86, 0.80, 0.79, 10,000 of k 1 1.20, 1.17, 1.17 (the
/// 98th percentile 1.70, 1.23, 1.24), of k 10 1.39, 1.43, 1.44, of k 100 2.88,
/// 2.76, 2.79; with none, 10,000 of k 1 1.25, of k 10 1.49*.
constexpr size_t kOneTileBytes = size_t(2) << 20;

/// StagedConfig::tileBytes: how large the tiles are then. 240 MiB of results
/// (k 1000) take 16.7, 12.7, 13.8, 14.2 ms into touched pageable
/// and 12.2, 12.2, 12.6, 12.3 ms into pinned memory in tiles of 8, 16, 32, 64
/// MiB. (16 MiB were not compared into new pages, which want large tiles:
/// below.) Three tiles each way are to stay small beside Faiss' scratch memory
/// (1.5 GiB).
constexpr size_t kTileBytes = size_t(32) << 20;

/// StagedConfig::endTileBytes: 1 MiB takes 20 us on the link, no more than the
/// launches for a tile. Nor are tiles halved below this where the GPU has no
/// memory for two: then one at a time takes Faiss' temporary memory.
constexpr size_t kEndTileBytes = size_t(1) << 20;

/// The same where tiles are computed on lanes, which go on from tile to tile,
/// and how many are under way then, if no results are pageable. 10,000 queries
/// of k 1000 at nb 10,000 take 6.1, 5.7, 5.7 ms into pinned memory in tiles of
/// 32 MiB, three at once, of 8 MiB, three and nine at once*. Into new pages,
/// which threads must share out, 100,000 took 127 ms in place of 81. Of k 10
/// (1.2 MB) they take 1.321 ms uncut, 1.316 and 1.297 ending with 256 and 64
/// KiB or more, and 1.291 if the results stay on the GPU*. (Of k 100, into
/// pageable memory, 2.75, 2.96, 2.92 ms ending with 1 MiB, 256, 64 KiB.)
constexpr size_t kLaneOneTileBytes = size_t(512) << 10;
constexpr size_t kLaneTileBytes = size_t(8) << 20;
constexpr size_t kLaneEndTileBytes = size_t(64) << 10;
constexpr int kLaneDepth = 9;

/// Floating-point operations for each byte copied from which on the copies are
/// not worth hiding: they take a hundredth of the computation, as much as is
/// lost where one tile ends and the next begins. Faiss does some 25 TFLOP/s
/// (nb 1,000,000, k 100), the link 55 GB/s, and 25e12 / 55e9 * 100 = 45,000. At
/// nb 1,000,000, k 100, 12 MB of results take 107 ms in one tile, 113 in five*.
constexpr double kOperationsPerByte = 45000;

/// What the rows of a tile are a multiple of: Faiss computes 512 queries at a
/// time (chooseTileSize in its Distance.cu), so that 1280 rows take it as long
/// as 1536. At nb 1,000,000, k 1000, 10,240 queries take 230, 238, 219, 238,
/// 219 ms in tiles of 512, 640, 1024, 1280, 2048 rows.
constexpr int64_t kComputeRows = 512;

/// On how many streams it does so, in turns, where it has no lanes; a tile with
/// an odd step leaves one of them idle. 10,000 queries as above take 218 ms
/// into pinned memory in tiles of up to 5, 3 and 1 steps, 213 of up to 4 and 2,
/// and 214 if the results stay on the GPU*.
constexpr int64_t kFaissStreams = 2;

/// StagedConfig::computeLanes. Faiss' kernels for 512 queries leave much of a
/// large GPU idle, even two at a time, as Faiss runs them. At nb 10,000, 10,000
/// queries with results on the GPU take 1.53, 1.38, 1.30, 1.18, 1.10 ms for k 1
/// and 2.52, 2.43, 2.36, 2.31, 2.21 for k 100 on 1, 3, 4, 6, 8 lanes*.
constexpr int kComputeLanes = 8;

/// For more neighbours than this, Faiss selects in another way, and more than
/// so many lanes take longer: k 512 takes 4.38 ms on 1 lane, 4.11 on 8, but k
/// 700 5.55, 5.60, 6.16, 6.09 on 1, 2, 3, 8*. Two lanes are no more streams
/// than Faiss has, but go on from tile to tile without a join: with k 1000,
/// results in pinned memory take 6.05 ms in place of 6.5*.
constexpr int64_t kManyNeighbours = 512;
constexpr int kLanesForMany = 2;

/// The least vectors that are worth lanes: 10,000 queries of k 1 take 0.62 and
/// 0.72, 0.94 and 1.0, 1.53 and 1.10 ms on 1 and 8 lanes at nb 2000, 6000,
/// 10,000*. Among fewer, enqueueing takes as long as computing.
constexpr int64_t kLaneVectors = 8192;

/// Lanes up to so many each compute one long stretch of a tile. At nb 100,000,
/// where scratch memory allows three, 10,000 queries of k 1 take 11.1, 12.0,
/// 12.3 ms in stretches of 3584, 2048, 512 rows, and 12.8 without lanes*.
constexpr int64_t kFewLanes = 4;

/// How often each of more lanes has its turn, if the rows suffice: at nb
/// 10,000, k 1, 100,000 queries take 9.97, 9.26, 9.06 ms in 1, 2, 4 turns, and
/// k 100, 10,000 queries into pinned memory 2.45, 2.34, 2.30*.
constexpr int64_t kTurns = 4;

/// StagedConfig::sliceVectors. Faiss selects the nearest of one query with one
/// of a GPU's many processors. Among 1,000,000 vectors, one query of k 100
/// takes 3.95, 2.08, 1.18, 0.76 ms in 1, 2, 4, 8 slices, 500 of k 10 take 7.12,
/// 5.33 in 1, 8; among 100,000, one takes 0.44, 0.29, 0.24, 0.28 in 1, 2, 4, 8,
/// among 50,000 0.255, 0.191, 0.189 in 1, 2, 4 and of k 1 0.119, 0.103, 0.122:
/// a slice takes 25 us of the calling thread. Nor have slices fewer vectors
/// than all queries together have results: selecting those is what a slice
/// adds. 128 queries of k 1000 (128,000) among 1,000,000 take 6.4, 4.2, 4.0,
/// 4.5 ms in 1, 2, 6, 8 slices, among 400,000 2.8, 1.9, 1.8, 2.7 in 1, 3, 4, 8,
/// among 100,000 0.90, 1.04 in 1, 2*. Of more queries than Faiss computes at
/// once, 1024 of k 10, two steps side by side take as long as eight slices*.
constexpr int64_t kSliceVectors = 24576;

/// StagedConfig::mappedBytes: results that the kernels store over the link,
/// which saves a copy. At nb 10,000, 1, 10 and 100 queries of k 100 (1.2, 12,
/// 120 KB) take 91, 101, 125 us in place of 96, 107, 132*; of k 1000 (12, 120,
/// 1200 KB) 177, 193, 336 in place of 182, 195, 350 into pageable memory, and
/// 177, 189, 228 in place of 183, 192, 226 into pinned*. No more queries than
/// Faiss computes at once: of others a copy waits for the last alone, while
/// each step's kernels wait for the link (10,000 queries of k 1, 120 KB: 1123
/// in place of 1114)*.
constexpr size_t kMappedBytes = size_t(128) << 10;

/// StagedConfig::pipelineDepth: one tile goes up, one computes, one comes back.
/// 240 MiB (k 1000) take 20.5, 13.4, 12.2, 12.0 ms into pinned memory with 1,
/// 2, 3, 4 at once, and 24.7, 13.9, 13.9, 13.9 into pageable memory.
constexpr int kPipelineDepth = 3;

/// StagedConfig::batchedQueries: what Faiss computes at a time. With nb 10,000
/// or 1,000,000 and k 100, 64 queries take 1.2 to 1.8 times as long as one.
constexpr int64_t kBatchedQueries = 512;

/// StagedConfig::copyThreads: at most so many, and no more than the machine
/// has. 240 MiB take 35, 22, 16, 14, 14 ms into touched pages with 1, 2, 4, 8,
/// 16 threads, and 123, 69, 40, 27, 19 ms into new ones.
constexpr int kCopyThreads = 16;

/// StagedConfig::copyChunkBytes: what a thread takes at a time. A copy that the
/// caller waits for is shared from two chunks on. 4 MiB take 0.87, 0.63, 0.73,
/// 0.99 ms into touched pages in chunks of 64 KiB, 256 KiB, 1 MiB, 4 MiB, and
/// 0.89, 0.87, 1.34, 2.18 ms into new ones.
constexpr size_t kCopyChunkBytes = size_t(256) << 10;

/// Queries that are copied into pinned memory past the CPU's caches: from so
/// many bytes a tile on. The GPU fetches 4 MB that lie in them at 15 GB/s in
/// place of 46. At nb 10,000, k 1, 500, 1536 and 10,000 queries (0.26, 0.8, 5
/// MB) take 170, 386, 1390 us in place of 166, 428, 1684*.
constexpr size_t kPastCachesBytes = size_t(512) << 10;

/// How far from the beginning of their block in GPU memory queries begin, from
/// so many bytes of them on. The stored vectors begin at a boundary of large
/// pages, and cuBLAS takes longer to multiply matrices whose rows lie alike. Of
/// d 512 at nb 1,000,000, 10,000 queries of k 1 take 300.1, 296.6, 293.4, 294.6
/// ms with gaps of 0, 1024, 2048, 4096; 1024 take 30.6 ms at 0, 0.97 of it from
/// 2048 to 6144, 1.00 at 8192. With 2048, d 96, 128, 256, 768, 1024 take 1.00,
/// 0.99, 1.00, 1.00, 1.00 of the time at 0; with 8192, d 1024 takes 1.09*.
constexpr size_t kInputGap = 2048;
constexpr size_t kGapFromBytes = size_t(256) << 10;

/// StagedConfig::pinnedBytes: six tiles of 32 MiB and room for more. Pinned
/// memory is taken from the whole machine, so it is not much more. No speed
/// depends on it unless it is smaller than the tiles.
constexpr size_t kPinnedBytes = size_t(256) << 20;

/// StagedConfig::secondsAhead: how much work a call that waits enqueues ahead
/// of the GPU. What is enqueued ends before the call does, interrupted or not,
/// so it is what an interrupt is late by; stock Faiss looks for one whenever it
/// has enqueued 512 queries. No less, because the pieces of half as much cost a
/// join of Faiss' two streams each: 0.3 ms at k 1 and 1 ms at k 100 on an H200
/// (nb 1,000,000), where pieces of 10 ms made 10,000 queries (k 100) take 6 %
/// longer than stock Faiss.
constexpr double kSecondsAhead = 0.15;
/// Calls of so many times as much, and shorter ones, are not limited: they end
/// by themselves, soon.
constexpr double kLongCall = 2;

/// How long work takes, about. Too high a rate makes interrupts late, too low a
/// one limits calls that need no limit. With Faiss' kernels (nb 1,000,000, k
/// 100) an H200 computes 25e12 operations a second on 132 multiprocessors; an
/// A100, by its 12e12 on 108, takes 1.7 times what is estimated, and a T4, by
/// 4e12 on 40, 1.9 times. Results into new pages, the slowest way, come at 2 to
/// 12 GB/s (kCopyThreads).
constexpr double kOperationsPerMultiprocessorSecond = 0.19e12;
constexpr double kBytesPerSecond = 5e9;

/// How often a thread that waits asks Faiss' InterruptCallback, which in Python
/// takes the interpreter's lock: less than a user notices, and a ten-thousandth
/// of the time. How it waits meanwhile: the shortest sleep takes 60 us, so
/// short waits do without, as CUDA's own do.
constexpr double kInterruptSeconds = 0.01;
/// The same where threads wait for other threads: there may be many.
constexpr double kQueueSeconds = 0.03;

/// How long a destructor waits for a lock whose holder may need one that Faiss
/// holds for this thread. Most calls end sooner.
constexpr double kEndSeconds = 1;
constexpr std::chrono::microseconds kWaitWithoutSleep(200);
constexpr std::chrono::microseconds kSleep(50);

/// The pinned buffer of Faiss' resources is used for results when it is no
/// smaller than this; below, tiles would be cut too small to be worth it. Faiss
/// makes it 256 MiB, so it matters only to those who ask for less.
constexpr size_t kSmallestFaissBuffer = size_t(1) << 20;

} // namespace tuning

/// `config` with the values above in place of zeros; tileRows stays 0 where
/// bytes decide, and computeLanes where each search does. Throws InvalidArray
/// for a value that means nothing.
/// `onLanes`: for calls that compute on lanes.
FAISS_EXT_API StagedConfig
withDefaults(const StagedConfig& config, bool onLanes = false);

} // namespace gpu
} // namespace faiss_ext
