#pragma once

// Vectors and queries that are hard on the arithmetic of the exact search.

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "support/ExactFilter.h"

namespace test {

/// A made-up data set: vectors [nb, d] and queries [n, d].
struct ExactCase {
    std::string name;
    int d;
    std::vector<float> vectors;
    std::vector<float> queries;

    int64_t nb() const {
        return int64_t(vectors.size()) / d;
    }
    int64_t n() const {
        return int64_t(queries.size()) / d;
    }
    const float* query(int64_t i) const {
        return queries.data() + i * d;
    }

    /// As a store of either kind; float16 rounds the vectors first.
    Store store(Metric metric, bool half) const {
        Store made{metric, d, {}, {}};
        if (half) {
            for (float value : vectors) {
                made.halves.push_back(exact::toHalf(value));
            }
        } else {
            made.rows = vectors;
        }
        return made;
    }
};

/// Makes components of a row from a number of it: vectors first, then queries.
using Components = std::function<float(int64_t row, int i)>;

inline ExactCase makeCase(
        const std::string& name,
        int d,
        int nb,
        int n,
        const Components& components) {
    ExactCase made{name, d, {}, {}};
    for (int64_t row = 0; row < nb + n; ++row) {
        for (int i = 0; i < d; ++i) {
            (row < nb ? made.vectors : made.queries)
                    .push_back(components(row, i));
        }
    }
    return made;
}

/// All kinds of data, of one dimension.
inline std::vector<ExactCase> exactCases(int d, int nb, int n, unsigned seed) {
    std::mt19937 random(seed * 7919u + unsigned(d));
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> uniform;
    std::uniform_int_distribution<int> byte(0, 255);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = exact::infinity();
    std::vector<ExactCase> cases;
    const auto add = [&](const char* name, const Components& components) {
        cases.push_back(makeCase(name, d, nb, n, components));
    };
    const auto any = [&](int64_t, int) { return normal(random); };
    const auto sign = [&] { return random() & 1 ? 1.0f : -1.0f; };
    add("normal", any);
    add("uniform", [&](int64_t, int) { return uniform(random); });
    add("bytes", [&](int64_t, int) { return float(byte(random)); });
    add("one hundred and a little",
        [&](int64_t, int) { return 100 + 0.01f * normal(random); });
    add("all equal", [&](int64_t, int i) { return 0.1f * float(i % 7 + 1); });
    add("all zero", [&](int64_t, int) { return 0.0f; });
    std::vector<float> one(d);
    for (float& value : one) {
        value = normal(random);
    }
    add("near duplicates", [&](int64_t, int i) {
        return one[i] * (1 + 0x1p-22f * float(random() % 5));
    });
    add("denormal", [&](int64_t, int) { return normal(random) * 0x1p-140f; });
    add("squares are denormal",
        [&](int64_t, int) { return normal(random) * 0x1p-70f; });
    add("tiny", [&](int64_t, int) { return normal(random) * 1e-15f; });
    add("huge", [&](int64_t, int) { return normal(random) * 1e15f; });
    add("too large", [&](int64_t, int) { return normal(random) * 1e30f; });
    add("at the limit of the range", [&](int64_t row, int) {
        return std::ldexp(normal(random), 58 + int(row % 5));
    });
    add("tiny vectors, huge queries", [&](int64_t row, int) {
        return normal(random) * (row < nb ? 1e-12f : 1e12f);
    });
    add("one 1e30 among ones", [&](int64_t row, int i) {
        return row == nb / 2 && i == 0 ? 1e30f : 1 + 0.1f * normal(random);
    });
    add("one 2^40 among ones", [&](int64_t row, int i) {
        return row == nb / 2 && i == 0 ? 0x1p40f : 1 + 0.1f * normal(random);
    });
    add("norms of every size", [&](int64_t row, int) {
        return std::ldexp(normal(random), int(row * 37 % 41) - 20);
    });
    add("components of every size", [&](int64_t, int) {
        return std::ldexp(normal(random), int(random() % 61) - 30);
    });
    add("cancelling", [&](int64_t row, int i) {
        // Products of great size, of either sign, whose sum is small.
        const float size = i % 2 ? 3000.0f : -3000.0f;
        return row < nb ? 3000.0f + normal(random) : size + normal(random);
    });
    add("as coarse as can be", [&](int64_t, int) {
        // Halfway between two halves, or next to it.
        return sign() * (1 + 0x1p-11f + 0x1p-23f * float(random() % 3));
    });
    add("coarse, one sign", [&](int64_t, int) {
        return 1 + 0x1p-11f - 0x1p-23f * float(random() % 3);
    });
    add("not finite", [&](int64_t row, int i) {
        const float value = normal(random);
        if (row % 3 || i != int(row) % d) {
            return value;
        }
        return row % 9 == 0 ? nan : row % 2 ? inf : -inf;
    });
    add("queries beside the vectors", [&](int64_t, int) { return 0.0f; });
    ExactCase& beside = cases.back();
    for (float& value : beside.vectors) {
        value = 5 + normal(random);
    }
    for (size_t i = 0; i < beside.queries.size(); ++i) {
        beside.queries[i] = beside.vectors[i % beside.vectors.size()];
        if (random() % 4 == 0) {
            beside.queries[i] = exact::nextUp(beside.queries[i]);
        }
    }
    return cases;
}

} // namespace test
