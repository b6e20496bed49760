// The float16 copies, their scale, and what is kept of each row.

#include <faiss_ext/gpu/compute/exact/HalfRows.h>

#include <gtest/gtest.h>

#include "support/ExactCases.h"
#include "support/Quad.h"

namespace {

using faiss_ext::gpu::exact::Half;
using faiss_ext::gpu::exact::Metric;
using faiss_ext::gpu::exact::RowSums;
using faiss_ext::gpu::exact::VectorBounds;
using faiss_ext::gpu::exact::VectorTerms;
using test::FilterIndex;
using test::Quad;

namespace exact = faiss_ext::gpu::exact;

std::vector<uint32_t> histogram(const std::vector<float>& largest) {
    std::vector<uint32_t> bins(exact::kExponentBins);
    for (float value : largest) {
        ++bins[exact::exponentBin(value)];
    }
    return bins;
}

int scaleOf(const std::vector<float>& largest) {
    return exact::scaleOfRows(histogram(largest).data());
}

TEST(HalfRows, the_scale_brings_the_largest_component_to_2_to_the_14) {
    for (int e = -40; e <= 60; ++e) {
        const int scale = scaleOf({std::ldexp(1.0f, e), std::ldexp(1.9f, e)});
        EXPECT_EQ(scale, std::max(14 - e, exact::kLeastScale));
        const float most = std::ldexp(exact::nextDown(2), e + scale);
        EXPECT_LT(most, 0x1p15f);
        EXPECT_TRUE(exact::isFinite(exact::toHalf(most)));
    }
}

TEST(HalfRows, one_row_of_1e30_among_ones_does_not_change_the_scale) {
    std::vector<float> rows(1000, 1.5f);
    const int scale = scaleOf(rows);
    for (float odd : {1e30f, exact::infinity(), 1e-30f, 0.0f}) {
        rows[7] = odd;
        EXPECT_EQ(scaleOf(rows), scale) << odd;
    }
    // What lies within the range of float16 above them does.
    rows[7] = 1000;
    EXPECT_EQ(scaleOf(rows), scale - 9);
}

TEST(HalfRows, a_few_huge_rows_are_given_up_before_the_others_lose_bits) {
    std::vector<float> rows(100, 1.0f);
    rows[0] = 0x1p60f;
    const int scale = scaleOf(rows);
    // 2^-11 is 2^13 times the least half.
    EXPECT_EQ(1.0f * exact::powerOfTwo(scale), 0x1p-11f);
}

TEST(HalfRows, rows_without_a_scale_have_scale_zero) {
    EXPECT_EQ(scaleOf({}), 0);
    EXPECT_EQ(scaleOf({0, 0, 0x1p-140f}), 0);
    EXPECT_EQ(scaleOf({exact::infinity(), 1e30f}), 0);
}

TEST(HalfRows, scales_are_within_their_limits) {
    for (int bin = 0; bin < exact::kExponentBins; ++bin) {
        const int scale = exact::scaleOfBin(bin);
        EXPECT_GE(scale, exact::kLeastScale);
        EXPECT_LE(scale, exact::kMostScale);
    }
    // The products of two, doubled, and their inverses are normal floats.
    EXPECT_LE(1 - 2 * exact::kLeastScale, 127);
    EXPECT_GE(-2 * exact::kMostScale, -126);
}

Quad copyOf(const FilterIndex& index, int64_t row, int i) {
    return Quad(exact::toFloat(index.copy(row)[i])) *
           Quad(exact::powerOfTwo(-index.terms.scale));
}

/// Of all data sets, dimensions, metrics and kinds of store.
template <typename Check>
void forAllIndexes(const Check& check) {
    for (int d : {1, 3, 16, 50, 128, 1000}) {
        for (const auto& data : test::exactCases(d, 20, 1, 2)) {
            for (Metric metric : {Metric::L2, Metric::InnerProduct}) {
                for (bool half : {false, true}) {
                    SCOPED_TRACE(
                            data.name + ", d " + std::to_string(d) +
                            (half ? ", float16" : ""));
                    check(FilterIndex(
                            data.store(metric, half),
                            exact::hopperArithmetic()));
                }
            }
        }
    }
}

TEST(HalfRows, what_is_kept_bounds_the_exact_norms) {
    int64_t rows = 0, inRange = 0;
    forAllIndexes([&](const FilterIndex& index) {
        const int d = index.store.d;
        for (int64_t row = 0; row < index.store.size(); ++row) {
            ++rows;
            const VectorTerms& kept = index.vectors[row];
            if (!exact::inRange(kept)) {
                continue;
            }
            ++inRange;
            Quad square = 0, error = 0, copy = 0;
            for (int i = 0; i < d; ++i) {
                const Quad b =
                        Quad(index.store.at(row, i)) - Quad(index.centre[i]);
                const Quad h = copyOf(index, row, i);
                square += b * b;
                error += (b - h) * (b - h);
                copy += h * h;
            }
            EXPECT_LE(Quad(kept.square), square);
            EXPECT_GE(Quad(kept.square) * (1 + 0x1p-22) + 0x1p-148, square);
            EXPECT_GE(Quad(kept.error) * Quad(kept.error), error);
            const VectorBounds bounds = VectorBounds::boundsOf(kept);
            EXPECT_GE(Quad(bounds.norm) * Quad(bounds.norm), square);
            EXPECT_GE(Quad(bounds.norm) * Quad(bounds.norm), copy);
            EXPECT_EQ(bounds.error, kept.error);
            // Neither is far above.
            const Quad least = std::max(double(kept.error) - 0x1p-148, 0.0);
            EXPECT_LE(least * least, error * (1 + 0x1p-20) + square * 0x1p-100);
        }
    });
    EXPECT_GT(inRange, rows * 3 / 4);
}

TEST(HalfRows, rows_out_of_range_are_those_that_no_half_is_near) {
    forAllIndexes([&](const FilterIndex& index) {
        for (int64_t row = 0; row < index.store.size(); ++row) {
            bool finite = true;
            double square = 0;
            for (int i = 0; i < index.store.d; ++i) {
                finite = finite && exact::isFinite(index.copy(row)[i]);
                square += std::pow(
                        double(index.store.at(row, i)) - index.centre[i], 2);
            }
            EXPECT_EQ(
                    exact::inRange(index.vectors[row]),
                    finite && square <= 0x1p124);
        }
    });
}

TEST(HalfRows, ordinary_rows_are_all_in_range) {
    for (int d : {1, 128}) {
        for (const auto& data : test::exactCases(d, 20, 1, 3)) {
            if (data.name == "too large" || data.name == "not finite" ||
                data.name == "at the limit of the range" ||
                data.name.find(" among ones") != std::string::npos) {
                continue;
            }
            const FilterIndex index(
                    data.store(Metric::L2, false), exact::hopperArithmetic());
            for (const VectorTerms& vector : index.vectors) {
                EXPECT_TRUE(exact::inRange(vector)) << data.name;
            }
        }
    }
}

TEST(HalfRows, one_1e30_among_ones_is_the_only_one_out_of_range) {
    for (const auto& data : test::exactCases(16, 100, 1, 3)) {
        if (data.name != "one 1e30 among ones") {
            continue;
        }
        const FilterIndex index(
                data.store(Metric::L2, false), exact::hopperArithmetic());
        for (int64_t row = 0; row < index.store.size(); ++row) {
            EXPECT_EQ(exact::inRange(index.vectors[row]), row != 50);
        }
        // Nor does it move the centre, or take bits from the others.
        EXPECT_NEAR(index.centre[0], 1, 0.1);
        EXPECT_LT(index.vectors[0].error, 0x1p-10f);
        EXPECT_GE(index.terms.scale, 14);
    }
}

TEST(HalfRows, a_large_row_does_not_move_the_centre) {
    for (float large : {100.0f, 1e6f, 1e30f}) {
        const auto data =
                test::makeCase("large", 3, 21, 0, [&](int64_t row, int i) {
                    return row == 4 ? large : 1 + 0.1f * float(row % 3 + i);
                });
        const FilterIndex index(
                data.store(Metric::L2, false), exact::hopperArithmetic());
        EXPECT_TRUE(index.terms.centred);
        EXPECT_NEAR(index.centre[0], 1.1, 0.05) << large;
    }
}

TEST(HalfRows, integers_and_float16_vectors_lose_nothing) {
    int seen = 0;
    forAllIndexes([&](const FilterIndex& index) {
        bool halves = true;
        for (int64_t row = 0; row < index.store.size(); ++row) {
            for (int i = 0; i < index.store.d; ++i) {
                const float y = index.store.at(row, i);
                halves = halves && exact::toFloat(exact::toHalf(y)) == y;
            }
        }
        if (!halves) {
            return;
        }
        ++seen;
        EXPECT_FALSE(index.terms.centred);
        EXPECT_EQ(index.terms.scale, 0);
        for (int64_t row = 0; row < index.store.size(); ++row) {
            EXPECT_EQ(index.vectors[row].error, 0);
            for (int i = 0; i < index.store.d; ++i) {
                EXPECT_EQ(
                        exact::toFloat(index.copy(row)[i]),
                        index.store.at(row, i));
            }
        }
    });
    EXPECT_GT(seen, 100);
}

TEST(HalfRows, parts_of_a_row_may_be_summed_apart) {
    RowSums low, high, whole;
    for (int i = 0; i < 10; ++i) {
        const float y = float(i) + 0x1p-13f;
        const Half copy = exact::halfOf(y, 0.5f, 2.0f);
        (i < 5 ? low : high).addComponent(y, 0.5f, copy, 0.5f);
        whole.addComponent(y, 0.5f, copy, 0.5f);
    }
    low.addPart(high);
    EXPECT_NEAR(low.square, whole.square, 1e-12);
    EXPECT_NEAR(low.error, whole.error, 1e-12);
    EXPECT_FALSE(low.outside);
    high.addComponent(1e30f, 0, exact::toHalf(1e30f), 1);
    low.addPart(high);
    EXPECT_TRUE(low.outside);
}

/// What sums in double lose is within what is added for it: rows whose exact
/// sums lie just above.
TEST(HalfRows, the_rounding_of_the_sums_is_counted) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    int above = 0, below = 0;
    for (int round = 0; round < 2000; ++round) {
        const int d = 1 + round % 40;
        RowSums sums;
        Quad square = 0, error = 0;
        for (int i = 0; i < d; ++i) {
            const float y = std::ldexp(normal(random), int(random() % 30));
            const float m = std::ldexp(normal(random), -int(random() % 30));
            const Half copy = exact::halfOf(y, m, 0x1p-18f);
            sums.addComponent(y, m, copy, 0x1p18f);
            const Quad b = Quad(y) - Quad(m);
            const Quad rest = b - Quad(exact::toFloat(copy)) * 0x1p18;
            square += b * b;
            error += rest * rest;
        }
        above += Quad(sums.square) > square;
        below += Quad(sums.square) < square;
        EXPECT_LE(Quad(sums.leastSquare(d)), square);
        EXPECT_GE(Quad(sums.mostSquare(d)), square);
        const Quad most = sums.mostError(d, true);
        EXPECT_GE(most * most, error);
        EXPECT_LE(most * most, error * (1 + 0x1p-20) + square * 0x1p-80);
    }
    EXPECT_GT(above, 100);
    EXPECT_GT(below, 100);
}

