#pragma once

#include <faiss_ext/gpu/compute/exact/HalfRows.h>
#include <faiss_ext/gpu/compute/exact/Order.h>
#include <faiss_ext/gpu/compute/exact/TensorArithmetic.h>

// Which scores rule a vector out. docs/exact-search.md derives each term.
//
// With a the query (for L2 less the centre), b the vector less the centre, and
// x', y' their copies, all in the units of the vectors, the filter knows
//
//     value = start + factor * score,    score = x' . y' of the tensor cores,
//
// where start is |b|^2, rounded down, for L2, and 0 for the inner product, and
// factor minus twice, or once, 2^-(scales). The loss of a vector without any
// rounding is value + |a|^2, or value - x . m, and lies within
//
//     spread = perNorm * |y'| + perError * |dy|
//
// of that, so loss and value bound each other.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// What a margin is made of, each term as it must be. Tests put smaller factors
/// in their place, and see vectors lost. Nothing else has another one.
struct FullMargin {
    static constexpr double queryRounding = 1;  // |dx| |y'|
    static constexpr double vectorRounding = 1; // |a| |dy|
    static constexpr double accumulation = 1;   // of tensor cores
    static constexpr double twice = 1;          // L2: of 2 a . b, not of a . b
    static constexpr double distance = 1;       // of D, relative
    static constexpr double centreDistance = 1; // of D, by |x| |m|
    static constexpr double underflow = 1;      // of D, absolute
    static constexpr double centreDot = 1;      // of x . m
};

/// What is the same for all queries of an index.
struct IndexTerms {
    Metric metric;
    int d;
    /// Of the vectors' copies.
    int scale;
    /// Whether there is a centre, and a bound of its norm: centreNorm().
    bool centred;
    double centre;
    /// Of the scores, as a part of |x'| |y'|.
    double accumulation;
    DistanceError distance;
};

/// Not below the norm of a centre, of its squares' sum in double.
FAISS_EXT_HOST_DEVICE inline double centreNorm(double squares, int d) {
    return sqrt(squares * (1 + RowSums::sumError(d))) * (1 + 0x1p-50);
}

/// A centre of a larger norm than 2^62 must not be used; nor, to no purpose,
/// any where the vectors are float16 numbers already.
FAISS_EXT_HOST_DEVICE inline IndexTerms indexTerms(
        Metric metric,
        int d,
        int scale,
        bool centred,
        double centreNorm,
        const TensorArithmetic& arithmetic) {
    IndexTerms index;
    index.metric = metric;
    index.d = d;
    index.scale = scale;
    index.centred = centred;
    index.centre = centred ? centreNorm : 0;
    index.accumulation = accumulationError(arithmetic, d);
    index.distance = distanceError(metric, d);
    return index;
}

/// Sums over the components of a query, in double, in any order and in parts.
struct QuerySums {
    RowSums row;
    /// x . m
    double dot = 0;

    /// A query's copy is centred for L2 alone: halfOf(x, queryCentre(...),
    /// ...).
    FAISS_EXT_HOST_DEVICE static float queryCentre(
            Metric metric, float centre) {
        return metric == Metric::L2 ? centre : 0.0f;
    }

    FAISS_EXT_HOST_DEVICE void addComponent(
            Metric metric, float x, float centre, Half copy, float inverse) {
        row.addComponent(x, queryCentre(metric, centre), copy, inverse);
        dot += double(x) * double(centre);
    }

    FAISS_EXT_HOST_DEVICE void addPart(const QuerySums& part) {
        row.addPart(part.row);
        dot += part.dot;
    }
};

/// What a search keeps of each query.
struct QueryTerms {
    /// loss - value lies between these, but for the spread and D's own error.
    double low;
    double high;
    /// The spread.
    float perNorm;
    float perError;
    /// value = factor * score + start; negative.
    float factor;
    /// False: a query out of range, whose values mean nothing. Its spread is
    /// infinite, so that everything passes, and it is for the last path.
    bool inRange;
};

template <typename Margin = FullMargin>
FAISS_EXT_HOST_DEVICE inline QueryTerms queryTerms(
        const IndexTerms& index, const QuerySums& sums, int queryScale) {
    QueryTerms query;
    query.inRange = sums.row.inRange();
    if (!query.inRange) {
        query.low = query.high = 0;
        query.perNorm = query.perError = infinity();
        query.factor = 0;
        return query;
    }
    const bool l2 = index.metric == Metric::L2;
    const double norm = sqrt(sums.row.mostSquare(index.d)) * (1 + 0x1p-50);
    const double error = sums.row.mostError(index.d, l2 && index.centred);

    // |a . b - x' . y'| <= |dx| |y'| + |a| |dy|, and the scores' error.
    double perNorm = 0;
    double perError = 0;
    perNorm += Margin::queryRounding * error;
    perError += Margin::vectorRounding * norm;
    perNorm += Margin::accumulation * index.accumulation * (norm + error);
    if (l2) {
        perNorm *= 1 + Margin::twice;
        perError *= 1 + Margin::twice;
        query.low = sums.row.leastSquare(index.d);
        query.high = sums.row.mostSquare(index.d);
    } else {
        // D is off by a part of |x| |y|, and |y| <= |b| + |m|.
        perNorm += Margin::distance * index.distance.relative * norm;
        const double product = norm * index.centre;
        double apart = 0;
        apart += Margin::centreDistance * index.distance.relative * product;
        // What is added for the sum in double is a little more than that can
        // be off by, and covers the operations here, too.
        apart += Margin::centreDot * RowSums::sumError(index.d) * product;
        apart += Margin::underflow * index.distance.absolute;
        query.low = -sums.dot - apart;
        query.high = -sums.dot + apart;
    }
    query.perNorm = floatAbove(perNorm * (1 + 0x1p-48));
    query.perError = floatAbove(perError * (1 + 0x1p-48));
    query.factor = -powerOfTwo((l2 ? 1 : 0) - index.scale - queryScale);
    return query;
}

