#pragma once

// What normalised vectors must be, bit for bit: the formula of
// docs/exact-search.md in plain C++, and vectors to try it on.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <ostream>
#include <random>
#include <vector>

namespace test {

/// Compared by their bits, so that NaN equals itself and -0 is not 0.
struct Bits {
    explicit Bits(const std::vector<float>& of) : values(of), bits(of.size()) {
        std::memcpy(bits.data(), of.data(), of.size() * sizeof(float));
    }
    bool operator==(const Bits& other) const {
        return bits == other.bits;
    }
    friend std::ostream& operator<<(std::ostream& out, const Bits& bits) {
        for (float value : bits.values) {
            out << value << ' ';
        }
        return out;
    }
    std::vector<float> values;
    std::vector<uint32_t> bits;
};

/// Of rows [n, d]. In steps that no compiler may join.
inline std::vector<float> asDocumented(const std::vector<float>& rows, int d) {
    std::vector<float> made(rows.size());
    for (size_t row = 0; row < rows.size(); row += d) {
        double chains[128] = {};
        for (int i = 0; i < d; ++i) {
            const double x = rows[row + i];
            const volatile double square = x * x;
            chains[i % 128] += square;
        }
        double lanes[32];
        for (int l = 0; l < 32; ++l) {
            const volatile double low = chains[4 * l] + chains[4 * l + 1];
            const volatile double high = chains[4 * l + 2] + chains[4 * l + 3];
            lanes[l] = low + high;
        }
        for (int half : {16, 8, 4, 2, 1}) {
            for (int l = 0; l < half; ++l) {
                lanes[l] += lanes[l + half];
            }
        }
        const double sum = lanes[0];
        const volatile double root = std::sqrt(sum);
        const bool stays = sum == 0 || std::fabs(sum - 1) <= std::ldexp(1, -22);
        const volatile double factor = stays             ? 1
                                       : std::isinf(sum) ? std::nan("")
                                                         : 1 / root;
        for (int i = 0; i < d; ++i) {
            const volatile double product = rows[row + i] * factor;
            const float y = static_cast<float>(product);
            made[row + i] =
                    std::isnan(y) ? std::numeric_limits<float>::quiet_NaN() : y;
        }
    }
    return made;
}

/// With one form of NaN: conversions of it to float16 have several.
inline std::vector<float> oneNan(std::vector<float> values) {
    for (float& value : values) {
        value = std::isnan(value) ? std::numeric_limits<float>::quiet_NaN()
                                  : value;
    }
    return values;
}

/// Components in [-size, size], some of them zero.
inline std::vector<float> rowsOfSize(int n, int d, float size, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> distribution(-1, 1);
    std::vector<float> rows(size_t(n) * d);
    for (float& component : rows) {
        component = random() % 8 ? distribution(random) * size : 0.0f;
    }
    return rows;
}

/// Rows that are odd in one way each, among ordinary ones: zeros, NaN,
/// infinities, norms that overflow and underflow float32.
inline std::vector<float> oddRows(int n, int d, unsigned seed) {
    std::vector<float> rows;
    for (int i = 0; i < n; ++i) {
        constexpr float kSizes[] = {
                1, 0, 1e30f, 1e-40f, 3e38f, 1, 1, 1, 1e-25f};
        auto row = rowsOfSize(1, d, kSizes[i % 9], seed * 1000 + i);
        if (i % 9 == 5) {
            row[i % d] = std::numeric_limits<float>::quiet_NaN();
        } else if (i % 9 == 6) {
            row[i % d] = -std::numeric_limits<float>::infinity();
        }
        rows.insert(rows.end(), row.begin(), row.end());
    }
    return rows;
}

} // namespace test
