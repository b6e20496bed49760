#pragma once

#include <faiss_ext/gpu/compute/exact/Float.h>

// Vectors of length one, as cosine similarity needs them: one sequence of
// operations in double, whoever computes it, so that every bit is the same on
// the host and on a GPU. docs/exact-search.md has the formula.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Component i is accumulated by chain i % kNormChains, in ascending order.
/// (The 32 lanes of a warp, each with one load of four components.)
constexpr int kNormLanes = 32;
constexpr int kNormChains = 4 * kNormLanes;

/// A chain, which begins with 0, with the square of one more component. The
/// square is exact in double, so a fused multiply-add gives the same. Squares
/// of floats neither overflow nor underflow there.
FAISS_EXT_HOST_DEVICE inline double addSquare(float x, double chain) {
    const double wide = toDouble(x);
    return wide * wide + chain;
}

/// Of one lane: its four neighbouring chains. Lanes are then added in halves,
/// lane l and lane l + 16, then l + 8, 4, 2, 1.
FAISS_EXT_HOST_DEVICE inline double joinNormChains(
        double c0, double c1, double c2, double c3) {
    return (c0 + c1) + (c2 + c3);
}

/// What the components of a vector with this sum of squares are multiplied by.
/// 1 for zeros, which have no direction, and for vectors that are normalised
/// already: the squares of rounded components sum up to 1 within 2^-23 and a
/// little, and so whoever normalises twice changes nothing. NaN where a
/// component is NaN or infinite.
FAISS_EXT_HOST_DEVICE inline double normFactor(double sumOfSquares) {
    const double off = sumOfSquares - 1;
    if (sumOfSquares == 0 || (off <= 0x1p-22 && off >= -0x1p-22)) {
        return 1;
    }
    const bool finite = sumOfSquares <= DBL_MAX;
    return finite ? 1 / sqrt(sumOfSquares) : floatOf(0x7fc00000);
}

/// A component of the normalised vector. NaN has one form.
FAISS_EXT_HOST_DEVICE inline float normalizedComponent(float x, double factor) {
    const float product = nearestFloat(toDouble(x) * factor);
    return isNan(product) ? floatOf(0x7fc00000) : product;
}

/// x [d] as a vector of length one, to y [d], which may be x. Kernels divide
/// the chains among lanes instead.
FAISS_EXT_HOST_DEVICE inline void normalize(const float* x, int d, float* y) {
    double lanes[kNormLanes];
    for (int lane = 0; lane < kNormLanes; ++lane) {
        double chain[4] = {0, 0, 0, 0};
        for (int base = 4 * lane; base < d; base += kNormChains) {
            for (int c = 0; c < 4 && base + c < d; ++c) {
                chain[c] = addSquare(x[base + c], chain[c]);
            }
        }
        lanes[lane] = joinNormChains(chain[0], chain[1], chain[2], chain[3]);
    }
    for (int half = kNormLanes / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; ++lane) {
            lanes[lane] += lanes[lane + half];
        }
    }
    const double factor = normFactor(lanes[0]);
    for (int i = 0; i < d; ++i) {
        y[i] = normalizedComponent(x[i], factor);
    }
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
