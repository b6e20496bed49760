#pragma once

#include <faiss_ext/gpu/compute/exact/HalfRows.h>
#include <faiss_ext/gpu/compute/exact/TensorArithmetic.h>

// Rows that are hard on the arithmetic that the margin assumes of tensor cores:
// when an engine is first used on a GPU it multiplies these, by the same calls
// as later, and goes on only if every score is within the bound. That proves it
// for these rows alone; it is to notice sums of fewer bits, in float16, or
// without denormal numbers.

namespace faiss_ext {
namespace gpu {
namespace exact {

constexpr int kSelfTestDimensions = 256;
constexpr int kSelfTestRows = 24;

/// Component `i` of a query (side 0) or a vector (side 1), as its copy.
FAISS_EXT_HOST_DEVICE inline Half selfTestComponent(int side, int row, int i) {
    float value;
    if (row < 20) {
        // Beside 1 products of just below 2^-6, ..., 2^-25, which sums of
        // as many bits cut off: 255 of them.
        const int bits = row + 6;
        const int half = bits / 2;
        value = i == 0      ? 1
                : side == 0 ? (1 - 0x1p-11f) * powerOfTwo(-half)
                            : powerOfTwo(half - bits);
    } else if (row == 20) {
        // As many ones as float16 could just count.
        value = 1 + 0x1p-10f * float(i % 8);
    } else if (row == 21) {
        // Denormal numbers by ordinary ones.
        value = side == 0 ? 0x1p-24f * float(1 + i * 3) : 1.0f;
    } else if (row == 22) {
        // Great products that cancel, in one step and in several.
        const float sign = i % 2 == side ? 1.0f : -1.0f;
        value = i % 32 < 2 ? sign * 4 : 0x1p-6f * float(1 + i % 3);
    } else {
        value = float(i * 37 % 101 - 50) * (side == 0 ? 0x1p-5f : 0x1p-7f);
    }
    return toHalf(value);
}

/// Whether the score of two of these rows is within the bound.
FAISS_EXT_HOST_DEVICE inline bool selfTestPasses(
        float score,
        int query,
        int vector,
        const TensorArithmetic& arithmetic) {
    // Sums in double are off by 2^-44 of the norms at most.
    double exactly = 0, x = 0, y = 0;
    for (int i = 0; i < kSelfTestDimensions; ++i) {
        const double a = toFloat(selfTestComponent(0, query, i));
        const double b = toFloat(selfTestComponent(1, vector, i));
        exactly += a * b;
        x += a * a;
        y += b * b;
    }
    const double bound = accumulationError(arithmetic, kSelfTestDimensions) *
                         sqrt(x) * sqrt(y);
    // Written so that NaN fails.
    return fabs(double(score) - exactly) <= bound * (1 + 0x1p-40);
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
