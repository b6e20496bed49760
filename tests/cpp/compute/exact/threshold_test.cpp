// The roundings of the margin's own arithmetic: each result is on the safe side
// of what it stands for, held against arithmetic with more bits.

#include <faiss_ext/gpu/compute/exact/Margin.h>

#include <gtest/gtest.h>

#include "support/ExactCases.h"
#include "support/ExactTruth.h"

namespace {

using faiss_ext::gpu::exact::FullMargin;
using faiss_ext::gpu::exact::IndexTerms;
using faiss_ext::gpu::exact::Metric;
using faiss_ext::gpu::exact::QueryTerms;
using faiss_ext::gpu::exact::VectorBounds;
using test::ExactCase;
using test::FilterIndex;
using test::FilterQuery;
using test::Quad;

namespace exact = faiss_ext::gpu::exact;

constexpr Metric kMetrics[] = {Metric::L2, Metric::InnerProduct};

Quad magnitude(Quad value) {
    return value < 0 ? -value : value;
}

/// What query terms stand for, without rounding.
struct ExactTerms {
    ExactTerms(const FilterIndex& index, const FilterQuery<>& query) {
        const bool l2 = index.terms.metric == Metric::L2;
        Quad aa = 0, ee = 0, mm = 0, xm = 0;
        for (int i = 0; i < index.store.d; ++i) {
            const Quad m = index.centre[i];
            const Quad a = Quad(query.x[i]) - (l2 ? m : Quad(0));
            const Quad e = a - Quad(exact::toFloat(query.copy[i])) *
                                       Quad(exact::powerOfTwo(-query.scale));
            aa += a * a;
            ee += e * e;
            mm += m * m;
            xm += Quad(query.x[i]) * m;
        }
        const Quad norm = test::rootOf(aa), error = test::rootOf(ee);
        const Quad accumulation = index.terms.accumulation;
        const Quad relative = index.terms.distance.relative;
        // |x'| <= |a| + |dx|
        perNorm = error + accumulation * (norm + error);
        perError = norm;
        if (l2) {
            perNorm *= 2;
            perError *= 2;
            low = high = size = aa;
        } else {
            size = norm * test::rootOf(mm) + 0x1p-140;
            perNorm += relative * norm;
            const Quad apart = relative * norm * test::rootOf(mm) +
                               Quad(index.terms.distance.absolute);
            low = -xm - apart;
            high = -xm + apart;
        }
    }