TEST(HalfRows, where_y_less_m_is_rounded_the_error_counts_it) {
    // In double, 2^60 - 1 is 2^60, and the copy of it loses nothing.
    const float y = 0x1p60f, m = 1;
    const Half copy = exact::halfOf(y, m, 0x1p-46f);
    RowSums sums;
    sums.addComponent(y, m, copy, 0x1p46f);
    EXPECT_EQ(sums.error, 0);
    EXPECT_GE(sums.mostError(1, true), 1);
    EXPECT_LT(sums.mostError(1, true), 256);
}

TEST(HalfRows, bounds_of_a_set_are_those_of_its_largest_in_range) {
    VectorBounds bounds;
    EXPECT_EQ(bounds.norm, 0);
    EXPECT_EQ(bounds.error, 0);
    bounds.addVector({4, 0.5f});
    bounds.addVector({9, 0.25f});
    bounds.addVector({-exact::infinity(), 0});
    EXPECT_EQ(bounds.error, 0.5f);
    EXPECT_GE(bounds.norm, 3.25f);
    EXPECT_LT(bounds.norm, 3.2501f);
    VectorBounds other;
    other.addVector({1, 0.75f});
    bounds.addBounds(other);
    EXPECT_EQ(bounds.error, 0.75f);
    EXPECT_GE(bounds.norm, 3.25f);
}

} // namespace
