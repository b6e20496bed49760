// Single operations of the exact search's arithmetic, and the order of results.

#include <faiss_ext/gpu/compute/exact/Order.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "support/Quad.h"

namespace {

using faiss_ext::gpu::exact::Half;
using faiss_ext::gpu::exact::Metric;
using test::Quad;

namespace exact = faiss_ext::gpu::exact;

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(ExactFloat, halves_become_floats_and_halves_again) {
    for (uint32_t bits = 0; bits < 1 << 16; ++bits) {
        const Half half{static_cast<uint16_t>(bits)};
        const float value = exact::toFloat(half);
        const int field = bits >> 10 & 31;
        const int fraction = bits & 0x3ff;
        if (field == 31) {
            EXPECT_FALSE(exact::isFinite(half));
            EXPECT_EQ(std::isnan(value), fraction != 0);
        } else {
            EXPECT_TRUE(exact::isFinite(half));
            const float magnitude =
                    field ? std::ldexp(float(fraction + 1024), field - 25)
                          : std::ldexp(float(fraction), -24);
            EXPECT_EQ(std::fabs(value), magnitude);
        }
        EXPECT_EQ(std::signbit(value), bits >> 15 != 0);
        if (!std::isnan(value)) {
            EXPECT_EQ(exact::toHalf(value).bits, bits);
        } else {
            EXPECT_FALSE(exact::isFinite(exact::toHalf(value)));
        }
    }
}

TEST(ExactFloat, floats_become_the_nearest_half_of_two_the_even_one) {
    for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
        const float low = exact::toFloat(Half{static_cast<uint16_t>(bits)});
        const float high =
                exact::toFloat(Half{static_cast<uint16_t>(bits + 1)});
        const float middle = low + (high - low) / 2;
        for (float sign : {1.0f, -1.0f}) {
            const uint32_t mark = sign < 0 ? 0x8000 : 0;
            const auto halved = [&](float value) {
                return uint32_t(exact::toHalf(sign * value).bits) - mark;
            };
            EXPECT_EQ(halved(std::nextafter(middle, 0.0f)), bits);
            EXPECT_EQ(halved(std::nextafter(middle, kInf)), bits + 1);
            EXPECT_EQ(halved(middle), bits + (bits & 1));
        }
    }
    EXPECT_EQ(exact::toHalf(std::nextafter(65520.0f, 0.0f)).bits, 0x7bff);
    EXPECT_EQ(exact::toHalf(65520.0f).bits, 0x7c00);
    EXPECT_EQ(exact::toHalf(1e30f).bits, 0x7c00);
    EXPECT_EQ(exact::toHalf(-kInf).bits, 0xfc00);
    EXPECT_EQ(exact::toHalf(0x1p-149f).bits, 0);
}

std::vector<float> manyFloats() {
    std::vector<float> values{
            0.0f,
            -0.0f,
            1.0f,
            -1.0f,
            FLT_MAX,
            -FLT_MAX,
            0x1p-149f,
            -0x1p-149f,
            0x1p-126f,
            kInf,
            -kInf};
    std::mt19937 random(1);
    while (values.size() < 20000) {
        const float value = exact::floatOf(random());
        if (!std::isnan(value)) {
            values.push_back(value);
        }
    }
    return values;
}

TEST(ExactFloat, the_next_float_is_the_next) {
    for (float value : manyFloats()) {
        EXPECT_EQ(exact::nextUp(value), std::nextafter(value, kInf));
        EXPECT_EQ(exact::nextDown(value), std::nextafter(value, -kInf));
    }
    EXPECT_TRUE(std::isnan(exact::nextUp(kNaN)));
    EXPECT_TRUE(std::isnan(exact::nextDown(-kNaN)));
}

TEST(ExactFloat, doubles_become_the_nearest_float_of_two_the_even_one) {
    for (uint32_t bits :
         {0u, 1u, 0x7fffffu, 0x800000u, 0x3f800000u, 0x3f800001u}) {
        const double low = exact::toDouble(exact::floatOf(bits));
        const double high = exact::toDouble(exact::floatOf(bits + 1));
        const double middle = low + (high - low) / 2;
        const auto rounded = [](double value) {
            return exact::bitsOf(exact::nearestFloat(value));
        };
        EXPECT_EQ(rounded(low), bits);
        EXPECT_EQ(rounded(std::nextafter(middle, low)), bits);
        EXPECT_EQ(rounded(middle), bits + bits % 2);
        EXPECT_EQ(rounded(std::nextafter(middle, high)), bits + 1);
    }
    EXPECT_EQ(exact::nearestFloat(-1e39), -kInf);
    EXPECT_TRUE(exact::isNan(kNaN) && exact::isNan(-kNaN));
    EXPECT_FALSE(exact::isNan(kInf) || exact::isNan(-kInf) || exact::isNan(0));
}

