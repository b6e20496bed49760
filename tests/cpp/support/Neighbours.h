#pragma once

// Test vectors and the oracle. Components are small integers, so that every
// distance is exact in float32 and float16, however it is computed: results
// can be compared to the bit, on the simulator and on a GPU.

#include <faiss/IndexFlat.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace test {

inline std::vector<float> randomVectors(size_t n, size_t d, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<int> component(-7, 7);
    std::vector<float> vectors(n * d);
    for (float& value : vectors) {
        value = static_cast<float>(component(random));
    }
    return vectors;
}

struct Neighbours {
    std::vector<float> distances;
    std::vector<int64_t> labels;
};

/// Exact search by Faiss on the CPU.
inline Neighbours searchOnCpu(
        const std::vector<float>& base,
        const std::vector<float>& queries,
        int d,
        int k,
        faiss::MetricType metric = faiss::METRIC_L2,
        float metricArg = 0) {
    faiss::IndexFlat index(d, metric);
    index.metric_arg = metricArg;
    if (!base.empty()) {
        index.add(base.size() / d, base.data());
    }
    const size_t n = queries.size() / d;
    Neighbours found{std::vector<float>(n * k), std::vector<int64_t>(n * k)};
    index.search(
            n, queries.data(), k, found.distances.data(), found.labels.data());
    return found;
}

/// For L2, L1 and inner products. Distances must be the oracle's; a label must
/// be the oracle's, or one of a vector at the same distance, and none may come
/// twice for one query.
inline void expectNeighbours(
        const Neighbours& found,
        const Neighbours& oracle,
        const std::vector<float>& base,
        const std::vector<float>& queries,
        int d,
        int k,
        faiss::MetricType metric = faiss::METRIC_L2) {
    ASSERT_EQ(found.labels.size(), oracle.labels.size());
    const int64_t ntotal = base.size() / d;
    for (size_t i = 0; i < oracle.labels.size(); ++i) {
        const std::string where = "query " + std::to_string(i / k) +
                                  ", neighbour " + std::to_string(i % k);
        if (oracle.labels[i] == -1) {
            ASSERT_EQ(found.labels[i], -1) << where;
            continue;
        }
        ASSERT_EQ(found.distances[i], oracle.distances[i]) << where;
        const int64_t label = found.labels[i];
        ASSERT_GE(label, 0) << where;
        ASSERT_LT(label, ntotal) << where;
        if (label == oracle.labels[i]) {
            continue;
        }
        const float* x = queries.data() + i / k * d;
        const float* y = base.data() + label * d;
        double distance = 0;
        for (int j = 0; j < d; ++j) {
            const double difference = x[j] - y[j];
            distance += metric == faiss::METRIC_L2   ? difference * difference
                        : metric == faiss::METRIC_L1 ? std::abs(difference)
                                                     : x[j] * y[j];
        }
        ASSERT_EQ(static_cast<float>(distance), oracle.distances[i]) << where;
    }
    for (size_t query = 0; query * k < found.labels.size(); ++query) {
        std::set<int64_t> seen;
        for (int j = 0; j < k; ++j) {
            const int64_t label = found.labels[query * k + j];
            ASSERT_TRUE(label == -1 || seen.insert(label).second)
                    << "label " << label << " twice for query " << query;
        }
    }
}

} // namespace test
