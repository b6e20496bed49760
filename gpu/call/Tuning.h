#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/SearchChoice.h>
#include <faiss_ext/gpu/index/StagedConfig.h>

/// Every size at which a call goes another way, in one place, with the reason.
/// Measured on one H200 (PCIe 5 x16, 55 GB/s; 16 CPU threads), Faiss 1.7.3, d
/// 128; `make bench` sweeps them again (case `constants`).

namespace faiss_ext {
namespace gpu {

/// Sizes that tests and benchmarks set by StagedConfig::tuning. 0: choose.
struct Tuning {
    /// Largest number of queries in one tile, and in a call that is not cut. 0:
    /// by bytes.
    int64_t tileRows = 0;
    /// Bytes that a call may transfer each way without being cut into tiles.
    size_t oneTileBytes = 0;
    /// Bytes that one tile of a larger call transfers each way, at most.
    size_t tileBytes = 0;
    /// Bytes of the tiles at both ends of a call, at least, a rest apart.
    size_t endTileBytes = 0;
    /// Bytes of results, at most, that the kernels of a search of up to 512
    /// queries store into pinned memory themselves. 1: never.
    size_t mappedBytes = 0;
    /// The vectors, at least, among which one lane searches for up to 512
    /// queries.
    int64_t sliceVectors = 0;
    /// How many tiles are under way at once; 1: each waits for the last.
    int pipelineDepth = 0;
    /// Seconds of work, about, by which a call that waits runs ahead of the
    /// GPU.
    double secondsAhead = 0;
    /// Bytes of a copy between host memories that are worth another thread.
    size_t copyChunkBytes = 0;
    /// Of the exact engine: ExactSizes.
    int64_t exactQueries = 0;
    int64_t exactVectors = 0;
    int64_t exactScores = 0;
    int exactSurvivors = 0;
    int64_t exactSample = 0;
    int64_t exactCopied = 0;
    int exactWay = 0;
};

/// Sets one by its name; false if there is none of that name. Throws
/// InvalidArray for a value that means nothing.
FAISS_EXT_API bool set(Tuning& tuning, const std::string& name, double value);

/// How large tiles are, and how many are under way at once.
struct TileSizes {
    size_t oneTileBytes;
    size_t tileBytes;
    size_t endTileBytes;
    int depth;
};

/// How the exact engine searches; where it cannot so, as is best.
enum class ExactWay {
    Best,
    Scan,
    TensorScan,
    FusedFilter,
    Scores,
};

/// Sizes that an exact search does not exceed, where memory would allow more.
struct ExactSizes {
    /// Of a tile of queries; 0: by the kind of filter.
    int64_t queries;
    /// Of a chunk of vectors that have scores or losses in memory; raised to
    /// hold k, and kExactLeastVectors; 0: by the kind of filter.
    int64_t vectors;
    /// The one times the other.
    int64_t scores;
    /// Vectors of a chunk that a query has room for, raised to k; 0: by k.
    int survivors;
    /// Of vectors that the first cuts are made of, about; 0: choose.
    int64_t sample;
    /// Of vectors whose copies are made at once; 0: all, where memory allows.
    int64_t copied;
    ExactWay way;
};

/// A StagedConfig with nothing left to choose, but for tileRows, which stays 0
/// where bytes decide, and computeLanes, where each search does.
struct CallConfig {
    size_t pinnedBytes;
    int computeLanes;
    int64_t batchedQueries;
    int copyThreads;
    size_t copyChunkBytes;
    int64_t tileRows;
    size_t mappedBytes;
    int64_t sliceVectors;
    double secondsAhead;
    SearchKernels search;
    ExactSizes exact;
    /// Of calls that compute on the default stream, and of those that compute
    /// on lanes into no pageable array.
    TileSizes whole;
    TileSizes onLanes;
};

/// Throws InvalidArray for a value that means nothing, of the environment too.
FAISS_EXT_API CallConfig complete(const StagedConfig& config);

namespace tuning {

/// Tuning::oneTileBytes: half of 4 MiB is not worth a second tile (0.97 ms in
/// place of 0.63), of 16 MiB neither loses nor gains. Also: how many pageable
/// results the calling thread copies itself once it has waited.
constexpr size_t kOneTileBytes = size_t(2) << 20;

/// Tuning::tileBytes: 240 MiB take as long in tiles of 16 to 64 MiB; into new
/// pages large ones are better.
constexpr size_t kTileBytes = size_t(32) << 20;

/// Tuning::endTileBytes: 20 us on the link, no more than a tile's launches.
constexpr size_t kEndTileBytes = size_t(1) << 20;

/// The same on lanes, which go on from tile to tile (10,000 queries of k 1000
/// into pinned memory: 6.1 ms in three tiles of 32 MiB, 5.7 in nine of 8).
constexpr size_t kLaneOneTileBytes = size_t(512) << 10;
constexpr size_t kLaneTileBytes = size_t(8) << 20;
constexpr size_t kLaneEndTileBytes = size_t(64) << 10;
constexpr int kLaneDepth = 9;

/// Floating-point operations for each byte copied from which on copies are not
/// worth hiding: 25e12 a second / 55e9 bytes a second * 100.
constexpr double kOperationsPerByte = 45000;

/// What the rows of a tile are a multiple of: Faiss computes 512 queries at a
/// time (chooseTileSize in its Distance.cu), 1280 rows as long as 1536.
constexpr int64_t kComputeRows = 512;

/// On how many streams it does so where it has no lanes.
constexpr int64_t kFaissStreams = 2;

/// StagedConfig::computeLanes: 10,000 queries of k 1 among 10,000 vectors take
/// 1.53, 1.30, 1.10 ms on 1, 4, 8.
constexpr int kComputeLanes = 8;

/// Faiss selects more neighbours than this in another way, on which more than
/// two lanes lose (k 700: 5.55, 5.60, 6.16 ms on 1, 2, 3).
constexpr int64_t kManyNeighbours = 512;
constexpr int kLanesForMany = 2;

/// The least vectors that are worth lanes: among fewer, enqueueing takes as
/// long as computing.
constexpr int64_t kLaneVectors = 8192;

/// Lanes up to so many each compute one long stretch of a tile (100,000
/// vectors: 11.1 ms in stretches of 3584 rows, 12.3 of 512).
constexpr int64_t kFewLanes = 4;

/// How often each of more lanes has its turn, if the rows suffice (100,000
/// queries of k 1: 9.97, 9.26, 9.06 ms in 1, 2, 4 turns).
constexpr int64_t kTurns = 4;

/// Tuning::sliceVectors: one query of k 100 among 100,000 vectors takes 0.44,
/// 0.24, 0.28 ms in 1, 4, 8 slices. Nor have slices fewer vectors than all
/// queries together have results, which is what a slice adds to select.
constexpr int64_t kSliceVectors = 24576;

/// Tuning::mappedBytes: 100 queries of k 100 (120 KB) take 125 us in place of
/// 132. Of more queries than Faiss computes at once a copy waits for the last
/// alone, while each step's kernels wait for the link.
constexpr size_t kMappedBytes = size_t(128) << 10;

/// Tuning::pipelineDepth: one tile goes up, one computes, one comes back.
constexpr int kPipelineDepth = 3;

/// StagedConfig::batchedQueries: what Faiss computes at a time.
constexpr int64_t kBatchedQueries = 512;

/// StagedConfig::copyThreads: 240 MiB into new pages take 123, 40, 19 ms with
/// 1, 4, 16.
constexpr int kCopyThreads = 16;

/// Tuning::copyChunkBytes: 4 MiB take 0.87, 0.63, 0.73 ms in chunks of 64 KiB,
/// 256 KiB, 1 MiB.
constexpr size_t kCopyChunkBytes = size_t(256) << 10;

/// Queries are copied into pinned memory past the CPU's caches from so many
/// bytes a tile on: the GPU fetches 4 MB that lie in them at 15 GB/s in place
/// of 46.
constexpr size_t kPastCachesBytes = size_t(512) << 10;

/// StagedConfig::pinnedBytes: six tiles of 32 MiB and room for more. Pinned
/// memory is taken from the whole machine.
constexpr size_t kPinnedBytes = size_t(256) << 20;

/// Tuning::secondsAhead: what is enqueued ends before the call does, so it is
/// what an interrupt is late by. No less: pieces of 10 ms made 10,000 queries
/// among 1M vectors (k 100) take 6 % longer than stock Faiss.
constexpr double kSecondsAhead = 0.15;
/// Calls of so many times as much, and shorter ones, are not limited.
constexpr double kLongCall = 2;

/// The exact engine's sizes: chunks large enough for a matrix product and few
/// launches (where filters leave no scores, as large as kExactScores allows:
/// chunks are for the last path alone, and mostly launches without work), tiles
/// of queries wide, because each makes its own copies of the vectors.
constexpr int64_t kExactQueries = 4096;
/// The same for filters that leave no scores in memory.
constexpr int64_t kExactFusedQueries = 16384;
constexpr int64_t kExactVectors = 65536;
constexpr int64_t kExactScores = int64_t(256) << 20;
/// ExactSizes::survivors, the room of a query's list: so many at least, and a
/// power of two that is so many times k or more.
constexpr int kExactSurvivors = 1024;
constexpr int kSurvivorsOfNeighbour = 8;
/// Where memory is short, chunks shrink to so many vectors before tiles of
/// queries do, and these to so many before chunks shrink further, to this many.
constexpr int64_t kExactGoodVectors = 8192;
constexpr int64_t kExactGoodQueries = 128;
constexpr int64_t kExactLeastVectors = 64;
constexpr int64_t kExactMostChunks = 16384;
/// Vectors of whose scores the first cuts are guessed: so many, or one in so
/// many (10,000 queries among 1M vectors, k 1, 10, 100, 1000: 5.92, 6.63, 7.39,
/// 9.22 ms; of 16384: 6.23, 6.97, 7.77, 9.56; among 10,000 vectors, k 1, 10,
/// 100, of one in 16: 0.25, 0.37, 0.57, in 8: 0.29, 0.36, 0.57, in 32: 0.25,
/// 0.40, 0.62).
constexpr int64_t kExactSample = 4096;
constexpr int64_t kExactSampleShare = 16;
/// And of whose scores they are proven: so many, and so many times k.
constexpr int64_t kExactProvenSample = 16384;
constexpr int64_t kExactProvenSamples = 16;
/// All that were filtered become so many times as many with each stage; a power
/// of 3 is seldom the period of a store whose kinds of vectors come by turns.
constexpr int64_t kExactGrowth = 3;
/// The first stage has so many times the sample's vectors, at least: a stage
/// costs some 30 us for its launches.
constexpr int64_t kExactStageSamples = 4;
/// Survivors of the first stage that are not worth another one.
constexpr int kExactFewSurvivors = 128;
/// Scratch memory that is allocated where Faiss' temporary memory has less.
constexpr size_t kExactLeastBytes = size_t(8) << 20;
/// Where more than one vector in so many is wanted, all are compared by D.
constexpr int64_t kScanShare = 16;
/// The same where filters leave no scores in memory: 10,000 queries of k 1000
/// among 10,000 vectors take 1.9 ms filtered, 3.9 compared.
constexpr int64_t kFusedScanShare = 4;
/// Operations for each component of a vector, and for each vector, that take as
/// long as those of Faiss' kernels, by which a call's time is estimated.
constexpr double kExactOperations = 0.25;
constexpr double kExactVectorOperations = 48;
/// The same with filters that leave no scores in memory (1M x 128: 6 ms, x 512
/// 19, x 1024 37, for 10,000 queries).
constexpr double kExactFusedOperations = 0.085;
constexpr double kExactFusedVectorOperations = 4;

/// Of a cosine index. Copies of queries on the default stream, beside
/// kExactFusedQueries: of more dimensions fewer are made at once.
constexpr size_t kCosineBytes = size_t(64) << 20;
/// They take no more of Faiss' temporary memory than one part in so many (the
/// search that comes behind needs more for each query), unless that is fewer
/// than kComputeRows: each time they are made costs a search.
constexpr size_t kCosineShare = 4;
/// Vectors on their way to a float16 store, in float32: Faiss computes the
/// norms of all that is stored anew for each block, and adds blocks as large
/// itself. No more than one part in so many of its temporary memory, which the
/// float16 copies are taken from, too; where that is little, the lesser size.
constexpr size_t kCosineAddBytes = size_t(256) << 20;
constexpr size_t kCosineAddShare = 2;
constexpr size_t kCosineAddLeastBytes = size_t(64) << 20;
/// Vectors on their way from one cosine index to another, through host memory.
constexpr size_t kCosineCopyBytes = size_t(64) << 20;

/// How long work takes, about: 25e12 operations a second on the 132
/// multiprocessors of an H200 (an A100 and a T4 take 1.7 and 1.9 times what is
/// so estimated), results into new pages 2 to 12 GB/s.
constexpr double kOperationsPerMultiprocessorSecond = 0.19e12;
constexpr double kBytesPerSecond = 5e9;

/// How often a thread that waits asks Faiss' InterruptCallback, which in Python
/// takes the interpreter's lock: less than a user notices.
constexpr double kInterruptSeconds = 0.01;
/// The same where threads wait for other threads: there may be many.
constexpr double kQueueSeconds = 0.03;

/// How long a destructor waits for a lock whose holder may need one that Faiss
/// holds for this thread. Most calls end sooner.
constexpr double kEndSeconds = 1;
/// The shortest sleep takes 60 us, so short waits do without.
constexpr std::chrono::microseconds kWaitWithoutSleep(200);
constexpr std::chrono::microseconds kSleep(50);

/// The pinned buffer of Faiss' resources is used for results when it is no
/// smaller than this. Faiss makes it 256 MiB.
constexpr size_t kSmallestFaissBuffer = size_t(1) << 20;

} // namespace tuning

} // namespace gpu
} // namespace faiss_ext
