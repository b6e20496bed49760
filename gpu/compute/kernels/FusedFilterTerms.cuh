#pragma once

#include <cuda_runtime.h>

#include <faiss_ext/gpu/compute/exact/ExactArithmetic.h>

// What the fused filter knows of a query, a vector, and a tile of vectors, and
// how it compares a score: fineValue() and fineThreshold() in another form,
// which never rules out what they let pass.

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace fused {

/// What a query is compared by: those of a warp share `spread`, the largest
/// finePerVector() of any of them, and one addition and one multiplication a
/// score are saved. With S = factor * score, s the start of a vector and N its
/// norm, fineValue() and fineThreshold() say that
///
///     S + s - own N <= T                     (a vector that passes)
/// so  S + (s - spread N) <= T - (spread - own) N <= T - (spread - own) least
///
/// where `least` is not above any N of the tile. The parenthesis on the left
/// is known for a vector and a warp, the right side for a query and a tile.
struct RowTerms {
    float factor;
    float base;
    float perRest;
    float own;
};

/// What is known of a vector: s, not above fineStart(), and N, not below its
/// VectorBounds' norm.
struct ColumnTerms {
    float start;
    float norm;
};

/// And of the vectors of a tile in range.
struct TileTerms {
    /// Not above any norm.
    float least;
    /// Not below any errorRest().
    float rest;
};

/// Added to bounds, as a part of them, for the roundings on the way: those of
/// either side are a few times 2^-24.
constexpr float kSlack = 0x1p-20f;
/// And for those of small numbers.
constexpr float kLeastSlack = 0x1p-140f;

/// Of a query, from its terms and threshold.
__device__ inline RowTerms rowTerms(
        const IndexTerms& index, const QueryTerms& query, float cut) {
    RowTerms terms;
    terms.factor = query.factor;
    const float base = thresholdBase(index, query, cut);
    terms.base = isFinite(base) ? add(multiplyAdd(kSlack, fabsf(base), base),
                                      kLeastSlack)
                                : base;
    terms.perRest = multiply(query.perError, 1 + kSlack);
    terms.own = finePerVector(query);
    return terms;
}

/// Of a query that takes no part: hardly any vector passes.
__device__ inline RowTerms noRowTerms() {
    return {0, -infinity(), 0, 0};
}

__device__ inline float thresholdOf(
        const RowTerms& row, const TileTerms& tile, float spread) {
    const float beyond = multiply(subtract(spread, row.own), 1 - kSlack);
    return multiplyAdd(
            row.perRest, tile.rest, multiplyAdd(-beyond, tile.least, row.base));
}

__device__ inline float startOf(const ColumnTerms& column, float spread) {
    return multiplyAdd(-spread, column.norm, column.start);
}

/// Of a vector. VectorBounds::boundsOf() and errorRest(), in float32 and a
/// little larger.
__device__ inline ColumnTerms columnTerms(
        Metric metric, const VectorTerms& vector, TileTerms& tile) {
    ColumnTerms column;
    column.start =
            multiply(fineStart(exact::startOf(metric, vector)), 1 - kSlack);
    column.norm = 0;
    if (inRange(vector)) {
        // The root is off by 2^-23 of itself at most; the norm of no vector is
        // below the root of the least number.
        float root;
        asm("sqrt.approx.f32 %0, %1;"
            : "=f"(root)
            : "f"(add(vector.square, FLT_MIN)));
        const float sum = add(root, vector.error);
        column.norm = multiply(sum, 1 + kSlack);
        const float less = subtract(multiply(sum, 1 - 4 * kSlack), 0x1p-62f);
        const float norm = less > 0 ? less : 0;
        tile.least = norm < tile.least ? norm : tile.least;
        const float rest = multiplyAddAbove(-kErrorOfNorm, norm, vector.error);
        tile.rest = rest > tile.rest ? rest : tile.rest;
    }
    return column;
}

} // namespace fused
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
