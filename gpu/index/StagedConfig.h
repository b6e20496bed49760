#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace faiss_ext {
namespace gpu {

struct Tuning;

/// How one index moves data. 0 means: choose.
struct StagedConfig {
    /// Upper bound, in bytes, of the pinned host memory that this index
    /// allocates beyond the buffer of Faiss' resources. 0: 256 MiB. Nothing is
    /// allocated before it is needed. (The exact engine pins 4 KiB
    /// beside it, and 1.5 MiB while it tests a GPU.)
    size_t pinnedBytes = 0;

    /// On how many streams ("lanes") parts of a search are computed side by
    /// side, 8 at most; fewer where Faiss' temporary memory has no room for the
    /// scratch memory of so many. Flat indexes only. Of at least 1024 queries,
    /// each lane searches some; 1: as Faiss does; 0: 8, but 2 for more than 512
    /// neighbours, 1 among fewer than 8192 vectors. For up to 512 queries, each
    /// lane searches among some of the vectors, 24576 or n * k of them at
    /// least; 1: as Faiss does; 0: 8. Lanes share a cuBLAS handle, so identical
    /// searches may differ in the last bits of their distances; with 1 they do
    /// not.
    int computeLanes = 0;

    /// Searches of fewer queries than this that threads ask for while the index
    /// is searched become one, of so many queries at most. By Faiss' kernels
    /// their distances may differ in the last bits from those of a search
    /// alone, as they do between Faiss' batches of different sizes. 1: every
    /// search by itself. 0: 512.
    int64_t batchedQueries = 0;

    /// Threads that copy between pageable arrays and pinned memory, the calling
    /// one among them; 1: that one alone. Indexes on the same resources share
    /// the threads. 0: as many as the machine has, 16 at most.
    int copyThreads = 0;

    /// Which kernels find neighbours: "faiss", Faiss' own, or "exact", those of
    /// the exact engine (docs/exact-search.md), for flat indexes and float32
    /// queries, where it knows the GPU (of compute capability 9.0 or 8.x), its
    /// self-test there succeeds, and the metric is L2 or the inner product;
    /// elsewhere Faiss' own, which TransferStats::searchedBy tells. "": what
    /// the environment variable FAISS_EXT_SEARCH says when the index is made;
    /// where it is unset or empty, "exact" on GPUs of compute capability 9.0,
    /// where that was measured to be faster, and "faiss" elsewhere.
    /// computeLanes is for Faiss' kernels alone.
    std::string search;

    /// For tests and benchmarks of this library: the sizes at which calls go
    /// another way (call/Tuning.h, which is not installed).
    std::shared_ptr<const Tuning> tuning;
};

} // namespace gpu
} // namespace faiss_ext
