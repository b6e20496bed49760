// Replaces what else a flat index launches: conversion to half, norms,
// reconstruction, residuals.

#include <cuda_fp16.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/utils/distances.h>

#include <cmath>
#include <limits>

#include "../cuda_sim_kernel.h"
#include "Convert.h"
#include "Knn.h"

namespace faiss {
namespace gpu {

using namespace cuda_sim;
using cuda_sim::idx_t;

namespace {

float toFloat(float value) {
    return value;
}

float toFloat(half value) {
    return __half2float(value);
}

template <typename T>
void norms(
        Tensor<T, 2, true>& input,
        bool rowMajor,
        Tensor<float, 1, true>& output,
        bool squared,
        cudaStream_t stream) {
    Matrix matrix;
    matrix.data = input.data();
    matrix.half = sizeof(T) == 2;
    matrix.rowMajor = rowMajor;
    matrix.rows = input.getSize(rowMajor ? 0 : 1);
    matrix.dims = input.getSize(rowMajor ? 1 : 0);
    FAISS_ASSERT(size_t(output.getSize(0)) == matrix.rows);
    float* out = output.data();
    std::vector<cuda_sim_range> ranges = {
            {matrix.data, matrix.bytes(), 0}, writes(out, matrix.rows)};
    launch("runL2Norm", stream, ranges, [=] {
        std::vector<float> storage;
        const float* rows = matrix.floats(&storage);
        float* result = view(out);
        for (size_t i = 0; i < matrix.rows; ++i) {
            float norm = fvec_norm_L2sqr(rows + i * matrix.dims, matrix.dims);
            result[i] = squared ? norm : std::sqrt(norm);
        }
    });
}

template <typename T>
void byIds(
        Tensor<idx_t, 1, true>& ids,
        Tensor<T, 2, true>& vecs,
        Tensor<float, 2, true>& out,
        cudaStream_t stream) {
    FAISS_ASSERT(ids.getSize(0) == out.getSize(0));
    FAISS_ASSERT(vecs.getSize(1) == out.getSize(1));
    size_t n = ids.getSize(0), d = vecs.getSize(1), rows = vecs.getSize(0);
    const idx_t* id = ids.data();
    const T* from = vecs.data();
    float* to = out.data();
    launch("runReconstruct",
           stream,
           {reads(id, n), reads(from, rows * d), writes(to, n * d)},
           [=] {
               const idx_t* chosen = view(id);
               const T* source = view(from);
               float* result = view(to);
               for (size_t i = 0; i < n; ++i) {
                   idx_t row = chosen[i];
                   for (size_t j = 0; j < d; ++j) {
                       // The GPU would read out of bounds past the end.
                       result[i * d + j] =
                               row < 0 || size_t(row) >= rows
                                       ? 0.0f
                                       : toFloat(source[row * d + j]);
                   }
               }
           });
}

template <typename T>
void byRange(
        idx_t start,
        idx_t num,
        Tensor<T, 2, true>& vecs,
        Tensor<float, 2, true>& out,
        cudaStream_t stream) {
    FAISS_ASSERT(num > 0);
    FAISS_ASSERT(num == out.getSize(0));
    FAISS_ASSERT(vecs.getSize(1) == out.getSize(1));
    FAISS_ASSERT(start + num <= vecs.getSize(0));
    size_t d = vecs.getSize(1);
    const T* from = vecs.data() + start * d;
    float* to = out.data();
    launch("runReconstruct",
           stream,
           {reads(from, num * d), writes(to, num * d)},
           [=] {
               const T* source = view(from);
               float* result = view(to);
               for (size_t i = 0; i < num * d; ++i) {
                   result[i] = toFloat(source[i]);
               }
           });
}

template <typename T>
void residual(
        Tensor<float, 2, true>& vecs,
        Tensor<T, 2, true>& centroids,
        Tensor<idx_t, 1, true>& vecToCentroid,
        Tensor<float, 2, true>& residuals,
        cudaStream_t stream) {
    size_t n = vecs.getSize(0), d = vecs.getSize(1);
    size_t rows = centroids.getSize(0);
    const float* vec = vecs.data();
    const T* centroid = centroids.data();
    const idx_t* assigned = vecToCentroid.data();
    float* out = residuals.data();
    launch("runCalcResidual",
           stream,
           {reads(vec, n * d),
            reads(centroid, rows * d),
            reads(assigned, n),
            writes(out, n * d)},
           [=] {
               const idx_t* chosen = view(assigned);
               const float* source = view(vec);
               const T* subtracted = view(centroid);
               float* result = view(out);
               for (size_t i = 0; i < n; ++i) {
                   idx_t row = chosen[i];
                   for (size_t j = 0; j < d; ++j) {
                       result[i * d + j] =
                               row < 0 || size_t(row) >= rows
                                       ? std::numeric_limits<float>::quiet_NaN()
                                       : source[i * d + j] -
                                                 toFloat(subtracted
                                                                 [row * d + j]);
                   }
               }
           });
}

} // namespace

template <>
DeviceTensor<half, 2, true> convertTensorTemporary<float, half, 2>(
        GpuResources* res, cudaStream_t stream, Tensor<float, 2, true>& in) {
    FAISS_ASSERT(res);
    DeviceTensor<half, 2, true> out(
            res, makeTempAlloc(AllocType::Other, stream), in.sizes());
    size_t count = in.numElements();
    const float* from = in.data();
    half* to = out.data();
    launch("convertTensor<float, half>",
           stream,
           {reads(from, count), writes(to, count)},
           [=] {
               const float* source = view(from);
               half* result = view(to);
               for (size_t i = 0; i < count; ++i) {
                   result[i] = __float2half(source[i]);
               }
           });
    // As Thrust does, which converts in Faiss.
    FAISS_THROW_IF_NOT(cudaStreamSynchronize(stream) == cudaSuccess);
    return out;
}

void runL2Norm(
        Tensor<float, 2, true>& input,
        bool inputRowMajor,
        Tensor<float, 1, true>& output,
        bool normSquared,
        cudaStream_t stream) {
    norms(input, inputRowMajor, output, normSquared, stream);
}

void runL2Norm(
        Tensor<half, 2, true>& input,
        bool inputRowMajor,
        Tensor<float, 1, true>& output,
        bool normSquared,
        cudaStream_t stream) {
    norms(input, inputRowMajor, output, normSquared, stream);
}

void runReconstruct(
        Tensor<idx_t, 1, true>& listIds,
        Tensor<float, 2, true>& vecs,
        Tensor<float, 2, true>& out,
        cudaStream_t stream) {
    byIds(listIds, vecs, out, stream);
}

void runReconstruct(
        Tensor<idx_t, 1, true>& listIds,
        Tensor<half, 2, true>& vecs,
        Tensor<float, 2, true>& out,
        cudaStream_t stream) {
    byIds(listIds, vecs, out, stream);
}

void runReconstruct(
        idx_t start,
        idx_t num,
        Tensor<float, 2, true>& vecs,
        Tensor<float, 2, true>& out,
        cudaStream_t stream) {
    byRange(start, num, vecs, out, stream);
}

void runReconstruct(
        idx_t start,
        idx_t num,
        Tensor<half, 2, true>& vecs,
        Tensor<float, 2, true>& out,
        cudaStream_t stream) {
    byRange(start, num, vecs, out, stream);
}

void runCalcResidual(
        Tensor<float, 2, true>& vecs,
        Tensor<float, 2, true>& centroids,
        Tensor<idx_t, 1, true>& vecToCentroid,
        Tensor<float, 2, true>& residuals,
        cudaStream_t stream) {
    residual(vecs, centroids, vecToCentroid, residuals, stream);
}

void runCalcResidual(
        Tensor<float, 2, true>& vecs,
        Tensor<half, 2, true>& centroids,
        Tensor<idx_t, 1, true>& vecToCentroid,
        Tensor<float, 2, true>& residuals,
        cudaStream_t stream) {
    residual(vecs, centroids, vecToCentroid, residuals, stream);
}

} // namespace gpu
} // namespace faiss
