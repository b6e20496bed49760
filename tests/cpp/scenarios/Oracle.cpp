#include "Oracle.h"

#include <faiss/IndexFlat.h>

#include "../support/ExactNeighbours.h"

namespace scenarios {

namespace {

float distance(
        const std::vector<float>& base,
        const float* query,
        idx_t label,
        int d,
        bool innerProduct) {
    float sum = 0;
    for (int j = 0; j < d; ++j) {
        const float y = base[label * d + j];
        sum += innerProduct ? query[j] * y : (query[j] - y) * (query[j] - y);
    }
    return sum;
}

void requireExact(
        const std::vector<float>& base,
        const std::vector<float>& queries,
        int d,
        int k,
        bool innerProduct,
        const float* distances,
        const idx_t* labels) {
    const auto right = test::searchExactly(
            base,
            queries,
            d,
            k,
            innerProduct ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2);
    for (size_t i = 0; i < right.labels.size(); ++i) {
        const std::string where = "query " + std::to_string(i / k) +
                                  ", neighbour " + std::to_string(i % k) + ": ";
        require(labels[i] == right.labels[i],
                where + "label " + std::to_string(labels[i]) + " instead of " +
                        std::to_string(right.labels[i]));
        require(!distances || distances[i] == right.distances[i],
                where + "another distance than D");
    }
}

} // namespace

void requireNeighbours(
        const std::vector<float>& base,
        const std::vector<float>& queries,
        int d,
        int k,
        bool innerProduct,
        bool exact,
        const float* distances,
        const idx_t* labels) {
    if (exact) {
        requireExact(base, queries, d, k, innerProduct, distances, labels);
        return;
    }
    const idx_t ntotal = base.size() / d;
    faiss::IndexFlat index(
            d, innerProduct ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2);
    index.add(ntotal, base.data());
    const idx_t n = queries.size() / d;
    std::vector<float> right(n * k);
    std::vector<idx_t> rightLabels(n * k);
    index.search(n, queries.data(), k, right.data(), rightLabels.data());
    for (idx_t i = 0; i < n * k; ++i) {
        const std::string where = "query " + std::to_string(i / k) + " of " +
                                  std::to_string(n) + ", neighbour " +
                                  std::to_string(i % k) + ": ";
        const idx_t label = labels[i];
        // Faiss' label of the first neighbour among none is not always -1.
        if (rightLabels[i] == -1 || ntotal == 0) {
            require(label == -1, where + "a label too many");
            continue;
        }
        if (distances) {
            require(distances[i] == right[i],
                    where + "distance " + std::to_string(distances[i]) +
                            " instead of " + std::to_string(right[i]));
        }
        require(label >= 0 && label < ntotal,
                where + "label " + std::to_string(label));
        require(distance(
                        base,
                        queries.data() + i / k * d,
                        label,
                        d,
                        innerProduct) == right[i],
                where + "label of another vector");
        for (idx_t j = i / k * k; j < i; ++j) {
            require(labels[j] != label, where + "label twice");
        }
    }
}

void requireRows(
        const std::vector<float>& base,
        int d,
        const std::vector<idx_t>& keys,
        const std::vector<float>& from,
        const Bytes& found) {
    const auto values = valuesOf<float>(found);
    for (size_t i = 0; i < values.size(); ++i) {
        const idx_t key = keys[i / d];
        float right = key < 0 ? 0 : base[key * d + i % d];
        if (!from.empty()) {
            right = from[i] - right;
        }
        require(values[i] == right,
                "row " + std::to_string(i / d) + " is not vector " +
                        std::to_string(key));
    }
}

} // namespace scenarios
