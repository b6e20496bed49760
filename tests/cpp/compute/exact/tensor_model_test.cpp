// The model of the tensor cores, and the bound of their scores' error.

#include <gtest/gtest.h>

#include <random>

#include "support/TensorCoreModel.h"

namespace {

using faiss_ext::gpu::exact::Half;
using faiss_ext::gpu::exact::TensorArithmetic;

namespace exact = faiss_ext::gpu::exact;

/// The arithmetic as measured, without the factor of caution.
TensorArithmetic measured(TensorArithmetic arithmetic) {
    arithmetic.factor = 1;
    return arithmetic;
}

const TensorArithmetic kHopper = measured(exact::hopperArithmetic());
const TensorArithmetic kAmpere = measured(exact::ampereArithmetic());

std::vector<Half> halves(const std::vector<float>& values) {
    std::vector<Half> result;
    for (float value : values) {
        result.push_back(exact::toHalf(value));
    }
    return result;
}

float dot(
        const TensorArithmetic& arithmetic,
        const std::vector<float>& a,
        const std::vector<float>& b) {
    return test::tensorDot(
            arithmetic,
            halves(a).data(),
            halves(b).data(),
            static_cast<int>(a.size()),
            1);
}

TEST(TensorCoreModel, small_integers_are_exact) {
    std::mt19937 random(1);
    for (int d : {1, 8, 15, 16, 17, 100, 4096}) {
        std::vector<float> a, b;
        int sum = 0;
        for (int i = 0; i < d; ++i) {
            const int x = int(random() % 101) - 50, y = int(random() % 51);
            a.push_back(float(x));
            b.push_back(float(y));
            sum += x * y;
        }
        EXPECT_EQ(dot(kHopper, a, b), float(sum));
        EXPECT_EQ(dot(kAmpere, a, b), float(sum));
        EXPECT_EQ(
                test::scoreOf(
                        test::exactDot(halves(a).data(), halves(b).data(), d)),
                sum);
    }
}

TEST(TensorCoreModel, products_are_cut_off_below_the_last_bit) {
    // 1 - 1 cancels what the sum would be cut off by.
    for (const auto& [arithmetic, bits] :
         {std::pair{kHopper, 25}, std::pair{kAmpere, 24}}) {
        for (int below = 0; below <= 1; ++below) {
            const float small = std::ldexp(1.0f, -12);
            const float other = std::ldexp(1.0f, -(bits + below - 12));
            for (float sign : {1.0f, -1.0f}) {
                EXPECT_EQ(
                        dot(arithmetic, {1, -1, sign * small}, {1, 1, other}),
                        below ? 0 : sign * std::ldexp(1.0f, -bits));
            }
        }
    }
}

TEST(TensorCoreModel, sums_are_cut_off_to_float32) {
    // 1 + 3/4 of the last place: to nearest it would be the next float.
    const std::vector<float> a{1, 0x1p-12f, 0x1p-12f}, b{1, 0x1p-12f, 0x1p-13f};
    EXPECT_EQ(dot(kHopper, a, b), 1.0f);
    EXPECT_EQ(dot(kHopper, {-1, -a[1], -a[2]}, b), -1.0f);
}

TEST(TensorCoreModel, groups_are_of_16_and_of_8) {
    // Each of 2^-26 is lost beside 1; of one step, all of it; in a step of its
    // own the accumulator is what it is aligned with.
    std::vector<float> a(17, 0x1p-13f), b(17, 0x1p-13f);
    a[0] = b[0] = 1;
    a[16] = b[16] = 0.5f;
    EXPECT_EQ(dot(kHopper, a, b), 1.25f);
    a.assign(9, 0);
    b.assign(9, 0);
    // The two that cancel lie in one group of 16 and in two of 8.
    a[0] = b[0] = b[8] = 1;
    a[8] = -1;
    a[1] = b[1] = 0x1p-12f;
    EXPECT_EQ(dot(kHopper, a, b), 0x1p-24f);
    EXPECT_EQ(dot(kAmpere, a, b), 0);
}

TEST(TensorCoreModel, denormal_halves_count) {
    EXPECT_EQ(dot(kHopper, {0x1p-24f}, {0x1p-24f}), 0x1p-48f);
    EXPECT_EQ(dot(kAmpere, {0x1p-24f, 1}, {0x1p-24f, 0x1p-24f}), 0x1p-24f);
    EXPECT_EQ(dot(kHopper, {0, 0}, {1, 0}), 0);
}

/// The model's error over the bound.
double shareOfBound(
        const TensorArithmetic& arithmetic,
        const std::vector<float>& a,
        const std::vector<float>& b,
        int parts) {
    const auto x = halves(a), y = halves(b);
    const int d = static_cast<int>(a.size());
    const double exactly = test::scoreOf(test::exactDot(x.data(), y.data(), d));
    const double norms = std::sqrt(
            test::scoreOf(test::exactDot(x.data(), x.data(), d)) *
            test::scoreOf(test::exactDot(y.data(), y.data(), d)));
    const double score =
            test::tensorDot(arithmetic, x.data(), y.data(), d, parts);
    const double bound = exact::accumulationError(arithmetic, d) * norms;
    return bound ? std::fabs(score - exactly) / bound : 0;
}

TEST(TensorCoreModel, errors_are_within_the_bound) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (int d : {1, 2, 8, 9, 16, 17, 40, 128, 768, 4096}) {
        for (int round = 0; round < 60; ++round) {
            const int spread = round % 6 * 4;
            std::vector<float> a, b;
            for (int i = 0; i < d; ++i) {
                a.push_back(std::ldexp(
                        normal(random), -int(random() % (spread + 1))));
                b.push_back(std::ldexp(
                        normal(random), -int(random() % (spread + 1))));
                if (round % 2) {
                    a.back() = std::fabs(a.back());
                    b.back() = std::fabs(b.back());
                }
            }
            for (const auto& arithmetic : {kHopper, kAmpere}) {
                const int steps = (d + arithmetic.group - 1) / arithmetic.group;
                for (int parts : {1, (steps + 1) / 2, steps}) {
                    EXPECT_LE(shareOfBound(arithmetic, a, b, parts), 1) << d;
                }
            }
        }
    }
}

