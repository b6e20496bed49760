#pragma once

// The exact search's filter as plain loops, of the functions that its kernels
// are made of.

#include <faiss_ext/gpu/compute/exact/ExactArithmetic.h>

#include <cstdint>
#include <vector>

#include "support/TensorCoreModel.h"

namespace test {

using exact::Half;
using exact::IndexTerms;
using exact::Metric;
using exact::QueryTerms;
using exact::TensorArithmetic;
using exact::VectorBounds;
using exact::VectorTerms;

/// Vectors [nb, d], float32 or float16.
struct Store {
    Metric metric;
    int d;
    std::vector<float> rows;
    std::vector<Half> halves;

    int64_t size() const {
        return int64_t(rows.size() + halves.size()) / d;
    }
    float at(int64_t row, int i) const {
        return halves.empty() ? rows[row * d + i]
                              : exact::toFloat(halves[row * d + i]);
    }

    /// D.
    float distance(const float* x, int64_t row) const {
        return halves.empty() ? distanceOf(x, rows.data() + row * d)
                              : distanceOf(x, halves.data() + row * d);
    }

   private:
    template <typename Stored>
    float distanceOf(const float* x, const Stored* y) const {
        return metric == Metric::L2
                       ? exact::distance<Metric::L2>(x, y, d)
                       : exact::distance<Metric::InnerProduct>(x, y, d);
    }
};

/// A store with what the filter keeps of it.
struct FilterIndex {
    FilterIndex(const Store& given, const TensorArithmetic& arithmetic)
            : store(given), centre(given.d) {
        const int64_t nb = store.size();
        std::vector<uint32_t> bins(exact::kExponentBins);
        const bool halves = countRows(bins) || !store.halves.empty();
        const bool centred =
                !halves && findCentre(exact::lastMeanBin(bins.data()));
        if (centred) {
            bins.assign(exact::kExponentBins, 0);
            countRows(bins);
        }
        const int scale = halves ? 0 : exact::scaleOfRows(bins.data());
        double squares = 0;
        for (float m : centre) {
            squares += double(m) * m;
        }
        terms = exact::indexTerms(
                store.metric,
                store.d,
                scale,
                centred,
                exact::centreNorm(squares, store.d),
                arithmetic);
        for (int64_t row = 0; row < nb; ++row) {
            exact::RowSums sums;
            for (int i = 0; i < store.d; ++i) {
                copies.push_back(exact::halfOf(
                        store.at(row, i), centre[i], exact::powerOfTwo(scale)));
                sums.addComponent(
                        store.at(row, i),
                        centre[i],
                        copies.back(),
                        exact::powerOfTwo(-scale));
            }
            vectors.push_back(exact::vectorTerms(sums, store.d, centred));
        }
    }

    const Half* copy(int64_t row) const {
        return copies.data() + row * store.d;
    }

    Store store;
    std::vector<float> centre;
    IndexTerms terms;
    std::vector<Half> copies;
    std::vector<VectorTerms> vectors;

   private:
    /// Rows by the bin of their largest component; whether all components are
    /// halves.
    bool countRows(std::vector<uint32_t>& bins) const {
        bool halves = true;
        for (int64_t row = 0; row < store.size(); ++row) {
            int largest = 0;
            for (int i = 0; i < store.d; ++i) {
                const float y = store.at(row, i);
                halves = halves && exact::toFloat(exact::toHalf(y)) == y;
                largest = std::max(
                        largest,
                        exact::exponentBin(exact::subtract(y, centre[i])));
            }
            ++bins[largest];
        }
        return halves;
    }

