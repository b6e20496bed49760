#pragma once

#include <faiss_ext/gpu/compute/exact/Float.h>

namespace faiss_ext {
namespace gpu {
namespace exact {

/// How tensor cores add float16 products to a float32 accumulator, as measured
/// by others (docs/exact-search.md): `group` products and the accumulator are
/// aligned with the largest of them, cut off `fractionalBits` bits below its
/// leading one, added, and the sum is cut off to float32. NVIDIA does not
/// promise it, hence `factor`, by which the bound is larger than that.
struct TensorArithmetic {
    int group;
    int fractionalBits;
    double factor;
};

FAISS_EXT_HOST_DEVICE constexpr TensorArithmetic hopperArithmetic() {
    return {16, 25, 4};
}

FAISS_EXT_HOST_DEVICE constexpr TensorArithmetic ampereArithmetic() {
    return {8, 24, 4};
}

/// The scores' error, as a part of |x'| |y'|, the norms of the copies of d
/// components. Infinity where no bound is left.
FAISS_EXT_HOST_DEVICE inline double accumulationError(
        const TensorArithmetic& arithmetic, int d) {
    const int steps = (d + arithmetic.group - 1) / arithmetic.group;
    // A step cuts off each of group + 1 numbers, and its sum. A matrix product
    // may be made of parts, whose sums are added as float32 in any order: that
    // makes no more error, since each further part takes a step or more from
    // the others, and its addition (2^-23 at most) costs less than a step.
    double step =
            ldexp(double(arithmetic.group + 1), -arithmetic.fractionalBits);
    step += 0x1p-23;
    // Each step is relative to sums that the steps before it have made larger:
    // (1 + step)^steps - 1 <= steps step / (1 - steps step).
    const double all = arithmetic.factor * step * steps;
    return all < 0.5 ? all / (1 - all) * (1 + 0x1p-48) : double(infinity());
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
