#pragma once

#include <faiss_ext/gpu/compute/exact/Distance.h>

// The float16 copies of vectors and queries that the filter multiplies, and
// what is known of each about its rounding. A copy has the components
// half((y_i - m_i) * 2^scale): m is the index's centre (float32, or none, which
// is zero), the scale one for all of its vectors, and one for each query.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Rows with a larger norm, or a component that is not finite, are compared by
/// D alone: 2^62, so that nothing in the filter's arithmetic, nor an inner
/// product's D beside it, can overflow.
constexpr double kLargestSquare = 0x1p124;

/// Scales are within these, so that the product of two, and of their inverses,
/// is a normal float.
constexpr int kLeastScale = -48;
constexpr int kMostScale = 62;

/// The scale brings the largest component to [2^14, 2^15), which rounding
/// leaves finite.
constexpr int kTopExponent = 14;

/// Where components lie: 2^(bin - 127) <= |value| < 2^(bin - 126); bin 0 has
/// zero and denormal numbers, bin 255 infinity and NaN.
constexpr int kExponentBins = 256;

FAISS_EXT_HOST_DEVICE inline int exponentBin(float value) {
    return bitsOf(value) >> 23 & 0xff;
}

/// The scale of one row, by the bin of its largest component.
FAISS_EXT_HOST_DEVICE inline int scaleOfBin(int bin) {
    if (bin == 0 || bin == kExponentBins - 1) {
        return 0;
    }
    const int scale = kTopExponent - (bin - 127);
    return scale < kLeastScale  ? kLeastScale
           : scale > kMostScale ? kMostScale
                                : scale;
}

/// How many binades the largest row may lie above the median one before it no
/// longer decides: the median row's largest component stays at 2^-11 or above,
/// where float16 is as exact as anywhere for what matters of a row.
constexpr int kScaleSpan = 25;

/// How many binades a row may lie above the median one and still take part in
/// the mean: so little that a few of them move it by no more than the others'
/// own size.
constexpr int kMeanSpan = 4;

/// The last bin in use, but at most `span` above that of the median row, of the
/// counts of rows by the bin of their largest component; rows of zeros and of
/// components that no scale is for do not count. 0 where none does.
FAISS_EXT_HOST_DEVICE inline int lastBinWithin(
        const uint32_t* rowsOfBin, int span) {
    // Components from 2^62 on.
    const int end = 127 + 62;
    uint64_t rows = 0;
    for (int bin = 1; bin < end; ++bin) {
        rows += rowsOfBin[bin];
    }
    int last = 0;
    int median = 0;
    uint64_t seen = 0;
    for (int bin = 1; bin < end; ++bin) {
        if (rowsOfBin[bin]) {
            seen += rowsOfBin[bin];
            last = bin;
            if (median == 0 && 2 * seen >= rows) {
                median = bin;
            }
        }
    }
    return last - median > span ? median + span : last;
}

/// The scale of an index: of its rows but those far above the median (one 1e30
/// among ones).
FAISS_EXT_HOST_DEVICE inline int scaleOfRows(const uint32_t* rowsOfBin) {
    return scaleOfBin(lastBinWithin(rowsOfBin, kScaleSpan));
}

/// The last bin of the rows, as stored, that an index is centred by; the others
/// would pull its centre away from all the rest.
FAISS_EXT_HOST_DEVICE inline int lastMeanBin(const uint32_t* rowsOfBin) {
    return lastBinWithin(rowsOfBin, kMeanSpan);
}

/// Whether a row takes part in the mean; `last` is lastMeanBin().
FAISS_EXT_HOST_DEVICE inline bool inMean(int bin, int last) {
    return bin <= last;
}

/// One component of a copy; `centre` is 0 where there is none, `factor`
/// powerOfTwo(scale).
FAISS_EXT_HOST_DEVICE inline Half halfOf(float y, float centre, float factor) {
    return toHalf(multiply(subtract(y, centre), factor));
}