/// Where a vector's value begins.
FAISS_EXT_HOST_DEVICE inline float startOf(
        Metric metric, const VectorTerms& vector) {
    return metric == Metric::L2 ? vector.square
           : inRange(vector)    ? 0.0f
                                : vector.square;
}

FAISS_EXT_HOST_DEVICE inline float valueOf(
        float score, float factor, float start) {
    return multiplyAdd(score, factor, start);
}

/// A query's threshold but for the vectors' part, the spread, of a cut: every
/// vector whose loss is at most `cut` is to pass. A cut of missingLoss() or
/// more, or NaN, lets everything pass.
template <typename Margin = FullMargin>
FAISS_EXT_HOST_DEVICE inline float thresholdBase(
        const IndexTerms& index, const QueryTerms& query, float cut) {
    if (!(cut < missingLoss())) {
        return infinity();
    }
    if (cut < -FLT_MAX) {
        // An infinite inner product, which only rows out of range have.
        return cut;
    }
    // D <= cut of a vector allows an exact loss of up to `reach`.
    double reach = cut;
    if (index.metric == Metric::L2) {
        // reach (1 - relative) - absolute <= cut
        reach += Margin::underflow * index.distance.absolute;
        reach /= 1 - Margin::distance * index.distance.relative;
    }
    double base = reach - query.low;
    base += 0x1p-50 * (fabs(reach) + fabs(query.low));
    return floatAbove(base);
}

/// Whether a vector may be among those whose loss is at most the cut. If not,
/// its loss is above it. (Written so that NaN passes.)
FAISS_EXT_HOST_DEVICE inline bool passes(float value, float threshold) {
    return !(value > threshold);
}

// A finer filter, for tiles of vectors whose norms differ much: every vector
// has the spread of its own norm, for one more multiply-add a score. Here
//
//     value = start + factor * score - perVector * norm
//
// is compared with fineThreshold(), norm being that of the vector's own
// VectorBounds, and start fineStart(startOf()).

/// What of |dy| goes with the norm: about what rows of ordinary components
/// lose.
constexpr float kErrorOfNorm = 0x1p-12f;

/// The rest of it, of one vector; fineThreshold() takes the largest of a set.
FAISS_EXT_HOST_DEVICE inline float errorRest(const VectorBounds& vector) {
    const double rest =
            double(vector.error) - double(kErrorOfNorm) * vector.norm;
    return rest > 0 ? floatAbove(rest * (1 + 0x1p-50)) : 0.0f;
}

/// A little less than the start, as finePerVector() is a little more than the
/// spread: by more than the rounding of their difference.
FAISS_EXT_HOST_DEVICE inline float fineStart(float start) {
    return multiply(start, 1 - 0x1p-22f);
}

FAISS_EXT_HOST_DEVICE inline float finePerVector(const QueryTerms& query) {
    double perVector = query.perNorm;
    perVector += double(query.perError) * kErrorOfNorm;
    perVector += 0x1p-22 * perVector;
    return floatAbove(perVector);
}

FAISS_EXT_HOST_DEVICE inline float fineValue(
        float score, float factor, float perVector, float norm, float start) {
    return multiplyAdd(score, factor, multiplyAdd(-perVector, norm, start));
}

/// `base` is thresholdBase().
FAISS_EXT_HOST_DEVICE inline float fineThreshold(
        const QueryTerms& query, float base, float errorRest) {
    return multiplyAddAbove(query.perError, errorRest, base);
}

/// Not below the loss of a vector, in range and within `vectors`, of this
/// value: of k vectors the largest of these is a cut that k vectors meet.
template <typename Margin = FullMargin>
FAISS_EXT_HOST_DEVICE inline float mostLoss(
        const IndexTerms& index,
        const QueryTerms& query,
        float value,
        const VectorBounds& vectors) {
    if (!query.inRange || !isFinite(value)) {
        return infinity();
    }
    // The value was rounded, and so was the square that it began with.
    double bound = nextUp(value);
    double spread = double(query.perNorm) * vectors.norm +
                    double(query.perError) * vectors.error;
    if (index.metric == Metric::L2) {
        spread += 0x1p-22 * double(vectors.norm) * vectors.norm + 0x1p-148;
    }
    const double summed = fabs(bound) + fabs(query.high) + spread;
    bound += query.high;
    bound += spread;
    if (index.metric == Metric::L2) {
        bound = bound > 0 ? bound : 0;
        bound *= 1 + Margin::distance * index.distance.relative;
        bound += Margin::underflow * index.distance.absolute;
    }
    bound += 0x1p-48 * summed;
    return floatAbove(bound);
}

/// Whether it is proven that no vector that a filter did not let pass can be
/// among the k nearest, ties and their labels included.
///
/// `kth` is the k-th smallest loss, by D, of the vectors that passed, or
/// missingLoss() where fewer than k of them have one; `cut` the least of the
/// cuts whose thresholds they passed. Every vector of the store must have been
/// compared with such a threshold, or be counted as one that passed; and the
/// list of those that passed must be whole. Then the k smallest result keys of
/// that list are the k smallest of the store.
FAISS_EXT_HOST_DEVICE inline bool certified(float kth, float cut) {
    return kth <= cut || !(cut < missingLoss());
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