TEST(ExactFloat, doubles_are_rounded_to_the_side_that_is_named) {
    std::mt19937_64 random(2);
    for (int i = 0; i < 100000; ++i) {
        double value = std::ldexp(
                double(random()) * 0x1p-63 - 1, int(random() % 300) - 160);
        if (i % 4 == 0) {
            value = float(value);
        }
        const float up = exact::floatAbove(value),
                    down = exact::floatBelow(value);
        EXPECT_GE(double(up), value);
        EXPECT_LE(double(down), value);
        EXPECT_TRUE(up == down || std::nextafter(down, kInf) == up) << value;
    }
}

TEST(ExactFloat, a_multiply_add_upwards_is_not_below_the_exact_one) {
    std::mt19937 random(3);
    for (int i = 0; i < 100000; ++i) {
        const auto any = [&] {
            return std::ldexp(
                    float(int32_t(random())) * 0x1p-31f,
                    int(random() % 40) - 20);
        };
        const float a = any(), b = any();
        float c = any();
        if (i % 2) {
            c = -a * b;
        }
        const Quad sum = Quad(a) * Quad(b) + Quad(c);
        EXPECT_GE(Quad(exact::multiplyAddAbove(a, b, c)), sum);
        // And not much above it.
        const Quad size = sum < 0 ? -sum : sum;
        EXPECT_LE(
                Quad(exact::multiplyAddAbove(a, b, c)),
                sum + size * 0x1p-22 + 0x1p-148);
    }
}

TEST(ExactFloat, powers_of_two) {
    for (int exponent = -126; exponent <= 127; ++exponent) {
        EXPECT_EQ(exact::powerOfTwo(exponent), std::ldexp(1.0f, exponent));
    }
}

TEST(ExactOrder, keys_are_in_the_order_of_losses_then_labels) {
    auto losses = manyFloats();
    losses.resize(300);
    std::vector<std::pair<float, uint32_t>> results;
    for (float loss : losses) {
        // -0 is no loss.
        loss = loss == 0 ? 0.0f : loss;
        for (uint32_t label : {0u, 7u, 0x80000000u, 0xfffffffeu}) {
            if (loss < FLT_MAX) {
                results.push_back({loss, label});
            }
        }
    }
    std::sort(results.begin(), results.end());
    uint64_t last = 0;
    for (size_t i = 0; i < results.size(); ++i) {
        const auto [loss, label] = results[i];
        const uint64_t key = exact::resultKey(Metric::L2, loss, label);
        if (i) {
            EXPECT_EQ(last < key, results[i - 1] < results[i]);
        }
        EXPECT_LT(key, exact::kMissing);
        EXPECT_EQ(exact::labelOf(key), int64_t(label));
        EXPECT_EQ(
                exact::bitsOf(exact::distanceOf(Metric::L2, key)),
                exact::bitsOf(loss));
        last = key;
    }
}

TEST(ExactOrder, the_largest_inner_product_comes_first) {
    auto distances = manyFloats();
    distances.resize(300);
    for (float& distance : distances) {
        // distance() gives no -0.
        distance = distance == 0 ? 0.0f : distance;
    }
    const Metric metric = Metric::InnerProduct;
    for (float a : distances) {
        const uint64_t key = exact::resultKey(metric, a, 5);
        if (a > -FLT_MAX) {
            EXPECT_EQ(
                    exact::bitsOf(exact::distanceOf(metric, key)),
                    exact::bitsOf(a));
        } else {
            EXPECT_EQ(key, exact::kMissing);
        }
        for (float b : distances) {
            if (a > b && a > -FLT_MAX) {
                EXPECT_LT(key, exact::resultKey(metric, b, 3));
            }
        }
    }
    EXPECT_LT(exact::resultKey(metric, 1, 3), exact::resultKey(metric, 1, 4));
}

TEST(ExactOrder, what_faiss_does_not_find_is_missing) {
    const Metric l2 = Metric::L2, product = Metric::InnerProduct;
    for (float none : {kNaN, -kNaN, kInf, FLT_MAX}) {
        EXPECT_EQ(exact::resultKey(l2, none, 0), exact::kMissing);
    }
    for (float none : {kNaN, -kNaN, -kInf, -FLT_MAX}) {
        EXPECT_EQ(exact::resultKey(product, none, 0), exact::kMissing);
    }
    EXPECT_NE(exact::resultKey(l2, 0x1.fffffcp127f, 0), exact::kMissing);
    EXPECT_NE(exact::resultKey(product, kInf, 0), exact::kMissing);
    EXPECT_NE(exact::resultKey(product, FLT_MAX, 0), exact::kMissing);
    EXPECT_EQ(exact::labelOf(exact::kMissing), -1);
    EXPECT_EQ(exact::distanceOf(l2, exact::kMissing), FLT_MAX);
    EXPECT_EQ(exact::distanceOf(product, exact::kMissing), -FLT_MAX);
    EXPECT_EQ(
            exact::distanceOf(product, exact::resultKey(product, kInf, 1)),
            kInf);
}

} // namespace
