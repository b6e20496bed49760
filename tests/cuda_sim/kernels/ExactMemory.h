// How the stand-ins for the kernels of the exact search read their arrays.

#pragma once

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "../cuda_sim_kernel.h"

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace stand_in {

using cuda_sim::reads;
using cuda_sim::view;
using cuda_sim::writes;
using Ranges = std::vector<cuda_sim_range>;

inline float floatOfHalf(Half half) {
    static const std::vector<float> all = [] {
        std::vector<float> values(1 << 16);
        for (size_t bits = 0; bits < values.size(); ++bits) {
            values[bits] = toFloat(Half{static_cast<uint16_t>(bits)});
        }
        return values;
    }();
    return all[half.bits];
}

/// Only inside an operation: `use` of the first row of the store, in its type.
template <typename Use>
void withStored(const VectorsView& vectors, const Use& use) {
    if (vectors.float16) {
        use(view(static_cast<const Half*>(vectors.data)));
    } else {
        use(view(static_cast<const float*>(vectors.data)));
    }
}

/// Of a store, rows first .. first + count - 1 of every `step`th.
inline cuda_sim_range readsRows(
        const VectorsView& vectors, const VectorRows& rows) {
    const size_t element = vectors.float16 ? sizeof(Half) : sizeof(float);
    const char* const data = static_cast<const char*>(vectors.data);
    const size_t rowBytes = vectors.d * element;
    return reads(
            data + rows.first * rowBytes,
            ((rows.count - 1) * rows.step + 1) * rowBytes);
}

inline cuda_sim_range readsTerms(
        const IndexState& state, const VectorRows& rows) {
    return reads(state.vectors + rows.first, (rows.count - 1) * rows.step + 1);
}

inline cuda_sim_range readsScores(
        const float* scores, idx_t n, const VectorRows& rows, idx_t ld) {
    return reads(scores, (n - 1) * ld + rows.count);
}

/// Only inside an operation.
template <typename T>
T* row(T* rows, idx_t number, idx_t width) {
    return view(rows) + number * width;
}

template <typename Stored>
float componentOf(const Stored& stored) {
    return toFloat(stored);
}
template <>
inline float componentOf(const Half& stored) {
    return floatOfHalf(stored);
}

/// The k first of `best` and of `found`, whatever their order.
inline std::vector<uint64_t> firstOf(
        const uint64_t* best, std::vector<uint64_t> found, int k) {
    found.insert(found.end(), best, best + k);
    std::sort(found.begin(), found.end());
    found.resize(k);
    return found;
}

template <typename Stored>
float distanceBy(Metric metric, const float* x, const Stored* y, int d) {
    return metric == Metric::L2 ? distance<Metric::L2>(x, y, d)
                                : distance<Metric::InnerProduct>(x, y, d);
}

} // namespace stand_in
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
