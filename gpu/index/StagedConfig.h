#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_ext {
namespace gpu {

/// How one index moves data. 0 means: choose; what is chosen, and why, stands
/// in Tuning.h.
struct StagedConfig {
    /// Upper bound, in bytes, of the pinned host memory that this index
    /// allocates beyond the buffer of Faiss' resources. 0: 256 MiB. Nothing is
    /// allocated before it is needed.
    size_t pinnedBytes = 0;

    /// Largest number of queries in one tile, and in a call that is not cut. 0:
    /// by oneTileBytes and tileBytes.
    int64_t tileRows = 0;

    /// Bytes that a call may transfer each way without being cut into tiles;
    /// where that takes a hundredth of the computation at most, tileBytes.
    /// While no more pageable results are left, the calling thread copies them
    /// itself when it has waited; those of one tile at least, of pipelineDepth
    /// at most. 0: 2 MiB; 512 KiB on lanes where no results are pageable.
    size_t oneTileBytes = 0;

    /// Bytes that one tile of a larger call transfers each way, at most. 0: 32
    /// MiB; 8 on lanes where no results are pageable.
    size_t tileBytes = 0;

    /// Tiles are smaller where a call begins and ends, since no computation
    /// hides the first way in and the last way out; but, a rest apart, not
    /// smaller than this many bytes. Their rows are multiples of 1024, on lanes
    /// of 512. 0: 1 MiB; 64 KiB on lanes where no results are pageable.
    size_t endTileBytes = 0;

    /// Bytes of results, at most, that the kernels of a search of up to 512
    /// queries store into pinned memory themselves; then there is no copy. 0:
    /// 128 KiB; 1: never.
    size_t mappedBytes = 0;

    /// On how many streams ("lanes") parts of a search are computed side by
    /// side, 8 at most; fewer where Faiss' temporary memory has no room for the
    /// scratch memory of so many. Flat indexes only. Of at least 1024 queries,
    /// each lane searches some; 1: as Faiss does; 0: 8, but 2 for more than 512
    /// neighbours, 1 among fewer than 8192 vectors. For up to 512 queries, each
    /// lane searches among some of the vectors; 1: as Faiss does; 0: 8, but see
    /// sliceVectors. Lanes share a cuBLAS handle, so identical searches may
    /// differ in the last bits of their distances; with 1 they do not.
    int computeLanes = 0;

    /// The vectors, at least, among which one lane searches for up to 512
    /// queries; and no fewer than n * k. 0: 24576.
    int64_t sliceVectors = 0;

    /// How many tiles are under way at once; 1: each waits for the last. 0: 3;
    /// 9 where tiles have 8 MiB.
    int pipelineDepth = 0;

    /// Seconds of work, about, by which a call that waits for its results runs
    /// ahead of the GPU: what an interrupt (Ctrl-C, a time limit) has to wait
    /// for. A call that is estimated longer than twice that waits more than
    /// once, for the beginning of what it has enqueued, and computes fewer rows
    /// at once. The estimate goes by the GPU's size (Tuning.h). 0: 0.15.
    double secondsAhead = 0;

    /// Searches of fewer queries than this that threads ask for while the index
    /// is searched become one, of so many queries at most. Their distances may
    /// differ in the last bits from those of a search alone, as they do between
    /// Faiss' batches of different sizes. 1: every search by itself. 0: 512.
    int64_t batchedQueries = 0;

    /// Threads that copy between pageable arrays and pinned memory, the calling
    /// one among them; 1: that one alone. Indexes on the same resources share
    /// the threads. 0: as many as the machine has, 16 at most.
    int copyThreads = 0;

    /// Bytes of such a copy that are worth another thread; best a multiple of
    /// the page size. 0: 256 KiB.
    size_t copyChunkBytes = 0;
};

} // namespace gpu
} // namespace faiss_ext