/// Sums over the components of a row, in double, in any order and in parts.
struct RowSums {
    /// |y - m|^2, and |(y - m) - 2^-scale copy|^2.
    double square = 0;
    double error = 0;
    /// A component of the copy is not finite.
    bool outside = false;

    /// `inverse` is powerOfTwo(-scale).
    FAISS_EXT_HOST_DEVICE void addComponent(
            float y, float centre, Half copy, float inverse) {
        // The product is exact: 11 bits by a power of two.
        const double exact = double(y) - double(centre);
        const double rest = exact - double(toFloat(copy)) * double(inverse);
        square += exact * exact;
        error += rest * rest;
        outside = outside || !isFinite(copy);
    }

    FAISS_EXT_HOST_DEVICE void addPart(const RowSums& part) {
        square += part.square;
        error += part.error;
        outside = outside || part.outside;
    }

    FAISS_EXT_HOST_DEVICE bool inRange() const {
        return !outside && square <= kLargestSquare;
    }

    /// The relative error of either sum: three roundings a component, and those
    /// of the additions, 2^-53 each.
    FAISS_EXT_HOST_DEVICE static double sumError(int d) {
        return (d + 8) * 0x1p-53;
    }

    /// Not above, and not below, |y - m|^2.
    FAISS_EXT_HOST_DEVICE double leastSquare(int d) const {
        return square * (1 - sumError(d));
    }
    FAISS_EXT_HOST_DEVICE double mostSquare(int d) const {
        return square * (1 + sumError(d));
    }

    /// Not below |(y - m) - 2^-scale copy|. Where there is no centre, y - m is
    /// exact, and so is what a row loses; else it was rounded.
    FAISS_EXT_HOST_DEVICE double mostError(int d, bool centred) const {
        double bound = sqrt(error * (1 + sumError(d)));
        if (centred) {
            bound += 0x1p-53 * sqrt(mostSquare(d));
        }
        return bound * (1 + 0x1p-50);
    }
};

/// What an index keeps of each vector: 8 bytes.
struct VectorTerms {
    /// |y - m|^2, not above it; -infinity for a row out of range, which makes
    /// every filter let it pass.
    float square;
    /// |dy| = |(y - m) - 2^-scale copy|, not below it.
    float error;
};

FAISS_EXT_HOST_DEVICE inline VectorTerms vectorTerms(
        const RowSums& sums, int d, bool centred) {
    VectorTerms terms;
    if (sums.inRange()) {
        terms.square = floatBelow(sums.leastSquare(d));
        terms.error = floatAbove(sums.mostError(d, centred));
    } else {
        terms.square = -infinity();
        terms.error = 0;
    }
    return terms;
}

/// Whether a vector is in range.
FAISS_EXT_HOST_DEVICE inline bool inRange(const VectorTerms& terms) {
    return terms.square >= 0;
}

/// Bounds for all vectors of a set that are in range; begins as that of none.
struct VectorBounds {
    /// Of |y - m| and of the norm of its copy, times 2^-scale.
    float norm = 0;
    /// Of |dy|.
    float error = 0;

    FAISS_EXT_HOST_DEVICE void addVector(const VectorTerms& terms) {
        if (inRange(terms)) {
            addBounds(boundsOf(terms));
        }
    }

    FAISS_EXT_HOST_DEVICE void addBounds(const VectorBounds& other) {
        norm = other.norm > norm ? other.norm : norm;
        error = other.error > error ? other.error : error;
    }

    /// Those of one vector in range; or of many, of the largest square and the
    /// largest error among them.
    FAISS_EXT_HOST_DEVICE static VectorBounds boundsOf(
            const VectorTerms& terms) {
        VectorBounds bounds;
        bounds.error = terms.error;
        // The square was rounded down by less than one float, and the double
        // before it by less than 2^-31; the root is rounded once more.
        const double square = double(nextUp(terms.square)) * (1 + 0x1p-31);
        const double norm = sqrt(square) + double(terms.error);
        bounds.norm = floatAbove(norm * (1 + 0x1p-50));
        return bounds;
    }
};

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
