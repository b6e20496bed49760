// The margin: no vector that may be among the nearest is ruled out, whatever
// the scores and D are within their bounds; and each of its terms is needed.

#include <faiss_ext/gpu/compute/exact/Margin.h>

#include <gtest/gtest.h>

#include "support/ExactCases.h"
#include "support/ExactTruth.h"

namespace {

using faiss_ext::gpu::exact::Half;
using faiss_ext::gpu::exact::Metric;
using faiss_ext::gpu::exact::VectorBounds;
using test::ExactCase;
using test::FilterIndex;
using test::FilterQuery;
using test::Quad;
using test::Scores;
using test::Store;
using test::Truth;

namespace exact = faiss_ext::gpu::exact;

constexpr Metric kMetrics[] = {Metric::L2, Metric::InnerProduct};

VectorBounds boundsOf(const FilterIndex& index, int64_t begin, int64_t end) {
    VectorBounds bounds;
    for (int64_t row = begin; row < end; ++row) {
        bounds.addVector(index.vectors[row]);
    }
    return bounds;
}

template <typename Margin>
float score(
        const FilterIndex& index,
        const FilterQuery<Margin>& query,
        int64_t row,
        Scores scores) {
    return test::scoreOf(
            scores,
            query.copy.data(),
            index.copy(row),
            index.store.d,
            index.terms.accumulation);
}

/// What is found wrong with the margin for pairs of a query and a vector.
struct Wrong {
    int64_t pairs = 0;
    /// Ruled out, though the cut is its own D, or one that D's error allows.
    int64_t lostByD = 0;
    int64_t lostByBound = 0;
    /// Ruled out by the finer filter.
    int64_t lostFinely = 0;
    /// mostLoss() is below its own D, or below one that D's error allows.
    int64_t belowD = 0;
    int64_t belowBound = 0;

