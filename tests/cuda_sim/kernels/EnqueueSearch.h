// What the replacements of Faiss' searches share: one operation in place of the
// kernels of a search.

#pragma once

#include <cuda_runtime_api.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/FaissAssert.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "../cuda_sim_kernel.h"
#include "Knn.h"
#include "Versions.h"

namespace cuda_sim {

inline void check(cudaError_t error, const char* what) {
    FAISS_THROW_IF_NOT_FMT(
            error == cudaSuccess,
            "simulated launch of %s failed (error %d %s)",
            what,
            int(error),
            cudaGetErrorString(error));
}
/// Rows of k elements, the first of each `stride` from the next row's.
template <typename T>
struct ResultRows {
    T* data;
    size_t rows;
    size_t k;
    size_t stride;

    template <typename Tensor>
    static ResultRows of(const Tensor& tensor) {
        return {tensor.data(),
                size_t(tensor.getSize(0)),
                size_t(tensor.getSize(1)),
                size_t(tensor.getStride(0))};
    }

    /// Those that an operation writes.
    void addTo(std::vector<cuda_sim_range>* ranges) const {
        if (stride == k) {
            ranges->push_back(writes(data, rows * k));
            return;
        }
        for (size_t row = 0; row < rows; ++row) {
            ranges->push_back(writes(data + row * stride, k));
        }
    }

    /// Only inside an operation.
    template <typename U>
    void set(const std::vector<U>& values) const {
        for (size_t row = 0; row < rows; ++row) {
            std::copy_n(values.begin() + row * k, k, view(data + row * stride));
        }
    }
};

/// Only inside an operation: at both ends of memory that it writes.
inline void leaveRubbish(const std::vector<cuda_sim_range>& ranges) {
    for (const auto& range : ranges) {
        char* const first =
                view(static_cast<char*>(const_cast<void*>(range.ptr)));
        const size_t some = std::min<size_t>(range.bytes, 4096);
        std::memset(first, 0x5a, some);
        std::memset(first + range.bytes - some, 0x5a, some);
    }
}

/// How many queries Faiss' runDistance enqueues before its callback for
/// interrupts ends it, which it asks before each of its tiles of queries and of
/// vectors; all of them if it does not. (The tiles of vectors are larger here,
/// one for all.)
inline size_t rowsBeforeInterrupt(const Knn& knn) {
    const size_t tileRows = knn.vectors.dims <= 32 ? 1024 : 512;
    if (knn.vectors.rows == 0) {
        return knn.queries.rows;
    }
    for (size_t row = 0; row < knn.queries.rows; row += tileRows) {
        if (faiss::InterruptCallback::is_interrupted() ||
            faiss::InterruptCallback::is_interrupted()) {
            return row;
        }
    }
    return knn.queries.rows;
}

/// One operation that writes [queries, k] distances and labels, and scratch.
template <typename L>
void enqueueSearch(
        const char* name,
        Knn knn,
        int k,
        ResultRows<float> distances,
        ResultRows<L> labels,
        const std::vector<cuda_sim_range>& scratch,
        cudaStream_t stream) {
    const size_t rows = rowsBeforeInterrupt(knn);
    const bool interrupted = rows < knn.queries.rows;
    if (interrupted && (rows == 0 || !knn.queries.rowMajor)) {
        FAISS_THROW_MSG("interrupted");
    }
    knn.queries.rows = distances.rows = labels.rows = rows;
    std::vector<cuda_sim_range> ranges = scratch;
    ranges.insert(
            ranges.end(),
            {{knn.vectors.data, knn.vectors.bytes(), 0},
             {knn.queries.data, knn.queries.bytes(), 0}});
    if (knn.norms) {
        ranges.push_back(reads(knn.norms, knn.vectors.rows));
    }
    distances.addTo(&ranges);
    labels.addTo(&ranges);
    check(launch(name,
                 stream,
                 ranges,
                 [=] {
                     std::vector<float> found(knn.queries.rows * k);
                     std::vector<idx_t> ids(found.size());
                     knn.search(k, found.data(), ids.data());
                     leaveRubbish(scratch);
                     distances.set(found);
                     labels.set(ids);
                 }),
          name);
    if (interrupted) {
        FAISS_THROW_MSG("interrupted");
    }
}

/// The same to arrays whose rows follow each other.
template <typename L>
void enqueueSearch(
        const char* name,
        const Knn& knn,
        int k,
        float* distances,
        L* labels,
        cudaStream_t stream) {
    const size_t rows = knn.queries.rows, columns = k;
    enqueueSearch(
            name,
            knn,
            k,
            ResultRows<float>{distances, rows, columns, columns},
            ResultRows<L>{labels, rows, columns, columns},
            {},
            stream);
}

/// Widens labels on their way out. By Thrust, which waits for the stream.
inline void widen(
        const int* from, idx_t* to, size_t count, cudaStream_t stream) {
    check(launch("convertTensor<int, idx_t>",
                 stream,
                 {reads(from, count), writes(to, count)},
                 [=] { std::copy_n(view(from), count, view(to)); }),
          "convertTensor<int, idx_t>");
    check(cudaStreamSynchronize(stream), "convertTensor<int, idx_t>");
}

} // namespace cuda_sim