    bool findCentre(int last) {
        std::vector<double> sums(store.d);
        int64_t rows = 0;
        for (int64_t row = 0; row < store.size(); ++row) {
            int largest = 0;
            for (int i = 0; i < store.d; ++i) {
                largest =
                        std::max(largest, exact::exponentBin(store.at(row, i)));
            }
            if (exact::inMean(largest, last)) {
                ++rows;
                for (int i = 0; i < store.d; ++i) {
                    sums[i] += store.at(row, i);
                }
            }
        }
        double squares = 0;
        for (int i = 0; rows && i < store.d; ++i) {
            centre[i] = float(sums[i] / double(rows));
            squares += double(centre[i]) * centre[i];
        }
        if (rows && exact::centreNorm(squares, store.d) <= 0x1p62) {
            return true;
        }
        centre.assign(store.d, 0);
        return false;
    }
};

/// The threshold for any of a set of vectors, of thresholdBase(): the filter of
/// one multiply-add less that the finer one is held against.
inline float thresholdOver(
        const QueryTerms& query, float base, const VectorBounds& vectors) {
    const float part =
            exact::multiplyAddAbove(query.perNorm, vectors.norm, base);
    return exact::multiplyAddAbove(query.perError, vectors.error, part);
}

/// A query with what the filter keeps of it. `Margin` may be a weakened one.
template <typename Margin = exact::FullMargin>
struct FilterQuery {
    FilterQuery(const FilterIndex& index, const float* given)
            : x(given, given + index.store.d) {
        const Metric metric = index.terms.metric;
        int largest = 0;
        for (int i = 0; i < index.store.d; ++i) {
            largest = std::max(
                    largest,
                    exact::exponentBin(exact::subtract(
                            x[i],
                            exact::QuerySums::queryCentre(
                                    metric, index.centre[i]))));
        }
        scale = exact::scaleOfBin(largest);
        exact::QuerySums sums;
        for (int i = 0; i < index.store.d; ++i) {
            copy.push_back(exact::halfOf(
                    x[i],
                    exact::QuerySums::queryCentre(metric, index.centre[i]),
                    exact::powerOfTwo(scale)));
            sums.addComponent(
                    metric,
                    x[i],
                    index.centre[i],
                    copy.back(),
                    exact::powerOfTwo(-scale));
        }
        terms = exact::queryTerms<Margin>(index.terms, sums, scale);
    }

    float value(const FilterIndex& index, int64_t row, float score) const {
        return exact::valueOf(
                score,
                terms.factor,
                exact::startOf(index.terms.metric, index.vectors[row]));
    }

    /// Whether a row passes for a cut, as one of a set of vectors.
    bool passes(
            const FilterIndex& index,
            int64_t row,
            float score,
            float cut,
            const VectorBounds& bounds) const {
        return exact::passes(
                value(index, row, score),
                thresholdOver(
                        terms,
                        exact::thresholdBase<Margin>(index.terms, terms, cut),
                        bounds));
    }

    /// The same by the finer filter, as one of vectors with at most this rest
    /// of the error.
    bool passesFine(
            const FilterIndex& index,
            int64_t row,
            float score,
            float cut,
            float errorRest) const {
        const VectorTerms& vector = index.vectors[row];
        const float norm = exact::inRange(vector)
                                   ? VectorBounds::boundsOf(vector).norm
                                   : 0;
        return exact::passes(
                exact::fineValue(
                        score,
                        terms.factor,
                        exact::finePerVector(terms),
                        norm,
                        exact::fineStart(
                                exact::startOf(index.terms.metric, vector))),
                exact::fineThreshold(
                        terms,
                        exact::thresholdBase<Margin>(index.terms, terms, cut),
                        errorRest));
    }

    std::vector<float> x;
    std::vector<Half> copy;
    int scale;
    QueryTerms terms;
};

/// How scores are computed.
enum class Scores {
    Hopper,
    HopperSplit,
    Ampere,
    TooLow,
    TooHigh,
};

constexpr Scores kAllScores[] = {
        Scores::Hopper,
        Scores::HopperSplit,
        Scores::Ampere,
        Scores::TooLow,
        Scores::TooHigh,
};

inline bool finite(const Half* row, int d) {
    return std::all_of(
            row, row + d, [](Half half) { return exact::isFinite(half); });
}

inline float scoreOf(
        Scores scores, const Half* a, const Half* b, int d, double bound) {
    if (!finite(a, d) || !finite(b, d)) {
        // What comes of infinity and NaN is the same in any order.
        float sum = 0;
        for (int i = 0; i < d; ++i) {
            sum += exact::toFloat(a[i]) * exact::toFloat(b[i]);
        }
        return sum;
    }
    switch (scores) {
        case Scores::Hopper:
            return tensorDot(exact::hopperArithmetic(), a, b, d, 1);
        case Scores::HopperSplit:
            return tensorDot(exact::hopperArithmetic(), a, b, d, (d + 31) / 32);
        case Scores::Ampere:
            return tensorDot(exact::ampereArithmetic(), a, b, d, 1);
        default:
            return adversarialDot(bound, a, b, d, scores == Scores::TooHigh);
    }
}

} // namespace test