    int64_t all() const {
        return lostByD + lostByBound + lostFinely + belowD + belowBound;
    }
};

/// Each vector as the only one of its set, for each query.
template <typename Margin>
Wrong check(const FilterIndex& index, const ExactCase& data, Scores scores) {
    Wrong wrong;
    const Metric metric = index.terms.metric;
    for (int64_t i = 0; i < data.n(); ++i) {
        const FilterQuery<Margin> query(index, data.query(i));
        for (int64_t row = 0; row < index.store.size(); ++row) {
            ++wrong.pairs;
            const VectorBounds bounds = boundsOf(index, row, row + 1);
            const float s = score(index, query, row, scores);
            const float loss = exact::lossOf(
                    metric, index.store.distance(query.x.data(), row));
            const bool found = loss < exact::missingLoss();
            wrong.lostByD +=
                    found && !query.passes(index, row, s, loss, bounds);
            if (!query.terms.inRange || !exact::inRange(index.vectors[row])) {
                // Never ruled out, by any cut.
                wrong.lostByD += !query.passes(
                        index, row, s, -exact::infinity(), bounds);
                wrong.lostFinely +=
                        !query.passesFine(index, row, s, -exact::infinity(), 0);
                continue;
            }
            const float rest = exact::errorRest(bounds);
            wrong.lostFinely +=
                    found && !query.passesFine(index, row, s, loss, rest);
            const Truth truth(index.store, query.x.data(), row);
            const float least = test::roundedUp(truth.least);
            wrong.lostByBound += !query.passes(index, row, s, least, bounds);
            wrong.lostFinely += !query.passesFine(index, row, s, least, rest);
            const float most = exact::mostLoss<Margin>(
                    index.terms,
                    query.terms,
                    query.value(index, row, s),
                    bounds);
            wrong.belowD += most < loss;
            wrong.belowBound += most < test::roundedDown(truth.most);
        }
    }
    return wrong;
}

class MarginOfDimension : public testing::TestWithParam<int> {};

TEST_P(MarginOfDimension, loses_no_vector_whatever_the_scores_are) {
    const int d = GetParam();
    const int nb = d > 1000 ? 4 : d > 500 ? 8 : 20, n = d > 500 ? 3 : 5;
    int64_t pairs = 0;
    for (const ExactCase& data : test::exactCases(d, nb, n, 4)) {
        for (Metric metric : kMetrics) {
            for (bool half : {false, true}) {
                const FilterIndex index(
                        data.store(metric, half), exact::hopperArithmetic());
                for (Scores scores : test::kAllScores) {
                    const Wrong wrong =
                            check<exact::FullMargin>(index, data, scores);
                    pairs += wrong.pairs;
                    EXPECT_EQ(wrong.all(), 0)
                            << data.name << (half ? ", float16" : "")
                            << (metric == Metric::L2 ? ", L2" : ", product")
                            << ", scores " << int(scores) << ": "
                            << wrong.lostByD << " " << wrong.lostByBound << " "
                            << wrong.lostFinely << " " << wrong.belowD << " "
                            << wrong.belowBound;
                }
            }
        }
    }
    EXPECT_GT(pairs, 1000);
}

INSTANTIATE_TEST_SUITE_P(
        Dimensions,
        MarginOfDimension,
        testing::Values(
                1, 2, 3, 7, 15, 16, 17, 31, 64, 100, 128, 129, 768, 4096));

/// As a tile: the bounds of many make no vector pass that would not alone, nor
/// the other way round.
TEST(ExactMargin, bounds_of_more_vectors_only_let_more_pass) {
    for (const ExactCase& data : test::exactCases(16, 30, 5, 5)) {
        for (Metric metric : kMetrics) {
            const FilterIndex index(
                    data.store(metric, false), exact::hopperArithmetic());
            const VectorBounds all = boundsOf(index, 0, index.store.size());
            for (int64_t i = 0; i < data.n(); ++i) {
                const FilterQuery<> query(index, data.query(i));
                for (int64_t row = 0; row < index.store.size(); ++row) {
                    const float s = score(index, query, row, Scores::TooLow);
                    const VectorBounds own = boundsOf(index, row, row + 1);
                    const float cut = exact::lossOf(
                            metric, index.store.distance(query.x.data(), row));
                    EXPECT_TRUE(query.passes(index, row, s, cut, all))
                            << data.name;
                    const float lower = cut - std::fabs(cut) / 8;
                    EXPECT_LE(
                            query.passes(index, row, s, lower, own),
                            query.passes(index, row, s, lower, all));
                }
            }
        }
    }
}

TEST(ExactMargin, rules_out_most_vectors_that_are_far_away) {
    // Else nothing would be gained: of ordinary data all but the nearest few.
    for (const ExactCase& data : test::exactCases(128, 500, 5, 6)) {
        if (data.name != "normal" && data.name != "uniform" &&
            data.name != "bytes") {
            continue;
        }
        for (Metric metric : kMetrics) {
            const FilterIndex index(
                    data.store(metric, false), exact::hopperArithmetic());
            const VectorBounds all = boundsOf(index, 0, index.store.size());
            int64_t passed = 0;
            for (int64_t i = 0; i < data.n(); ++i) {
                const FilterQuery<> query(index, data.query(i));
                std::vector<float> losses;
                for (int64_t row = 0; row < index.store.size(); ++row) {
                    losses.push_back(exact::lossOf(
                            metric, index.store.distance(query.x.data(), row)));
                }
                std::sort(losses.begin(), losses.end());
                for (int64_t row = 0; row < index.store.size(); ++row) {
                    passed += query.passes(
                            index,
                            row,
                            score(index, query, row, Scores::Hopper),
                            losses[9],
                            all);
                }
            }
            EXPECT_GE(passed, 10 * data.n());
            EXPECT_LE(passed, 12 * data.n()) << data.name;
        }
    }
}

TEST(ExactMargin, where_norms_differ_the_finer_filter_lets_fewer_pass) {
    std::mt19937 random(6);
    std::normal_distribution<float> normal;
    const ExactCase data =
            test::makeCase("norms", 32, 500, 5, [&](int64_t row, int) {
                return std::ldexp(normal(random), int(row % 11));
            });
    const FilterIndex index(
            data.store(Metric::L2, false), exact::hopperArithmetic());
    const VectorBounds all = boundsOf(index, 0, index.store.size());
    float rest = 0;
    for (int64_t row = 0; row < index.store.size(); ++row) {
        rest = std::max(rest, exact::errorRest(boundsOf(index, row, row + 1)));
    }
    int64_t passed = 0, finely = 0;
    for (int64_t i = 0; i < data.n(); ++i) {
        const FilterQuery<> query(index, data.query(i));
        // That of a vector of small norm.
        const float cut = index.store.distance(query.x.data(), 0);
        for (int64_t row = 0; row < index.store.size(); ++row) {
            if (index.store.distance(query.x.data(), row) > cut) {
                const float s = score(index, query, row, Scores::Hopper);
                passed += query.passes(index, row, s, cut, all);
                finely += query.passesFine(index, row, s, cut, rest);
            }
        }
    }
    EXPECT_GT(finely, 0);
    EXPECT_LT(3 * finely, passed);
}

TEST(ExactMargin, a_set_has_the_bounds_of_its_largest_square_and_error) {
    for (const ExactCase& data : test::exactCases(16, 30, 1, 5)) {
        const FilterIndex index(
                data.store(Metric::L2, false), exact::hopperArithmetic());
        const VectorBounds all = boundsOf(index, 0, index.store.size());
        test::VectorTerms largest{0, 0};
        for (const test::VectorTerms& vector : index.vectors) {
            largest.square = std::max(largest.square, vector.square);
            largest.error = std::max(largest.error, vector.error);
        }
        const VectorBounds bounds = VectorBounds::boundsOf(largest);
        EXPECT_GE(bounds.norm, all.norm) << data.name;
        EXPECT_GE(bounds.error, all.error) << data.name;
    }
}

TEST(ExactMargin, what_cannot_be_judged_passes) {
    const float inf = exact::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(exact::passes(1, 1));
    EXPECT_FALSE(exact::passes(exact::nextUp(1), 1));
    EXPECT_TRUE(exact::passes(nan, 1));
    EXPECT_TRUE(exact::passes(inf, nan));
    EXPECT_TRUE(exact::passes(-inf, -FLT_MAX));
    // A row out of range, whatever its score.
    for (Metric metric : kMetrics) {
        const float start = exact::startOf(metric, {-inf, 0});
        for (float score : {0.0f, 1e30f, -1e30f, inf, -inf, nan}) {
            EXPECT_TRUE(exact::passes(
                    exact::valueOf(score, -0x1p-20f, start), -FLT_MAX));
        }
    }
    EXPECT_EQ(exact::startOf(Metric::L2, {3, 0}), 3);
    EXPECT_EQ(exact::startOf(Metric::InnerProduct, {3, 0}), 0);
}

TEST(ExactMargin, no_vector_in_range_has_an_infinite_inner_product) {
    const ExactCase data = test::exactCases(8, 4, 2, 7)[0];
    const FilterIndex index(
            data.store(Metric::InnerProduct, false), exact::hopperArithmetic());
    const FilterQuery<> query(index, data.query(0));
    EXPECT_FALSE(query.passes(
            index, 0, 1e30f, -exact::infinity(), boundsOf(index, 0, 1)));
}

TEST(ExactMargin, without_a_cut_everything_passes) {
    const ExactCase data = test::exactCases(8, 4, 2, 7)[0];
    for (Metric metric : kMetrics) {
        const FilterIndex index(
                data.store(metric, false), exact::hopperArithmetic());
        const FilterQuery<> query(index, data.query(0));
        for (float cut :
             {exact::missingLoss(),
              exact::infinity(),
              std::numeric_limits<float>::quiet_NaN()}) {
            EXPECT_TRUE(
                    query.passes(index, 0, -1e30f, cut, boundsOf(index, 0, 1)));
            EXPECT_TRUE(query.passes(
                    index, 0, -exact::infinity(), cut, boundsOf(index, 0, 1)));
        }
    }
}

TEST(ExactMargin, queries_out_of_range_are_for_the_last_path) {
    const ExactCase data = test::exactCases(4, 6, 1, 8)[0];
    for (float odd :
         {1e30f, exact::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        for (Metric metric : kMetrics) {
            const FilterIndex index(
                    data.store(metric, false), exact::hopperArithmetic());
            const float x[] = {1, odd, 2, 3};
            const FilterQuery<> query(index, x);
            EXPECT_FALSE(query.terms.inRange);
            EXPECT_TRUE(query.passes(
                    index, 0, exact::infinity(), 0, boundsOf(index, 0, 1)));
            EXPECT_EQ(
                    exact::mostLoss(
                            index.terms, query.terms, 0, boundsOf(index, 0, 1)),
                    exact::infinity());
        }
    }
}

/// A margin whose terms tests make smaller.
struct Weakened {
    inline static double queryRounding = 1;
    inline static double vectorRounding = 1;
    inline static double accumulation = 1;
    inline static double twice = 1;
    inline static double distance = 1;
    inline static double centreDistance = 1;
    inline static double underflow = 1;
    inline static double centreDot = 1;
};

struct Weakening {
    const char* term;
    double* factor;
    Metric metric;
    /// Whose copies are exact, so that other terms do not stand in for it.
    bool halfStore;
};

void PrintTo(const Weakening& weakening, std::ostream* out) {
    *out << weakening.term;
}

class WeakenedTerm : public testing::TestWithParam<Weakening> {
   protected:
    ~WeakenedTerm() override {
        *GetParam().factor = 1;
    }

    /// Of vectors, whose dimensions are few enough for the term to count.
    Wrong wrongWith(double factor) {
        *GetParam().factor = factor;
        Wrong wrong;
        for (int d : {1, 16, 128}) {
            auto cases = test::exactCases(d, 20, 5, 4);
            cases.push_back(vectorsAtTheCentre(d));
            for (const ExactCase& data : cases) {
                const FilterIndex index(
                        data.store(GetParam().metric, GetParam().halfStore),
                        exact::hopperArithmetic());
                for (Scores scores : {Scores::TooLow, Scores::TooHigh}) {
                    const Wrong one = check<Weakened>(index, data, scores);
                    wrong.lostByD += one.lostByD;
                    wrong.lostByBound += one.lostByBound;
                    wrong.lostFinely += one.lostFinely;
                    wrong.belowD += one.belowD;
                    wrong.belowBound += one.belowBound;
                }
            }
        }
        return wrong;
    }

   private:
    /// Of which the copies are zero.
    static ExactCase vectorsAtTheCentre(int d) {
        return test::makeCase("at the centre", d, 3, 5, [](int64_t row, int i) {
            return row < 3 ? 1 + 0x1p-20f * float(i + 1)
                           : 1 + 0x1p-3f * float(row + i % 3);
        });
    }
};

TEST_P(WeakenedTerm, without_the_term_vectors_are_lost) {
    EXPECT_EQ(wrongWith(1).all(), 0);
    const Wrong wrong = wrongWith(0);
    EXPECT_GT(wrong.lostByD + wrong.lostByBound, 0);
    EXPECT_GT(wrong.belowD + wrong.belowBound, 0);
}

TEST_P(WeakenedTerm, with_half_of_the_term_vectors_are_lost) {
    const Wrong wrong = wrongWith(0.5);
    EXPECT_GT(wrong.lostByD + wrong.lostByBound, 0);
    EXPECT_GT(wrong.belowD + wrong.belowBound, 0);
}

/// No adversary: with scores as tensor cores make them, and D as it is.
TEST(WeakenedMargin, measured_scores_need_the_accumulation) {
    // Beside 1 the square of every other component is cut off.
    const ExactCase data =
            test::makeCase("cut off", 256, 2, 1, [](int64_t, int i) {
                return i ? 0x1.68p-13f : 1.0f;
            });
    for (Metric metric : kMetrics) {
        const FilterIndex index(
                data.store(metric, true), exact::hopperArithmetic());
        for (Scores scores : {Scores::Hopper, Scores::Ampere}) {
            EXPECT_EQ(check<Weakened>(index, data, scores).all(), 0);
            Weakened::accumulation = 0;
            const Wrong wrong = check<Weakened>(index, data, scores);
            Weakened::accumulation = 1;
            EXPECT_EQ(wrong.lostByD, 2);
        }
    }
}

constexpr Metric kL2 = Metric::L2, kProduct = Metric::InnerProduct;

INSTANTIATE_TEST_SUITE_P(
        Terms,
        WeakenedTerm,
        testing::Values(
                Weakening{
                        "query_rounding_L2",
                        &Weakened::queryRounding,
                        kL2,
                        true},
                Weakening{
                        "query_rounding_product",
                        &Weakened::queryRounding,
                        kProduct,
                        true},
                Weakening{
                        "vector_rounding_L2",
                        &Weakened::vectorRounding,
                        kL2,
                        false},
                Weakening{
                        "vector_rounding_product",
                        &Weakened::vectorRounding,
                        kProduct,
                        false},
                Weakening{
                        "accumulation_L2", &Weakened::accumulation, kL2, true},
                Weakening{
                        "accumulation_product",
                        &Weakened::accumulation,
                        kProduct,
                        true},
                Weakening{"twice_L2", &Weakened::twice, kL2, true},
                Weakening{"distance_L2", &Weakened::distance, kL2, true},
                Weakening{
                        "distance_product",
                        &Weakened::distance,
                        kProduct,
                        true},
                Weakening{
                        "centre_distance_product",
                        &Weakened::centreDistance,
                        kProduct,
                        false},
                Weakening{"underflow_L2", &Weakened::underflow, kL2, true},
                Weakening{
                        "underflow_product",
                        &Weakened::underflow,
                        kProduct,
                        true}),
        [](const auto& info) { return std::string(info.param.term); });

} // namespace
