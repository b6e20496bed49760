// The normalised form of a vector: its bits, and what it is of odd vectors.

#include <faiss_ext/gpu/compute/exact/Normalize.h>

#include <gtest/gtest.h>

#include <limits>

#include "support/NormalizedRows.h"

namespace {

namespace exact = faiss_ext::gpu::exact;
using test::Bits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> normalized(const std::vector<float>& x) {
    std::vector<float> y(x.size());
    exact::normalize(x.data(), static_cast<int>(x.size()), y.data());
    return y;
}

double lengthOf(const std::vector<float>& x) {
    double sum = 0;
    for (double component : x) {
        sum += component * component;
    }
    return std::sqrt(sum);
}

TEST(Normalize, has_the_bits_of_the_documented_formula) {
    for (int d : {1, 2, 3, 4, 5, 31, 127, 128, 129, 300, 1000}) {
        for (float size : {1.0f, 1e-40f, 1e-30f, 1e30f, 3e38f}) {
            const auto x = test::rowsOfSize(1, d, size, d);
            EXPECT_EQ(Bits(normalized(x)), Bits(test::asDocumented(x, d)))
                    << d << " " << size;
        }
    }
}

TEST(Normalize, lengths_are_one_whatever_the_size) {
    for (int d : {1, 3, 128, 1000}) {
        for (float size : {1.0f, 1e-30f, 1e-38f, 1e30f, 3e38f}) {
            const auto y = normalized(test::rowsOfSize(1, d, size, 7));
            EXPECT_NEAR(lengthOf(y), 1, 0x1p-23) << d << " " << size;
        }
    }
    // Of few bits, but they are there.
    EXPECT_EQ(normalized({1e-45f, 0}), (std::vector<float>{1, 0}));
    EXPECT_EQ(normalized({0, -3e38f}), (std::vector<float>{0, -1}));
}

TEST(Normalize, zeros_stay_zeros) {
    for (int d : {1, 4, 200}) {
        EXPECT_EQ(
                Bits(normalized(std::vector<float>(d, 0))),
                Bits(std::vector<float>(d, 0)));
    }
}

TEST(Normalize, nothing_changes_the_second_time) {
    for (int d : {1, 2, 3, 16, 128, 129, 4096}) {
        for (unsigned seed = 0; seed < 200; ++seed) {
            const float size = seed % 3 ? 1 : seed % 2 ? 1e-38f : 1e20f;
            const auto once = normalized(test::rowsOfSize(1, d, size, seed));
            ASSERT_EQ(Bits(normalized(once)), Bits(once)) << d << " " << seed;
        }
    }
}

/// As far from it as a vector may be that counts as normalised.
TEST(Normalize, what_is_nearly_normalised_is_normalised) {
    EXPECT_EQ(normalized({1 + 0x1p-20f}), (std::vector<float>{1}));
    EXPECT_EQ(normalized({1 - 0x1p-20f}), (std::vector<float>{1}));
    EXPECT_EQ(normalized({1 - 0x1p-24f}), (std::vector<float>{1 - 0x1p-24f}));
}

TEST(Normalize, nan_and_infinity_make_all_nan_of_one_form) {
    for (float odd : {kInfinity, -kInfinity, exact::floatOf(0xffc12345)}) {
        const auto y = normalized({0, 1, odd, -2});
        for (float component : y) {
            EXPECT_EQ(exact::bitsOf(component), 0x7fc00000u);
        }
        EXPECT_EQ(Bits(normalized(y)), Bits(y));
    }
}

TEST(Normalize, may_write_where_it_reads) {
    auto x = test::rowsOfSize(1, 130, 5, 3);
    const auto right = normalized(x);
    exact::normalize(x.data(), 130, x.data());
    EXPECT_EQ(Bits(x), Bits(right));
}

} // namespace
