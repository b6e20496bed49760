#pragma once

#include <cstddef>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// What an exact search is asked for.
struct ExactShape {
    /// Queries, and vectors stored; both >= 1.
    idx_t n;
    idx_t vectors;
    int d;
    int k;
    /// The stored vectors are their own half-precision copies.
    bool ownCopies;
    /// The scores of so many dimensions have a bound of their error.
    bool bounded;
};

/// How an exact search is cut: into tiles of queries, and for each of these
/// into chunks of vectors. The results do not depend on it.
struct ExactPlan {
    /// Every query is compared with every vector by D.
    bool scanAll;
    /// Of a tile, at most.
    idx_t queries;
    /// Of a chunk, at most.
    idx_t vectors;
    /// QueryState::capacity.
    int survivors;

    /// Where the parts of the scratch memory begin (ArrayPlaces); those that
    /// are not needed have no bytes.
    struct Layout {
        size_t copies;
        size_t terms;
        size_t cut;
        size_t leastCut;
        size_t best;
        size_t survivors;
        size_t counts;
        size_t paths;
        size_t last;
        size_t lastCount;
        size_t againCount;
        size_t vectorCopies;
        size_t scores;
    };
    Layout at;
    /// Of the scratch memory.
    size_t bytes;

    /// All that are stored.
    idx_t total;

    /// Of the scores: rows begin at whole loads, and where a product begins
    /// best.
    idx_t ld() const {
        return (vectors + 7) / 8 * 8;
    }

    /// So many, a prime number if there are two or more.
    idx_t chunks;

    /// Every chunk has vectors from all over the store, so that no chunk has
    /// far more neighbours of a query than another one, also where vectors were
    /// added in the order of what they are, or by turns of several kinds: the
    /// first is a sample of all, and lists seldom run over. Unless `scanAll`,
    /// each has k vectors or more.
    exact::VectorRows chunk(idx_t number) const {
        return {number, (total - number + chunks - 1) / chunks, chunks};
    }
};

/// The largest sizes whose scratch memory is within `bytes`; the smallest ones
/// where none is. Pure arithmetic.
FAISS_EXT_API ExactPlan
planExact(const ExactShape& shape, const ExactSizes& most, size_t bytes);

} // namespace gpu
} // namespace faiss_ext
