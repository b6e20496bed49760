#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/exact/ExactArithmetic.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>

// The kernels of the exact search, in the order in which a search enqueues
// them; docs/exact-search.md says why the result is right. All pointers are to
// memory that the current GPU can read and write; what is enqueued is in the
// order of `stream`, and nothing waits. The results are CUDA's (cuBLAS's where
// it says so). Rows and elements are counted in 64 bits. Simulated runtimes put
// their own functions in place of these.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// What an index keeps beside its store: 8 bytes a vector, and little more.
struct IndexState {
    /// Of one element. Made on the GPU, so that no search waits for it.
    IndexTerms* terms;
    /// [d]; zeros where there is none.
    float* centre;
    /// [n]
    VectorTerms* vectors;
};

/// What it is made with: scratch, of prepareBytes(d) bytes, aligned to 256.
FAISS_EXT_API size_t prepareBytes(int d);

/// Makes `state` of the store's vectors. n >= 1, d >= 1. Several kernels.
FAISS_EXT_API cudaError_t launchPrepareVectors(
        Metric metric,
        const TensorArithmetic& arithmetic,
        const VectorsView& vectors,
        const IndexState& state,
        void* scratch,
        cudaStream_t stream);

/// Rows of the store that are scored together: first, first + step, ...
struct VectorRows {
    idx_t first;
    idx_t count;
    idx_t step;
};

/// Components of a copy: d, filled up with zeros to a multiple of 8, which
/// cuBLAS wants for tensor cores.
FAISS_EXT_HOST_DEVICE constexpr int copyWidth(int d) {
    return (d + 7) / 8 * 8;
}

/// Writes the copies of `rows` to copies [rows.count, copyWidth(d)]. (A float16
/// store whose width is that already is its own copy: whose caller need not
/// call this.) `neededBy`: on the GPU, nothing is copied where it is 0; or
/// null.
FAISS_EXT_API cudaError_t launchCopyVectors(
        const VectorsView& vectors,
        const VectorRows& rows,
        const IndexState& state,
        Half* copies,
        const uint32_t* neededBy,
        cudaStream_t stream);

/// Why a query's results are known to be right, or not yet.
enum class QueryPath : uint32_t {
    /// By its certificate.
    Certified = 0,
    /// The same, though not before a second filter of all vectors.
    Widened = 1,
    /// Not by that: it is compared with every vector.
    Last = 2,
    /// Not at all: a list ran over, and what `best` has is not all that passed.
    /// (Only between launchSelect() and what collects such queries.)
    Incomplete = 3,
};

/// What a search of n queries works on.
struct QueryState {
    idx_t n;
    int d;
    int k;
    /// Survivors between two selections that there is room for; k <= capacity.
    int capacity;
    const float* x;       // [n, d]
    Half* copies;         // [n, copyWidth(d)]
    QueryTerms* terms;    // [n]
    float* cut;           // [n]: the k-th loss is not above it
    float* leastCut;      // [n]: the least cut that a filter has used
    uint64_t* best;       // [n, k]: result keys so far, ascending
    uint32_t* survivors;  // [n, capacity]: labels
    uint32_t* counts;     // [n]: survivors, more than `capacity` if it ran over
    QueryPath* paths;     // [n]
    uint32_t* last;       // [n]: collected queries of QueryPath::Last
    uint32_t* lastCount;  // [1]: how many these are
    uint32_t* againCount; // [1]: queries that are filtered again
    uint32_t* widenedCount; // [1]: Widened ones, once all have been collected
    /// The cut is made of so many of the best vectors so far: of k, which
    /// prove it, or of fewer, a guess from a part of the store, which lets
    /// fewer vectors pass. It was too small for a query that has no certificate
    /// after the first round.
    int rank;
};

/// Copies and terms of the queries; best: kMissing; cut and leastCut:
/// missingLoss(); counts, lastCount, againCount and widenedCount: 0; paths:
/// Last for queries out of range, and for all if `scanAll`, else Certified.
FAISS_EXT_API cudaError_t launchPrepareQueries(
        const IndexState& state,
        const QueryState& queries,
        bool scanAll,
        cudaStream_t stream);

/// scores [n, ld] = copies of the queries times those of `count` vectors,
/// float32, by cuBLAS on the tensor cores, in the order of the handle's stream.
/// Vectors' rows begin every `stride` halves, a multiple of 8. Its pointer mode
/// is the host's.
FAISS_EXT_API cublasStatus_t launchScores(
        cublasHandle_t blas,
        const Half* queries,
        idx_t n,
        const Half* vectors,
        idx_t stride,
        idx_t count,
        int width,
        float* scores,
        idx_t ld);

/// The first cut: a loss that `rank` vectors of a sample do not exceed, as its
/// scores prove, and hardly above the least such. scores [n, ld] of `rows`,
/// rows.count >= rank, k <= 2048. Queries of QueryPath::Last are left alone,
/// here and below.
FAISS_EXT_API cudaError_t launchSampleCut(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const float* scores,
        idx_t ld,
        cudaStream_t stream);

/// Appends the labels of the vectors that pass to the survivors, in no order,
/// and counts them; leastCut is the less of itself and the cut.
FAISS_EXT_API cudaError_t launchFilter(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const float* scores,
        idx_t ld,
        cudaStream_t stream);

/// D of the survivors, as many as there is room for, and the k best of them and
/// of `best`; the cut is the less of itself and the loss of the rank-th;
/// counts: 0. Queries whose lists ran over are Incomplete. No vector may have
/// been appended twice since `best` was kMissing.
FAISS_EXT_API cudaError_t launchSelect(
        const VectorsView& vectors,
        const IndexState& state,
        const QueryState& queries,
        cudaStream_t stream);

/// Asks for the certificate of each query. Those that have none, or are
/// Incomplete, become Widened and are counted in `againCount`: the loss of
/// their k-th best so far, which k vectors meet, is their cut, `best` is
/// kMissing, and leastCut missingLoss(), so that all vectors can be filtered
/// again. Those with fewer than k best so far are Last at once.
FAISS_EXT_API cudaError_t
launchCollectAgain(const QueryState& queries, cudaStream_t stream);

/// Asks for the certificate of each query, makes those that have none or are
/// Incomplete Last, and appends all these to `last`, in no order, with `best`
/// kMissing. Those that are Widened and stay it are counted in `widenedCount`.
FAISS_EXT_API cudaError_t
launchCollectLast(const QueryState& queries, cudaStream_t stream);

/// The last path: losses [n, ld], of D, of the query last[i] and `rows` in row
/// i.
FAISS_EXT_API cudaError_t launchLosses(
        const VectorsView& vectors,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        float* losses,
        idx_t ld,
        cudaStream_t stream);

/// The k best of these losses and of `best`, whatever they are.
FAISS_EXT_API cudaError_t launchSelectLosses(
        const VectorRows& rows,
        const QueryState& queries,
        const float* losses,
        idx_t ld,
        cudaStream_t stream);

/// Counts of queries by path, which the host may read at any time: pinned
/// memory.
struct PathCounts {
    uint64_t certified;
    uint64_t widened;
    uint64_t last;
};

/// Distances and labels [n, k] of `best`, and adds the queries of each path,
/// once collected, to `counts`, if there are any. These three may be pinned
/// host memory.
FAISS_EXT_API cudaError_t launchWriteResults(
        Metric metric,
        const QueryState& queries,
        float* distances,
        idx_t* labels,
        PathCounts* counts,
        cudaStream_t stream);

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
