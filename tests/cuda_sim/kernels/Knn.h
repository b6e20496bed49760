// Exact nearest neighbours by Faiss' own CPU code, on memory that the host can
// touch. Queries go one by one: the answer to one must not depend on how many
// there are, and Faiss' CPU code takes another path, through BLAS, for many.

#pragma once

#include <faiss/MetricType.h>

#include <cstddef>
#include <vector>

#include "Versions.h"

namespace cuda_sim {

/// Throws for a metric that a GPU flat index does not take.
void checkMetric(faiss::MetricType metric);

/// A matrix of floats or halves, in either order, as rows of floats.
struct Matrix {
    const void* data = nullptr; // where a kernel names it
    bool half = false;
    bool rowMajor = true;
    size_t rows = 0;
    size_t dims = 0;

    size_t bytes() const {
        return rows * dims * (half ? 2 : 4);
    }

    /// Only inside an operation. `storage` backs the result where the bytes
    /// cannot be taken as they are.
    const float* floats(std::vector<float>* storage) const;
};

struct Knn {
    faiss::MetricType metric = faiss::METRIC_L2;
    float metricArg = 0;
    Matrix vectors;
    Matrix queries;
    /// Where a kernel names them: the squares of the vectors' lengths, from
    /// which L2 distances are computed on a GPU. Others than these give NaN.
    const float* norms = nullptr;
    /// For each vector whether it may be found; empty: all may.
    std::vector<bool> selected;

    /// Whether the distances are those of L2.
    bool isEuclidean() const;
    /// [queries, k]; k may exceed the number of vectors.
    void search(int k, float* distances, idx_t* labels) const;
    /// [queries, vectors]
    void allPairs(float* distances) const;
};

} // namespace cuda_sim
