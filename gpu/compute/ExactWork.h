#pragma once

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>
#include <faiss_ext/gpu/profile/ComputeWork.h>

// What the stages of an exact search take at the least, for profiles. Pure
// arithmetic; docs/architecture.md, "Where times are taken", has it as a table.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Of one stored vector, and of its half-precision copy.
inline double vectorBytes(const VectorsView& vectors) {
    return double(vectors.d) * (vectors.float16 ? sizeof(Half) : sizeof(float));
}
inline double copyBytes(int d) {
    return double(copyWidth(d)) * sizeof(Half);
}

/// All pairs of n queries and `rows` vectors: a multiplication and an addition
/// for each dimension.
inline double scoreOperations(idx_t n, idx_t rows, int d) {
    return 2.0 * n * rows * d;
}

/// D of all pairs: a subtraction and a multiply-add for each dimension, for
/// inner products the latter alone.
inline double distanceInstructions(Metric metric, idx_t n, idx_t rows, int d) {
    return (metric == Metric::L2 ? 2.0 : 1.0) * n * rows * d;
}

/// The best search that there may be: of the vectors none is left out, each is
/// read once, and all pairs have a score.
inline ComputeWork searchWork(const VectorsView& vectors, idx_t n, int k) {
    constexpr double kResult = sizeof(float) + sizeof(idx_t);
    if (vectors.n == 0) {
        // Nobody reads the queries.
        return {0, 0, n * k * kResult};
    }
    return {scoreOperations(n, vectors.n, vectors.d),
            0,
            vectors.n * vectorBytes(vectors) +
                    n * (vectors.d * double(sizeof(float)) + k * kResult)};
}

/// Reads the vectors (once, though a centre wants twice), writes 8 bytes each.
inline ComputeWork prepareIndexWork(const VectorsView& vectors) {
    return {0, 0, vectors.n * (vectorBytes(vectors) + sizeof(VectorTerms))};
}

inline ComputeWork copyWork(const VectorsView& vectors, idx_t rows) {
    return {0, 0, rows * (vectorBytes(vectors) + copyBytes(vectors.d))};
}

inline ComputeWork prepareQueriesWork(const QueryState& queries) {
    return {0,
            0,
            queries.n * (queries.d * double(sizeof(float)) +
                         copyBytes(queries.d) + sizeof(QueryTerms))};
}

/// Reads both sorts of copies, and writes the scores.
inline ComputeWork scoresWork(const QueryState& queries, idx_t rows) {
    return {scoreOperations(queries.n, rows, queries.d),
            0,
            (queries.n + rows) * copyBytes(queries.d) +
                    double(queries.n) * rows * sizeof(float)};
}

/// Reads the scores and what is kept of the vectors.
inline ComputeWork filterWork(const QueryState& queries, idx_t rows) {
    return {0,
            0,
            double(queries.n) * rows * sizeof(float) +
                    double(rows) * sizeof(VectorTerms),
            ComputeWork::Of::Filtered};
}

/// Of queries that `of` says.
inline ComputeWork fusedFilterWork(
        const QueryState& queries, idx_t rows, ComputeWork::Of of) {
    ComputeWork work{scoreOperations(queries.n, rows, queries.d), 0, 0, of};
    if (of == ComputeWork::Of::Filtered) {
        work.bytes = (queries.n + rows) * copyBytes(queries.d) +
                     double(rows) * sizeof(VectorTerms);
    }
    return work;
}

/// Of those alone that take it.
inline ComputeWork lastPathWork(
        Metric metric, const QueryState& queries, idx_t vectors) {
    return {0,
            distanceInstructions(metric, queries.n, vectors, queries.d),
            0,
            ComputeWork::Of::Last};
}

/// Reads keys, and writes distances and labels.
inline ComputeWork writeResultsWork(idx_t n, int k) {
    return {0,
            0,
            double(n) * k * (sizeof(uint64_t) + sizeof(float) + sizeof(idx_t))};
}

/// Reads every vector, and compares it with all queries by D.
inline ComputeWork scanWork(
        Metric metric, const VectorsView& vectors, idx_t n) {
    return {0,
            distanceInstructions(metric, n, vectors.n, vectors.d),
            vectors.n * vectorBytes(vectors)};
}

/// The same by scores, which rule out most.
inline ComputeWork tensorScanWork(const VectorsView& vectors, idx_t n) {
    return {scoreOperations(n, vectors.n, vectors.d),
            0,
            vectors.n * (vectorBytes(vectors) + sizeof(VectorTerms))};
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
