#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <faiss_ext/gpu/ArrayView.h>
#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// A matrix in memory that the current GPU can read.
struct StridedRows {
    /// Element [0, 0].
    const void* data;
    DataType dtype;
    int64_t rows;
    int64_t columns;
    /// In bytes, multiples of the item size; may be negative or zero.
    int64_t rowStride;
    int64_t columnStride;
};

/// Whether toFloat32 takes elements of this type: float32, float16, bfloat16,
/// int8 and uint8. Their values are exact as float32.
FAISS_EXT_API bool convertsToFloat32(const DataType& dtype);

/// Writes `source` to `destination` [rows, columns] float32, row-major, on the
/// current GPU in the order of `stream`; does not wait. They may not overlap.
/// Throws InvalidArray for another type, CudaError.
FAISS_EXT_API void toFloat32(
        const StridedRows& source, float* destination, cudaStream_t stream);

/// The kernel of toFloat32, and nothing else; its result is CUDA's. Simulated
/// runtimes put their own in its place.
FAISS_EXT_API cudaError_t launchToFloat32(
        const StridedRows& source, float* destination, cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
