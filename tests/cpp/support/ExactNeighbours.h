#pragma once

// What an exact search must find, bit for bit: a plain loop over D and the
// order of results.

#include <faiss/MetricType.h>
#include <faiss_ext/gpu/compute/exact/Order.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "Neighbours.h"

namespace test {

/// As a store has them: float16 rounds.
inline std::vector<float> asStored(std::vector<float> base, bool float16) {
    namespace exact = faiss_ext::gpu::exact;
    if (float16) {
        for (float& component : base) {
            component = exact::toFloat(exact::toHalf(component));
        }
    }
    return base;
}

/// `stored` as asStored makes them.
inline Neighbours searchExactly(
        const std::vector<float>& stored,
        const std::vector<float>& queries,
        int d,
        int k,
        faiss::MetricType metric) {
    namespace exact = faiss_ext::gpu::exact;
    const bool l2 = metric == faiss::METRIC_L2;
    const auto kind = l2 ? exact::Metric::L2 : exact::Metric::InnerProduct;
    const size_t n = queries.size() / d;
    const size_t nb = stored.size() / d;
    Neighbours found{std::vector<float>(n * k), std::vector<int64_t>(n * k)};
    std::vector<uint64_t> keys(nb);
    for (size_t i = 0; i < n; ++i) {
        const float* const x = queries.data() + i * d;
        for (size_t j = 0; j < nb; ++j) {
            const float* const y = stored.data() + j * d;
            const float distance =
                    l2 ? exact::distance<exact::Metric::L2>(x, y, d)
                       : exact::distance<exact::Metric::InnerProduct>(x, y, d);
            keys[j] =
                    exact::resultKey(kind, distance, static_cast<uint32_t>(j));
        }
        const size_t known = std::min<size_t>(k, nb);
        std::partial_sort(keys.begin(), keys.begin() + known, keys.end());
        for (size_t j = 0; j < size_t(k); ++j) {
            const uint64_t key = j < known ? keys[j] : exact::kMissing;
            found.distances[i * k + j] = exact::distanceOf(kind, key);
            found.labels[i * k + j] = exact::labelOf(key);
        }
    }
    return found;
}

/// Bits and labels; the first difference is told.
inline void expectSameBits(
        const Neighbours& found, const Neighbours& right, int k) {
    ASSERT_EQ(found.labels.size(), right.labels.size());
    for (size_t i = 0; i < right.labels.size(); ++i) {
        const std::string where = "query " + std::to_string(i / k) +
                                  ", neighbour " + std::to_string(i % k);
        ASSERT_EQ(found.labels[i], right.labels[i]) << where;
        ASSERT_EQ(
                faiss_ext::gpu::exact::bitsOf(found.distances[i]),
                faiss_ext::gpu::exact::bitsOf(right.distances[i]))
                << where << ": " << found.distances[i] << " instead of "
                << right.distances[i];
    }
}

} // namespace test