    Quad perNorm = 0;
    Quad perError = 0;
    Quad low = 0;
    Quad high = 0;
    /// Of what low and high are made of.
    Quad size = 0;
};

template <typename Check>
void forAllQueries(const Check& check) {
    for (int d : {1, 5, 16, 100}) {
        for (const ExactCase& data : test::exactCases(d, 10, 20, 9)) {
            for (Metric metric : kMetrics) {
                const FilterIndex index(
                        data.store(metric, false), exact::hopperArithmetic());
                for (int64_t i = 0; i < data.n(); ++i) {
                    SCOPED_TRACE(data.name + ", d " + std::to_string(d));
                    const FilterQuery<> query(index, data.query(i));
                    if (query.terms.inRange) {
                        check(index, query);
                    }
                }
            }
        }
    }
}

TEST(ExactThreshold, query_terms_are_on_the_safe_side) {
    int64_t queries = 0;
    forAllQueries([&](const FilterIndex& index, const FilterQuery<>& query) {
        ++queries;
        const ExactTerms exactly(index, query);
        const QueryTerms& terms = query.terms;
        EXPECT_GE(Quad(terms.perNorm), exactly.perNorm);
        EXPECT_GE(Quad(terms.perError), exactly.perError);
        EXPECT_LE(Quad(terms.low), exactly.low);
        EXPECT_GE(Quad(terms.high), exactly.high);
        // And not far from it.
        const Quad more = 1 + 0x1p-22;
        EXPECT_LE(Quad(terms.perNorm), exactly.perNorm * more + 0x1p-148);
        EXPECT_LE(Quad(terms.perError), exactly.perError * more + 0x1p-148);
        EXPECT_GE(Quad(terms.low), exactly.low - exactly.size * 0x1p-40);
        EXPECT_LE(Quad(terms.high), exactly.high + exactly.size * 0x1p-40);
        // Twice, or once, the inverse of both scales.
        EXPECT_EQ(
                terms.factor,
                -std::ldexp(
                        index.terms.metric == Metric::L2 ? 2.0f : 1.0f,
                        -index.terms.scale - query.scale));
    });
    EXPECT_GT(queries, 1000);
}

struct WithoutCentreDot : FullMargin {
    static constexpr double centreDot = 0;
};

/// Where |x| |m| is all there is: an inner product whose vectors are the
/// centre. The sum x . m in double is off by less than what is added for it,
/// but by more than all other roundings.
TEST(ExactThreshold, the_rounding_of_the_query_by_the_centre_is_counted) {
    std::mt19937 random(10);
    std::normal_distribution<float> normal;
    int off = 0;
    for (int round = 0; round < 2000; ++round) {
        const int d = 40;
        exact::QuerySums sums;
        Quad xm = 0, xx = 0, mm = 0;
        double squares = 0;
        for (int i = 0; i < d; ++i) {
            const float x = normal(random), m = normal(random);
            const exact::Half copy = exact::halfOf(x, 0, 1);
            sums.addComponent(Metric::InnerProduct, x, m, copy, 1);
            xm += Quad(x) * Quad(m);
            xx += Quad(x) * Quad(x);
            mm += Quad(m) * Quad(m);
            squares += double(m) * m;
        }
        IndexTerms index = exact::indexTerms(
                Metric::InnerProduct,
                d,
                0,
                true,
                exact::centreNorm(squares, d),
                exact::hopperArithmetic());
        EXPECT_GE(Quad(index.centre) * Quad(index.centre), mm);
        const Quad part =
                Quad(index.distance.relative) * test::rootOf(xx * mm) +
                Quad(index.distance.absolute);
        const QueryTerms terms = exact::queryTerms(index, sums, 0);
        EXPECT_LE(Quad(terms.low), -xm - part);
        EXPECT_GE(Quad(terms.high), -xm + part);
        const QueryTerms less =
                exact::queryTerms<WithoutCentreDot>(index, sums, 0);
        off += Quad(less.low) > -xm - part || Quad(less.high) < -xm + part;
    }
    EXPECT_GT(off, 10);
}

TEST(ExactThreshold, what_a_centred_query_is_rounded_by_is_counted) {
    // In double, 2^60 - 1 is 2^60, and the copy of it loses nothing.
    const float x = 0x1p60f, m = 1;
    exact::QuerySums sums;
    sums.addComponent(Metric::L2, x, m, exact::halfOf(x, m, 0x1p-46f), 0x1p46f);
    IndexTerms index = exact::indexTerms(
            Metric::L2, 1, -46, true, 1, exact::hopperArithmetic());
    index.accumulation = 0;
    EXPECT_GE(exact::queryTerms(index, sums, -46).perNorm, 2);
}

/// Terms of any size, and cuts that the threshold lies close to a float for.
template <typename Check>
void forAllThresholds(Metric metric, const Check& check) {
    std::mt19937 random(11);
    const auto any = [&](int least, int most) {
        return std::ldexp(
                1 + float(random()) * 0x1p-32f,
                least + int(random() % unsigned(most - least)));
    };
    for (int round = 0; round < 20000; ++round) {
        const IndexTerms index = exact::indexTerms(
                metric,
                1 + int(random() % 3000),
                0,
                false,
                0,
                exact::hopperArithmetic());
        QueryTerms query;
        query.inRange = true;
        query.perNorm = any(-30, 10);
        query.perError = any(-30, 10);
        query.factor = -1;
        float cut = any(-40, 20);
        if (metric == Metric::InnerProduct && round % 2) {
            cut = -cut;
        }
        // What is left of the two is a float, or next to one.
        double reach = cut;
        if (metric == Metric::L2) {
            reach = (reach + index.distance.absolute) /
                    (1 - index.distance.relative);
        }
        const float rest = any(-40, 20) * (round % 3 ? 1.0f : -1.0f);
        query.low = reach - double(rest);
        query.high = query.low;
        check(index, query, cut);
    }
}

TEST(ExactThreshold, is_not_below_what_the_cut_allows) {
    for (Metric metric : kMetrics) {
        forAllThresholds(
                metric,
                [&](const IndexTerms& index,
                    const QueryTerms& query,
                    float cut) {
                    Quad reach = cut;
                    if (metric == Metric::L2) {
                        reach = (reach + Quad(index.distance.absolute)) /
                                (1 - Quad(index.distance.relative));
                    }
                    const Quad base = reach - Quad(query.low);
                    const float rounded =
                            exact::thresholdBase(index, query, cut);
                    EXPECT_GE(Quad(rounded), base);
                    const Quad size =
                            magnitude(reach) + magnitude(Quad(query.low));
                    EXPECT_LE(
                            Quad(rounded),
                            base + magnitude(base) * 0x1p-22 + size * 0x1p-48 +
                                    0x1p-148);
                });
    }
}

TEST(ExactThreshold, a_cut_that_no_loss_is_below_is_none) {
    const IndexTerms index = exact::indexTerms(
            Metric::InnerProduct, 4, 0, false, 0, exact::hopperArithmetic());
    QueryTerms query{};
    query.low = 1e38;
    for (float cut : {exact::missingLoss(), exact::infinity()}) {
        EXPECT_EQ(exact::thresholdBase(index, query, cut), exact::infinity());
    }
}

TEST(ExactThreshold, over_a_set_is_not_below_the_base_and_its_spread) {
    std::mt19937 random(12);
    const auto any = [&] {
        return std::ldexp(
                1 + float(random()) * 0x1p-32f, int(random() % 40) - 20);
    };
    for (int round = 0; round < 50000; ++round) {
        QueryTerms query;
        query.perNorm = any();
        query.perError = any();
        VectorBounds bounds;
        bounds.norm = round % 5 ? any() : 0;
        bounds.error = round % 7 ? any() : 0;
        float base = any() * (round % 2 ? 1.0f : -1.0f);
        if (round % 3 == 0) {
            // Cancelling most of it.
            base = -query.perNorm * bounds.norm - query.perError * bounds.error;
        }
        const Quad spread = Quad(query.perNorm) * Quad(bounds.norm) +
                            Quad(query.perError) * Quad(bounds.error);
        const float threshold = test::thresholdOver(query, base, bounds);
        EXPECT_GE(Quad(threshold), Quad(base) + spread);
        EXPECT_LE(
                Quad(threshold),
                Quad(base) + spread + (magnitude(base) + spread) * 0x1p-21 +
                        0x1p-147);
    }
}

/// A vector of the finer filter whose exact value is the base, or just below.
TEST(ExactThreshold, the_finer_filter_rules_out_nothing_by_its_roundings) {
    std::mt19937 random(14);
    for (int round = 0; round < 100000; ++round) {
        const int size = round % 10 ? 0 : -130;
        const auto any = [&](int least, int most) {
            return std::ldexp(
                    1 + float(random()) * 0x1p-32f,
                    size + least + int(random() % unsigned(most - least)));
        };
        QueryTerms query;
        query.perNorm = any(-12, 0);
        query.perError = round % 3 ? any(-2, 4) : 0;
        VectorBounds vector;
        vector.norm = std::ldexp(any(-2, 4), -size);
        vector.error = vector.norm * 0x1p-12f * float(random() % 100) / 20;
        const float rest = exact::errorRest(vector);
        EXPECT_GE(
                Quad(rest) + Quad(0x1p-12) * Quad(vector.norm),
                Quad(vector.error));
        const float start = round % 4 ? any(-4, 8) : 0;
        const Quad spread = Quad(query.perNorm) * Quad(vector.norm) +
                            Quad(query.perError) * Quad(vector.error);
        // Nothing is left but the spread, or hardly anything, or much.
        const float score = round % 3 == 0   ? start
                            : round % 3 == 1 ? float(start - double(spread))
                                             : any(-4, 8);
        const Quad value = Quad(start) - Quad(score) - spread;
        const float base = test::roundedUp(value);
        EXPECT_TRUE(exact::passes(
                exact::fineValue(
                        score,
                        -1,
                        exact::finePerVector(query),
                        vector.norm,
                        exact::fineStart(start)),
                exact::fineThreshold(query, base, rest)))
                << round;
    }
    EXPECT_EQ(exact::fineStart(-exact::infinity()), -exact::infinity());
    EXPECT_EQ(exact::fineStart(0), 0);
}

TEST(ExactThreshold, the_finer_filter_loses_nothing_among_denormal_numbers) {
    // In units of the least float: a spread of 1.49 by the norm, which is
    // rounded to 1, and of 0.49 by the rest of the error.
    QueryTerms query;
    query.perNorm = 1.49f * 0x1p-75f;
    query.perError = 0.49f * 0x1p-89f;
    VectorBounds vector;
    vector.norm = 0x1p-74f;
    vector.error = 0x1p-60f;
    const float base = 10 * 0x1p-149f;
    const float score = -(10 + 1.97f) * 0x1p-49f;
    EXPECT_TRUE(exact::passes(
            exact::fineValue(
                    score,
                    -0x1p-100f,
                    exact::finePerVector(query),
                    vector.norm,
                    0),
            exact::fineThreshold(query, base, exact::errorRest(vector))));
}

TEST(ExactThreshold, the_most_a_loss_may_be_is_not_below_it) {
    for (Metric metric : kMetrics) {
        std::mt19937 random(13);
        forAllThresholds(
                metric,
                [&](const IndexTerms& index,
                    const QueryTerms& query,
                    float cut) {
                    VectorBounds bounds;
                    bounds.norm =
                            random() % 4
                                    ? std::ldexp(1 + float(random() % 64), -20)
                                    : 0;
                    bounds.error =
                            random() % 4
                                    ? std::ldexp(1 + float(random() % 64), -30)
                                    : 0;
                    // Near to high, or not: cancellation.
                    const float value = random() % 2 ? -float(query.high) : cut;
                    Quad most = Quad(value) + Quad(query.high) +
                                Quad(query.perNorm) * Quad(bounds.norm) +
                                Quad(query.perError) * Quad(bounds.error);
                    // The value's own rounding: half of the last place.
                    most += (Quad(exact::nextUp(value)) - Quad(value)) / 2;
                    if (metric == Metric::L2) {
                        // And that of the square, one place of it.
                        most += Quad(bounds.norm) * Quad(bounds.norm) * 0x1p-23;
                        most = most > 0 ? most : Quad(0);
                        most = most * (1 + Quad(index.distance.relative)) +
                               Quad(index.distance.absolute);
                    }
                    EXPECT_GE(
                            Quad(exact::mostLoss(index, query, value, bounds)),
                            most);
                });
    }
}

TEST(ExactThreshold, the_most_a_loss_may_be_of_no_value_is_infinite) {
    const IndexTerms index = exact::indexTerms(
            Metric::L2, 4, 0, false, 0, exact::hopperArithmetic());
    QueryTerms query{};
    query.inRange = true;
    for (float value :
         {exact::infinity(),
          -exact::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
        EXPECT_EQ(
                exact::mostLoss(index, query, value, VectorBounds()),
                exact::infinity());
    }
}

} // namespace
