// The rows of the self-test: tensor cores as measured pass, and others fail.

#include <faiss_ext/gpu/compute/exact/SelfTest.h>

#include <gtest/gtest.h>

#include <functional>

#include "support/TensorCoreModel.h"

namespace {

using faiss_ext::gpu::exact::Half;
using faiss_ext::gpu::exact::TensorArithmetic;

namespace exact = faiss_ext::gpu::exact;

constexpr int kRows = exact::kSelfTestRows;
constexpr int kD = exact::kSelfTestDimensions;

std::vector<Half> rowOf(int side, int row) {
    std::vector<Half> halves;
    for (int i = 0; i < kD; ++i) {
        halves.push_back(exact::selfTestComponent(side, row, i));
    }
    return halves;
}

using Dot = std::function<float(const Half* a, const Half* b)>;

/// How many pairs of rows fail.
int failures(const Dot& dot) {
    int failed = 0;
    for (int query = 0; query < kRows; ++query) {
        for (int vector = 0; vector < kRows; ++vector) {
            const float score =
                    dot(rowOf(0, query).data(), rowOf(1, vector).data());
            failed += !exact::selfTestPasses(
                    score, query, vector, exact::hopperArithmetic());
        }
    }
    return failed;
}

Dot modelOf(const TensorArithmetic& arithmetic, int parts) {
    return [=](const Half* a, const Half* b) {
        return test::tensorDot(arithmetic, a, b, kD, parts);
    };
}

TEST(SelfTest, tensor_cores_as_measured_pass) {
    for (int parts : {1, 2, 16}) {
        EXPECT_EQ(failures(modelOf(exact::hopperArithmetic(), parts)), 0);
        EXPECT_EQ(failures(modelOf(exact::ampereArithmetic(), parts)), 0);
    }
}

TEST(SelfTest, sums_of_fewer_bits_fail) {
    for (int bits = 6; bits <= 21; ++bits) {
        EXPECT_GT(failures(modelOf({16, bits, 1}, 1)), 0) << bits;
    }
}

TEST(SelfTest, sums_in_float16_fail) {
    EXPECT_GT(
            failures([](const Half* a, const Half* b) {
                float sum = 0;
                for (int i = 0; i < kD; ++i) {
                    sum = exact::toFloat(exact::toHalf(
                            sum + exact::toFloat(a[i]) * exact::toFloat(b[i])));
                }
                return sum;
            }),
            0);
}

TEST(SelfTest, denormal_numbers_that_are_zero_fail) {
    EXPECT_GT(
            failures([](const Half* a, const Half* b) {
                double sum = 0;
                for (int i = 0; i < kD; ++i) {
                    const bool denormal = (a[i].bits & 0x7c00) == 0;
                    sum += denormal ? 0
                                    : double(exact::toFloat(a[i])) *
                                              exact::toFloat(b[i]);
                }
                return float(sum);
            }),
            0);
}

TEST(SelfTest, components_of_eight_bits_fail) {
    // As bfloat16 would keep them.
    const auto cut = [](Half half) {
        return exact::floatOf(exact::bitsOf(exact::toFloat(half)) & 0xffff0000);
    };
    EXPECT_GT(
            failures([&](const Half* a, const Half* b) {
                double sum = 0;
                for (int i = 0; i < kD; ++i) {
                    sum += double(cut(a[i])) * cut(b[i]);
                }
                return float(sum);
            }),
            0);
}

TEST(SelfTest, scores_that_are_no_numbers_or_missing_fail) {
    const auto arithmetic = exact::hopperArithmetic();
    for (int row = 0; row < kRows; ++row) {
        for (float score :
             {std::numeric_limits<float>::quiet_NaN(),
              exact::infinity(),
              -exact::infinity(),
              0.0f}) {
            EXPECT_FALSE(exact::selfTestPasses(score, row, row, arithmetic))
                    << row;
        }
    }
}

} // namespace
