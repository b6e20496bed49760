#pragma once

#include <faiss_ext/gpu/compute/exact/Float.h>

// D, the distance that an exact search promises: one sequence of float32
// operations on the query as given and the stored components, whoever computes
// it. docs/exact-search.md has the formula and the proof of the error bound.

namespace faiss_ext {
namespace gpu {
namespace exact {

enum class Metric {
    L2,
    InnerProduct,
};

/// Dimension i is accumulated by chain i % kChains, in ascending order. (Four
/// lanes of a warp, each with one load of four components, read whole sectors
/// of a row; each then holds four neighbouring chains.)
constexpr int kChains = 16;

/// A chain, which begins with +0, with one more dimension.
template <Metric metric>
FAISS_EXT_HOST_DEVICE inline float addDimension(float x, float y, float chain) {
    if (metric == Metric::L2) {
        const float difference = subtract(x, y);
        return multiplyAdd(difference, difference, chain);
    }
    return multiplyAdd(x, y, chain);
}

/// Four neighbouring chains, 4g to 4g + 3.
FAISS_EXT_HOST_DEVICE inline float joinChains(
        float c0, float c1, float c2, float c3) {
    return add(add(c0, c1), add(c2, c3));
}

/// D of the four groups of chains. Two lanes may add them in either order:
/// (g0 + g1) + (g2 + g3). A D of zero is +0, so that equal D have equal bits.
FAISS_EXT_HOST_DEVICE inline float joinGroups(
        float g0, float g1, float g2, float g3) {
    return add(joinChains(g0, g1, g2, g3), 0.0f);
}

/// D of a query x [d] and a stored vector y [d], float32 or float16 (which
/// becomes float32 exactly). Kernels divide the chains among lanes instead;
/// a chain may go on over dimensions beyond d, of zeros, without a change.
template <Metric metric, typename Stored>
FAISS_EXT_HOST_DEVICE inline float distance(
        const float* x, const Stored* y, int d) {
    float group[4];
    for (int g = 0; g < 4; ++g) {
        float chain[4] = {0, 0, 0, 0};
        for (int base = 4 * g; base < d; base += kChains) {
            for (int c = 0; c < 4 && base + c < d; ++c) {
                chain[c] = addDimension<metric>(
                        x[base + c], toFloat(y[base + c]), chain[c]);
            }
        }
        group[g] = joinChains(chain[0], chain[1], chain[2], chain[3]);
    }
    return joinGroups(group[0], group[1], group[2], group[3]);
}

/// How far D is from the exact value T, where neither x nor y has a norm above
/// 2^63: |D - T| <= relative * M + absolute, where M is T itself for L2, and
/// |x| |y| for the inner product.
struct DistanceError {
    double relative;
    double absolute;
};

FAISS_EXT_HOST_DEVICE inline DistanceError distanceError(Metric metric, int d) {
    // What a product passes: the roundings of its chain, four additions, and
    // for L2, squared, that of its difference.
    int roundings = (d + kChains - 1) / kChains;
    roundings += 4;
    if (metric == Metric::L2) {
        roundings += 2;
    }
    // Each is by a factor of 1 + e, |e| <= 2^-24; of n of them the product is
    // 1 + e with |e| <= n u / (1 - n u) (Higham, Lemma 3.1).
    const double nu = roundings * 0x1p-24;
    DistanceError error;
    error.relative = nu / (1 - nu) * (1 + 0x1p-50);
    // Where the result of a multiply-add is denormal, it is off by up to
    // 2^-150 instead. The sums after it are exact or as above.
    error.absolute = d * 0x1p-150 * (1 + error.relative) * (1 + 0x1p-50);
    return error;
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
