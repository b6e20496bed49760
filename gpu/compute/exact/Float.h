#pragma once

#include <faiss_ext/gpu/compute/exact/HostDevice.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

// Single operations in float32, float16 and double whose result is the same on
// the host and on a GPU, bit for bit: rounded once, to nearest and even unless
// the name says another direction; denormal numbers are kept.

namespace faiss_ext {
namespace gpu {
namespace exact {

static_assert(
        FLT_RADIX == 2 && FLT_MANT_DIG == 24 && DBL_MANT_DIG == 53,
        "float is IEEE 754 binary32, double binary64");
static_assert(
        FLT_EVAL_METHOD == 0,
        "float operations are rounded to float, each one");

FAISS_EXT_HOST_DEVICE inline uint32_t bitsOf(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

FAISS_EXT_HOST_DEVICE inline float floatOf(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

FAISS_EXT_HOST_DEVICE inline float infinity() {
    return floatOf(0x7f800000);
}

FAISS_EXT_HOST_DEVICE inline bool isNan(float value) {
    return (bitsOf(value) & 0x7fffffff) > 0x7f800000;
}

/// False for NaN, too.
FAISS_EXT_HOST_DEVICE inline bool isFinite(float value) {
    return (bitsOf(value) & 0x7f800000) != 0x7f800000;
}

// In PTX, and not as an intrinsic or an operator, because these follow nvcc's
// -ftz and -fmad, and what is computed here must not depend on how the rest of
// a file is compiled.

FAISS_EXT_HOST_DEVICE inline float add(float a, float b) {
#ifdef __CUDA_ARCH__
    float sum;
    asm("add.rn.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
    return sum;
#else
    return a + b;
#endif
}

FAISS_EXT_HOST_DEVICE inline float subtract(float a, float b) {
#ifdef __CUDA_ARCH__
    float difference;
    asm("sub.rn.f32 %0, %1, %2;" : "=f"(difference) : "f"(a), "f"(b));
    return difference;
#else
    return a - b;
#endif
}

FAISS_EXT_HOST_DEVICE inline float multiply(float a, float b) {
#ifdef __CUDA_ARCH__
    float product;
    asm("mul.rn.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
    return product;
#else
    return a * b;
#endif
}

/// a b + c, rounded once.
FAISS_EXT_HOST_DEVICE inline float multiplyAdd(float a, float b, float c) {
#ifdef __CUDA_ARCH__
    float result;
    asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(result) : "f"(a), "f"(b), "f"(c));
    return result;
#else
    return std::fma(a, b, c);
#endif
}

/// Exact.
FAISS_EXT_HOST_DEVICE inline double toDouble(float value) {
#ifdef __CUDA_ARCH__
    double wide;
    asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(value));
    return wide;
#else
    return value;
#endif
}

/// The nearest float, of two the even one; infinity beyond the largest.
FAISS_EXT_HOST_DEVICE inline float nearestFloat(double value) {
#ifdef __CUDA_ARCH__
    float nearest;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(nearest) : "d"(value));
    return nearest;
#else
    return static_cast<float>(value);
#endif
}

/// The least float above a number. NaN and infinity stay what they are.
FAISS_EXT_HOST_DEVICE inline float nextUp(float value) {
    const uint32_t bits = bitsOf(value);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000 || bits == 0x7f800000) {
        return value;
    }
    if (magnitude == 0) {
        return floatOf(1);
    }
    return floatOf(bits >> 31 ? bits - 1 : bits + 1);
}

/// The greatest float below a number. NaN and -infinity stay what they are.
FAISS_EXT_HOST_DEVICE inline float nextDown(float value) {
    return -nextUp(-value);
}

/// Not below the exact a b + c.
FAISS_EXT_HOST_DEVICE inline float multiplyAddAbove(float a, float b, float c) {
    return nextUp(multiplyAdd(a, b, c));
}

/// The least float that is not below a double.
FAISS_EXT_HOST_DEVICE inline float floatAbove(double value) {
    const float nearest = static_cast<float>(value);
    return static_cast<double>(nearest) < value ? nextUp(nearest) : nearest;
}

/// The greatest float that is not above a double.
FAISS_EXT_HOST_DEVICE inline float floatBelow(double value) {
    const float nearest = static_cast<float>(value);
    return static_cast<double>(nearest) > value ? nextDown(nearest) : nearest;
}

/// 2 to the power of -126 to 127.
FAISS_EXT_HOST_DEVICE inline float powerOfTwo(int exponent) {
    return floatOf(static_cast<uint32_t>(exponent + 127) << 23);
}

/// A float16 number, as its bits: CUDA's __half without CUDA's header.
struct Half {
    uint16_t bits;
};

FAISS_EXT_HOST_DEVICE inline bool isFinite(Half half) {
    return (half.bits & 0x7c00) != 0x7c00;
}

/// Exact.
FAISS_EXT_HOST_DEVICE inline float toFloat(Half half) {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half.bits));
    return value;
#else
    const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000) << 16;
    const uint32_t magnitude = half.bits & 0x7fff;
    if (magnitude >= 0x7c00) {
        return floatOf(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    }
    if (magnitude < 0x400) {
        // A denormal number: that many times 2^-24.
        const float value = static_cast<float>(magnitude) * powerOfTwo(-24);
        return floatOf(sign | bitsOf(value));
    }
    return floatOf(sign | ((magnitude << 13) + (uint32_t(127 - 15) << 23)));
#endif
}

/// As a vector's component that is float32 already.
FAISS_EXT_HOST_DEVICE inline float toFloat(float value) {
    return value;
}

/// The nearest float16 number, of two the even one; infinity from 65520 on.
FAISS_EXT_HOST_DEVICE inline Half toHalf(float value) {
#ifdef __CUDA_ARCH__
    Half half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
    return half;
#else
    const uint32_t bits = bitsOf(value);
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000) {
        half = 0x7fff;
    } else if (magnitude >= 0x477ff000) {
        half = 0x7c00;
    } else if (magnitude < 0x38800000) {
        // Denormal as a half: adding 2^-1 makes the float's own rounding that
        // of multiples of 2^-24.
        half = bitsOf(floatOf(magnitude) + 0.5f) - bitsOf(0.5f);
    } else {
        const uint32_t odd = magnitude >> 13 & 1;
        half = (magnitude + 0xfff + odd - (uint32_t(127 - 15) << 23)) >> 13;
    }
    return Half{static_cast<uint16_t>(sign | half)};
#endif
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
