#pragma once

// The tensor cores' dot product of float16 numbers, bit for bit as others have
// measured it (arXiv 2511.10909, 2512.07004), in integers; its exact value; and
// an adversary that is as wrong as the bound allows.

#include <faiss_ext/gpu/compute/exact/TensorArithmetic.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace test {

namespace exact = faiss_ext::gpu::exact;
using exact::Half;

/// A finite number: significand * 2^exponent; `leading` is the exponent that
/// the hardware aligns by, of a product the sum of its factors'.
struct Addend {
    int64_t significand;
    int exponent;
    int leading;
};

inline Addend addendOf(Half half) {
    const int field = half.bits >> 10 & 31;
    const int64_t fraction = half.bits & 0x3ff;
    const int64_t sign = half.bits >> 15 ? -1 : 1;
    const int exponent = field ? field - 15 : -14;
    return {sign * (field ? fraction + 0x400 : fraction),
            exponent - 10,
            exponent};
}

inline Addend addendOf(float value) {
    const uint32_t bits = exact::bitsOf(value);
    const int field = bits >> 23 & 255;
    const int64_t fraction = bits & 0x7fffff;
    const int64_t sign = bits >> 31 ? -1 : 1;
    const int exponent = field ? field - 127 : -126;
    return {sign * (field ? fraction + 0x800000 : fraction),
            exponent - 23,
            exponent};
}

inline Addend productOf(Half a, Half b) {
    const Addend x = addendOf(a), y = addendOf(b);
    return {x.significand * y.significand,
            x.exponent + y.exponent,
            x.leading + y.leading};
}

/// value * 2^exponent, cut off to float32.
inline float truncated(int64_t value, int exponent) {
    uint64_t magnitude = std::llabs(value);
    while (magnitude >= uint64_t(1) << 24) {
        magnitude >>= 1;
        ++exponent;
    }
    const float result = std::ldexp(float(magnitude), exponent);
    return value < 0 ? -result : result;
}

/// One step: an accumulator and `count` products, at most 32.
inline float tensorStep(
        const exact::TensorArithmetic& arithmetic,
        float accumulator,
        const Half* a,
        const Half* b,
        int count) {
    std::array<Addend, 33> addends;
    addends[0] = addendOf(accumulator);
    for (int i = 0; i < count; ++i) {
        addends[i + 1] = productOf(a[i], b[i]);
    }
    bool any = false;
    int leading = 0;
    for (int i = 0; i <= count; ++i) {
        const Addend& addend = addends[i];
        if (addend.significand) {
            leading = any ? std::max(leading, addend.leading) : addend.leading;
            any = true;
        }
    }
    const int last = leading - arithmetic.fractionalBits;
    int64_t sum = 0;
    for (int i = 0; i <= count; ++i) {
        const Addend& addend = addends[i];
        const int64_t magnitude = std::llabs(addend.significand);
        const int shift = addend.exponent - last;
        const int64_t aligned = shift >= 0    ? magnitude << shift
                                : shift > -63 ? magnitude >> -shift
                                              : 0;
        sum += addend.significand < 0 ? -aligned : aligned;
    }
    return any ? truncated(sum, last) : 0.0f;
}

/// A score in `parts` (one: no split), whose sums are added as float32, the
/// later ones first.
inline float tensorDot(
        const exact::TensorArithmetic& arithmetic,
        const Half* a,
        const Half* b,
        int d,
        int parts) {
    const int steps = (d + arithmetic.group - 1) / arithmetic.group;
    float total = 0;
    for (int part = parts; part-- > 0;) {
        float sum = 0;
        const int begin = steps * part / parts;
        const int end = steps * (part + 1) / parts;
        for (int step = begin; step < end; ++step) {
            const int from = step * arithmetic.group;
            sum = tensorStep(
                    arithmetic,
                    sum,
                    a + from,
                    b + from,
                    std::min(arithmetic.group, d - from));
        }
        total = part == parts - 1 ? sum : total + sum;
    }
    return total;
}

/// In units of 2^-48, the product of two least halves: exact.
inline __int128 exactDot(const Half* a, const Half* b, int d) {
    __int128 sum = 0;
    for (int i = 0; i < d; ++i) {
        const Addend product = productOf(a[i], b[i]);
        sum += __int128(product.significand) *
               (__int128(1) << (product.exponent + 48));
    }
    return sum;
}

inline double scoreOf(__int128 sum) {
    return double(sum) * 0x1p-48;
}

/// The furthest score from the exact one that a bound, as a part of the norms'
/// product, allows: below it, or above.
inline float adversarialDot(
        double bound, const Half* a, const Half* b, int d, bool above) {
    // Rounded towards the exact one, and that in double within 2^-52.
    const double score = scoreOf(exactDot(a, b, d));
    const double norms =
            std::sqrt(scoreOf(exactDot(a, a, d)) * scoreOf(exactDot(b, b, d)));
    const double error = bound * norms * (1 - 0x1p-40);
    return above ? exact::floatBelow(score + error)
                 : exact::floatAbove(score - error);
}

} // namespace test