/// One large product, then ever so many that lose almost a last bit each.
double worstShare(const TensorArithmetic& arithmetic, int d, float sign) {
    // Products of (2 - 2^-10) 2^-1 times 2^-bits: just below the last bit.
    const int bits = arithmetic.fractionalBits;
    std::vector<float> a(d, (1 - 0x1p-11f) * std::ldexp(1.0f, -12));
    std::vector<float> b(d, sign * std::ldexp(1.0f, 12 - bits));
    a[0] = b[0] = 1;
    return shareOfBound(arithmetic, a, b, 1);
}

TEST(TensorCoreModel, cut_off_products_need_most_of_their_part_of_the_bound) {
    for (const auto& arithmetic : {kHopper, kAmpere}) {
        const double part = (arithmetic.group + 1) /
                            (arithmetic.group + 1 +
                             std::ldexp(1.0, arithmetic.fractionalBits - 23));
        for (int d : {16, 128, 1024}) {
            EXPECT_GT(worstShare(arithmetic, d, 1), 0.8 * part) << d;
            EXPECT_GT(worstShare(arithmetic, d, -1), 0.8 * part) << d;
        }
    }
}

TEST(TensorCoreModel, cut_off_sums_need_most_of_theirs) {
    // As above, and one product of a step has three last bits more, which the
    // sum loses.
    const int d = 1024;
    std::vector<float> a(d, (1 - 0x1p-11f) * 0x1p-12f), b(d, 0x1p-13f);
    for (int i = 0; i < d; i += 16) {
        b[i] = i ? 0x1p-11f : 1;
    }
    a[0] = 1;
    const double products = 17 * 0x1p-25;
    EXPECT_GT(
            shareOfBound(kHopper, a, b, 1),
            1.05 * products / (products + 0x1p-23));
    EXPECT_LE(shareOfBound(kHopper, a, b, 1), 1);
}

TEST(TensorCoreModel, added_parts_cost_no_more_than_steps) {
    // Each part is exact; its addition to 1 is off by half of the last place.
    const int d = 1024;
    std::vector<float> a(d), b(d);
    for (int i = 0; i < d; i += 16) {
        a[i] = i == d - 16 ? 1 : 0x1p-12f;
        b[i] = i == d - 16 ? 1 : 0x1.fep-13f;
    }
    const double share = shareOfBound(kHopper, a, b, d / 16);
    EXPECT_GT(share, 0.9 * 0x1p-24 / (17 * 0x1p-25 + 0x1p-23));
    EXPECT_LE(share, 1);
}

TEST(TensorCoreModel, the_default_bound_holds_for_either_kind) {
    for (int d : {1, 16, 128, 1024, 4096}) {
        EXPECT_GE(
                exact::accumulationError(exact::hopperArithmetic(), d),
                exact::accumulationError(kAmpere, d));
        EXPECT_GE(
                exact::accumulationError(exact::hopperArithmetic(), d),
                4 * exact::accumulationError(kHopper, d));
    }
    EXPECT_EQ(
            exact::accumulationError(exact::hopperArithmetic(), 1 << 23),
            double(exact::infinity()));
}

TEST(TensorCoreModel, the_adversary_is_within_the_bound_and_close_to_it) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (int d : {1, 16, 128, 1024}) {
        std::vector<Half> a, b;
        for (int i = 0; i < d; ++i) {
            a.push_back(exact::toHalf(normal(random)));
            b.push_back(exact::toHalf(normal(random)));
        }
        const double bound =
                exact::accumulationError(exact::hopperArithmetic(), d);
        const double norms = std::sqrt(
                test::scoreOf(test::exactDot(a.data(), a.data(), d)) *
                test::scoreOf(test::exactDot(b.data(), b.data(), d)));
        const double exactly =
                test::scoreOf(test::exactDot(a.data(), b.data(), d));
        for (bool above : {false, true}) {
            const double score =
                    test::adversarialDot(bound, a.data(), b.data(), d, above);
            const double error = above ? score - exactly : exactly - score;
            EXPECT_LE(error, bound * norms);
            EXPECT_GE(error, 0.9 * bound * norms);
        }
    }
}

} // namespace
