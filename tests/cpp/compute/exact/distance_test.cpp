// D: its bits, and how far it is from the truth.

#include <faiss_ext/gpu/compute/exact/Distance.h>

#include <gtest/gtest.h>

#include "support/ExactCases.h"
#include "support/Quad.h"

namespace {

using faiss_ext::gpu::exact::DistanceError;
using faiss_ext::gpu::exact::Half;
using faiss_ext::gpu::exact::Metric;
using test::Quad;

namespace exact = faiss_ext::gpu::exact;

constexpr Metric kMetrics[] = {Metric::L2, Metric::InnerProduct};

std::vector<float> normal(int n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> distribution;
    std::vector<float> values(n);
    for (float& value : values) {
        value = distribution(random);
    }
    return values;
}

float distanceOf(Metric metric, const float* x, const float* y, int d) {
    return metric == Metric::L2
                   ? exact::distance<Metric::L2>(x, y, d)
                   : exact::distance<Metric::InnerProduct>(x, y, d);
}

/// The formula of docs/exact-search.md, word for word.
float asDocumented(Metric metric, const float* x, const float* y, int d) {
    float acc[16] = {};
    for (int i = 0; i < d; ++i) {
        if (metric == Metric::L2) {
            const volatile float t = x[i] - y[i];
            acc[i % 16] = std::fma(t, t, acc[i % 16]);
        } else {
            acc[i % 16] = std::fma(x[i], y[i], acc[i % 16]);
        }
    }
    volatile float s[4];
    for (int g = 0; g < 4; ++g) {
        const volatile float low = acc[4 * g] + acc[4 * g + 1];
        const volatile float high = acc[4 * g + 2] + acc[4 * g + 3];
        s[g] = low + high;
    }
    const volatile float low = s[0] + s[1];
    const volatile float high = s[2] + s[3];
    const volatile float sum = low + high;
    return sum + 0.0f;
}

TEST(ExactDistance, has_the_bits_of_the_documented_formula) {
    for (int d = 1; d <= 300; d += d < 70 ? 1 : 23) {
        const auto x = normal(d, d), y = normal(d, d + 1000);
        for (Metric metric : kMetrics) {
            EXPECT_EQ(
                    exact::bitsOf(distanceOf(metric, x.data(), y.data(), d)),
                    exact::bitsOf(asDocumented(metric, x.data(), y.data(), d)))
                    << d;
        }
    }
}

TEST(ExactDistance, its_bits_stay_what_they_are) {
    // A change of these is a change of what every search returns.
    std::vector<float> x, y;
    uint32_t state = 1;
    while (y.size() < 1000) {
        state = state * 1664525 + 1013904223;
        const float value = float(int32_t(state) >> 8) * 0x1p-20f;
        (x.size() > y.size() ? y : x).push_back(value);
    }
    uint32_t l2 = 0, product = 0;
    for (int d = 1; d <= 1000; ++d) {
        l2 = l2 * 31 +
             exact::bitsOf(distanceOf(Metric::L2, x.data(), y.data(), d));
        product = product * 31 +
                  exact::bitsOf(distanceOf(
                          Metric::InnerProduct, x.data(), y.data(), d));
    }
    EXPECT_EQ(l2, 1849607148u);
    EXPECT_EQ(product, 1031663264u);
}

/// As a kernel: four lanes, each with every fourth block of four components,
/// rows filled up with zeros, partial results exchanged by pairs.
TEST(ExactDistance, lanes_and_zeros_beyond_d_change_nothing) {
    for (int d = 1; d <= 130; ++d) {
        auto x = normal(d, d), y = normal(d, d + 1000);
        const float l2 = distanceOf(Metric::L2, x.data(), y.data(), d);
        const float product =
                distanceOf(Metric::InnerProduct, x.data(), y.data(), d);
        x.resize(192);
        y.resize(192);
        float lanes[2][4];
        for (int lane = 0; lane < 4; ++lane) {
            float chains[2][4] = {};
            for (int base = 0; base < 192; base += 16) {
                for (int c = 0; c < 4; ++c) {
                    const int i = base + 4 * lane + c;
                    chains[0][c] = exact::addDimension<Metric::L2>(
                            x[i], y[i], chains[0][c]);
                    chains[1][c] = exact::addDimension<Metric::InnerProduct>(
                            x[i], y[i], chains[1][c]);
                }
            }
            for (int m = 0; m < 2; ++m) {
                const float* c = chains[m];
                lanes[m][lane] = exact::joinChains(c[0], c[1], c[2], c[3]);
            }
        }
        for (int lane = 0; lane < 4; ++lane) {
            const int next = lane ^ 1, across = lane ^ 2, last = lane ^ 3;
            const auto joined = [&](const float* of) {
                return exact::joinGroups(
                        of[lane], of[next], of[across], of[last]);
            };
            EXPECT_EQ(exact::bitsOf(joined(lanes[0])), exact::bitsOf(l2)) << d;
            EXPECT_EQ(exact::bitsOf(joined(lanes[1])), exact::bitsOf(product))
                    << d;
        }
    }
}

TEST(ExactDistance, of_float16_vectors_is_that_of_their_values) {
    for (int d : {1, 5, 16, 33, 200}) {
        const auto x = normal(d, d);
        std::vector<Half> halves;
        std::vector<float> values;
        for (float y : normal(d, d + 1000)) {
            halves.push_back(exact::toHalf(y));
            values.push_back(exact::toFloat(halves.back()));
        }
        EXPECT_EQ(
                exact::distance<Metric::L2>(x.data(), halves.data(), d),
                exact::distance<Metric::L2>(x.data(), values.data(), d));
        EXPECT_EQ(
                exact::distance<Metric::InnerProduct>(
                        x.data(), halves.data(), d),
                exact::distance<Metric::InnerProduct>(
                        x.data(), values.data(), d));
    }
}

TEST(ExactDistance, of_a_vector_to_itself_is_zero) {
    const auto x = normal(128, 3);
    EXPECT_EQ(
            exact::bitsOf(distanceOf(Metric::L2, x.data(), x.data(), 128)), 0u);
}

TEST(ExactDistance, is_never_the_negative_zero) {
    // Each chain's only product is too small to be anything else than -0.
    const std::vector<float> x(16, 1e-30f), y(16, -1e-30f);
    EXPECT_EQ(exact::addDimension<Metric::InnerProduct>(x[0], y[0], 0), 0);
    EXPECT_TRUE(std::signbit(
            exact::addDimension<Metric::InnerProduct>(x[0], y[0], 0)));
    EXPECT_EQ(
            exact::bitsOf(
                    distanceOf(Metric::InnerProduct, x.data(), y.data(), 16)),
            0u);
}

TEST(ExactDistance, keeps_denormal_numbers) {
    const float x = 0x1p-75f, y = 0x1p-74f, zero = 0;
    EXPECT_EQ(distanceOf(Metric::InnerProduct, &x, &y, 1), 0x1p-149f);
    EXPECT_EQ(distanceOf(Metric::L2, &y, &zero, 1), 0x1p-148f);
    const float a = 0x1.8p-126f, b = 0x1p-126f, large = 0x1p100f;
    EXPECT_EQ(exact::subtract(a, b), 0x1p-127f);
    EXPECT_EQ(exact::multiply(exact::subtract(a, b), large), 0x1p-27f);
}

/// |D - T| over the bound, at most 1; 0 where the bound does not hold by
/// intent.
double shareOfBound(Metric metric, const float* x, const float* y, int d) {
    Quad truth = 0, xx = 0, yy = 0;
    for (int i = 0; i < d; ++i) {
        const Quad t = Quad(x[i]) - Quad(y[i]);
        truth += metric == Metric::L2 ? t * t : Quad(x[i]) * Quad(y[i]);
        xx += Quad(x[i]) * Quad(x[i]);
        yy += Quad(y[i]) * Quad(y[i]);
    }
    const Quad most = Quad(0x1p63) * Quad(0x1p63);
    if (!(xx <= most && yy <= most)) {
        return 0;
    }
    const Quad error = Quad(distanceOf(metric, x, y, d)) - truth;
    const DistanceError bound = exact::distanceError(metric, d);
    if (metric == Metric::L2) {
        const Quad allowed =
                Quad(bound.relative) * truth + Quad(bound.absolute);
        return double((error < 0 ? -error : error) / allowed);
    }
    // Norms from below: the bound is held to be a little smaller.
    const Quad norms = Quad(std::sqrt(double(xx))) * std::sqrt(double(yy));
    const Quad allowed =
            Quad(bound.relative) * norms * (1 - 0x1p-40) + Quad(bound.absolute);
    return double((error < 0 ? -error : error) / allowed);
}

TEST(ExactDistance, is_within_its_error_of_the_truth) {
    double most = 0;
    for (int d : {1, 2, 3, 7, 15, 16, 17, 33, 100, 128, 769, 4096}) {
        for (const auto& data : test::exactCases(d, 8, 4, 1)) {
            for (Metric metric : kMetrics) {
                for (int64_t i = 0; i < data.n(); ++i) {
                    for (int64_t j = 0; j < data.nb(); ++j) {
                        const double share = shareOfBound(
                                metric,
                                data.query(i),
                                data.vectors.data() + j * d,
                                d);
                        EXPECT_LE(share, 1) << data.name << ", d " << d;
                        most = std::max(most, share);
                    }
                }
            }
        }
    }
    // The test sees errors of the bound's order.
    EXPECT_GT(most, 0.3);
}

TEST(ExactDistance, the_worst_roundings_need_the_relative_bound) {
    // Every step of a chain rounds the same way: 1, then less than half of the
    // last place again and again.
    const int d = 16 * 200 + 1;
    std::vector<float> x(d), zero(d);
    for (int i = 0; i < d; i += 16) {
        x[i] = i ? std::sqrt(0x1.fep-25f) : 1.0f;
    }
    EXPECT_EQ(distanceOf(Metric::L2, x.data(), zero.data(), d), 1.0f);
    const double share = shareOfBound(Metric::L2, x.data(), zero.data(), d);
    EXPECT_LE(share, 1);
    EXPECT_GT(share, 0.95);
}

/// x - y less half of its last place, its square less almost that, and then
/// four sums, of one chain with another, of two with two, ..., each less as
/// much.
TEST(ExactDistance, every_rounding_on_the_way_is_needed) {
    const float small = std::sqrt(0x1.fcp-25f);
    std::vector<float> x(16), y(16);
    for (int i : {1, 2, 4, 8}) {
        x[i] = small;
    }
    double most = 0;
    for (int step = 0; step < 4096; ++step) {
        x[0] = 1 + 0x1p-23f * float(step);
        y[0] = -0x1.fffffep-25f;
        most = std::max(most, shareOfBound(Metric::L2, x.data(), y.data(), 16));
    }
    EXPECT_LE(most, 1);
    EXPECT_GT(most, 6.5 / 7);

    most = 0;
    for (int step = 0; step < 4096; ++step) {
        x[0] = y[0] = 1 + 0x1p-23f * float(step);
        for (int i : {1, 2, 4, 8}) {
            x[i] = y[i] = small;
        }
        most = std::max(
                most,
                shareOfBound(Metric::InnerProduct, x.data(), y.data(), 16));
    }
    EXPECT_LE(most, 1);
    EXPECT_GT(most, 4.5 / 5);
}

TEST(ExactDistance, where_it_underflows_the_absolute_bound_is_needed) {
    // Each of 16 chains loses just below half of the least float.
    const std::vector<float> x(16, 0x1.fffffep-76f), y(16, 0x1p-75f);
    EXPECT_EQ(distanceOf(Metric::InnerProduct, x.data(), y.data(), 16), 0.0f);
    const double share =
            shareOfBound(Metric::InnerProduct, x.data(), y.data(), 16);
    EXPECT_LE(share, 1);
    EXPECT_GT(share, 0.99);
}

} // namespace
