#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// What a search by scores is asked for.
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
    /// Filters leave no scores in memory (launchFusedFilter).
    bool fused;
};

/// Vectors that are filtered between two selections.
struct ExactStage {
    /// In several filters, where they are no progression, or where there is not
    /// memory for all of their copies.
    std::vector<exact::VectorRows> rows;
    /// QueryState::rank of the cut that is made afterwards.
    int rank;
};

/// How a search by scores is cut: into tiles of queries, and for each of these
/// into stages of vectors. The results do not depend on it.
struct ExactPlan {
    /// Every query is compared with every vector by D.
    bool scanAll;
    /// Copies of all vectors are made at once, [total, copyWidth(d)], and not
    /// of the rows of each filter.
    bool wholeCopies;
    /// Of a tile, at most.
    idx_t queries;
    /// QueryState::capacity.
    int survivors;

    /// The vectors of whose scores the first cuts are made.
    exact::VectorRows sample;
    int sampleRank;
    /// All vectors, each once; none if `scanAll`. Each stage is a sample of the
    /// whole store, so that none has far more neighbours of a query than
    /// another one, also where vectors were added in the order of what they
    /// are, or by turns of several kinds.
    std::vector<ExactStage> stages;
    /// All vectors once more, for queries whose cuts were too small or whose
    /// lists ran over; none where such queries are for the last path at once.
    std::vector<exact::VectorRows> again;
    /// All vectors, for the last path.
    std::vector<exact::VectorRows> chunks;
    /// Of scores and losses: rows begin at whole loads, and where a product
    /// begins best.
    idx_t ld;

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
        size_t widenedCount;
        size_t vectorCopies;
        size_t scores;
    };
    Layout at;
    /// Of the scratch memory.
    size_t bytes;

    /// In one line, for profiles and for people; of `asked`, for which it was
    /// made.
    FAISS_EXT_API std::string text(const ExactShape& asked) const;
};

/// The largest sizes whose scratch memory is within `bytes`; the smallest ones
/// where none is. Pure arithmetic.
FAISS_EXT_API ExactPlan
planExact(const ExactShape& shape, const ExactSizes& most, size_t bytes);

} // namespace gpu
} // namespace faiss_ext
