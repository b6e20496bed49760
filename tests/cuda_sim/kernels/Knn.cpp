#include "Knn.h"

#include <cuda_fp16.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/utils/Heap.h>
#include <faiss/utils/distances.h>
#include <faiss/utils/extra_distances.h>

#include <algorithm>
#include <cmath>
#include <limits>

#if CUDA_SIM_FAISS_VERSION >= 10704
#include <faiss/impl/IDSelector.h>
#endif

#include "../cuda_sim_kernel.h"

namespace cuda_sim {

namespace {

#if CUDA_SIM_FAISS_VERSION >= 10704
struct Selected : faiss::IDSelector {
    explicit Selected(const std::vector<bool>& flags) : flags(flags) {}
    bool is_member(faiss::idx_t id) const override {
        return flags[id];
    }
    const std::vector<bool>& flags;
};
#endif

/// A test hook of the GPU code: Lp with -1 is L2.
faiss::MetricType effective(faiss::MetricType metric, float arg) {
    return metric == faiss::METRIC_Lp && arg == -1 ? faiss::METRIC_L2 : metric;
}

/// Whether they are those of vectors y [n, d], but for rounding.
bool areNormsOf(const float* norms, const float* y, size_t n, size_t d) {
    for (size_t i = 0; i < n; ++i) {
        const float norm = faiss::fvec_norm_L2sqr(y + i * d, d);
        if (std::abs(norms[i] - norm) > 1e-4f * norm) {
            return false;
        }
    }
    return true;
}

} // namespace

void checkMetric(faiss::MetricType metric) {
    switch (metric) {
        case faiss::METRIC_INNER_PRODUCT:
        case faiss::METRIC_L2:
        case faiss::METRIC_L1:
        case faiss::METRIC_Linf:
        case faiss::METRIC_Lp:
        case faiss::METRIC_Canberra:
        case faiss::METRIC_BrayCurtis:
        case faiss::METRIC_JensenShannon:
            return;
        default:
            FAISS_THROW_FMT("unimplemented metric type %d", int(metric));
    }
}

const float* Matrix::floats(std::vector<float>* storage) const {
    const void* bytes = cuda_sim_view(data);
    if (!half && rowMajor) {
        return static_cast<const float*>(bytes);
    }
    auto at = [&](size_t i) {
        return half ? __half2float(static_cast<const __half*>(bytes)[i])
                    : static_cast<const float*>(bytes)[i];
    };
    storage->resize(rows * dims);
    for (size_t row = 0; row < rows; ++row) {
        for (size_t dim = 0; dim < dims; ++dim) {
            (*storage)[row * dims + dim] =
                    at(rowMajor ? row * dims + dim : dim * rows + row);
        }
    }
    return storage->data();
}

bool Knn::isEuclidean() const {
    return metric == faiss::METRIC_L2 ||
           (metric == faiss::METRIC_Lp && metricArg == 2);
}

void Knn::search(int k, float* distances, idx_t* labels) const {
    if (vectors.rows == 0) {
        // What the GPU code fills in, whatever the metric.
        std::fill_n(
                distances, queries.rows * k, std::numeric_limits<float>::max());
        std::fill_n(labels, queries.rows * k, -1);
        return;
    }
    std::vector<float> vectorStorage, queryStorage;
    const float* y = vectors.floats(&vectorStorage);
    const float* x = queries.floats(&queryStorage);
    size_t d = vectors.dims;
    size_t n = vectors.rows;
    if (norms && !areNormsOf(cuda_sim::view(norms), y, n, d)) {
        std::fill_n(distances, queries.rows * k, std::nanf(""));
        std::fill_n(labels, queries.rows * k, -1);
        return;
    }
    auto type = effective(metric, metricArg);
#if CUDA_SIM_FAISS_VERSION >= 10704
    Selected selector(selected);
    faiss::IDSelector* sel = selected.empty() ? nullptr : &selector;
#endif

    for (size_t i = 0; i < queries.rows; ++i) {
        const float* query = x + i * d;
        float* dis = distances + i * k;
        auto* ids = labels + i * k;
        if (type == faiss::METRIC_INNER_PRODUCT) {
            faiss::float_minheap_array_t result = {1, size_t(k), ids, dis};
#if CUDA_SIM_FAISS_VERSION >= 10704
            faiss::knn_inner_product(query, y, d, 1, n, &result, sel);
#else
            faiss::knn_inner_product(query, y, d, 1, n, &result);
#endif
        } else if (type == faiss::METRIC_L2) {
            faiss::float_maxheap_array_t result = {1, size_t(k), ids, dis};
#if CUDA_SIM_FAISS_VERSION >= 10704
            faiss::knn_L2sqr(query, y, d, 1, n, &result, nullptr, sel);
#else
            faiss::knn_L2sqr(query, y, d, 1, n, &result);
#endif
        } else {
#if CUDA_SIM_FAISS_VERSION >= 11400
            faiss::knn_extra_metrics(
                    query, y, d, 1, n, type, metricArg, k, dis, ids, sel);
#elif CUDA_SIM_FAISS_VERSION >= 10900
            faiss::knn_extra_metrics(
                    query, y, d, 1, n, type, metricArg, k, dis, ids);
#else
            faiss::float_maxheap_array_t result = {1, size_t(k), ids, dis};
            faiss::knn_extra_metrics(
                    query, y, d, 1, n, type, metricArg, &result);
#endif
        }
    }
}

void Knn::allPairs(float* distances) const {
    std::vector<float> vectorStorage, queryStorage;
    const float* y = vectors.floats(&vectorStorage);
    const float* x = queries.floats(&queryStorage);
    size_t d = vectors.dims;
    size_t n = vectors.rows;
    auto type = effective(metric, metricArg);
    if (type != faiss::METRIC_L2 && type != faiss::METRIC_INNER_PRODUCT) {
        faiss::pairwise_extra_distances(
                d, queries.rows, x, n, y, type, metricArg, distances);
        return;
    }
    for (size_t i = 0; i < queries.rows; ++i) {
        for (size_t j = 0; j < n; ++j) {
            distances[i * n + j] =
                    type == faiss::METRIC_L2
                            ? faiss::fvec_L2sqr(x + i * d, y + j * d, d)
                            : faiss::fvec_inner_product(
                                      x + i * d, y + j * d, d);
        }
    }
}

} // namespace cuda_sim
