#pragma once

namespace faiss_ext {
namespace gpu {

/// a / b, not below it; for a >= 0 and b > 0.
template <typename T>
constexpr T divideUp(T a, T b) {
    return (a + b - 1) / b;
}

/// The smallest multiple of b that is not below a.
template <typename T>
constexpr T roundUp(T a, T b) {
    return divideUp(a, b) * b;
}

} // namespace gpu
} // namespace faiss_ext
