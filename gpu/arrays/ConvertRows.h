#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/arrays/ArrayView.h>

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

/// Whether convertRows does it:
/// - to float32 from any float or integer type of up to 64 bits; from those of
///   up to 16 bits the values stay as they are, from others the nearest one is
///   taken;
/// - to int64 from int64 and int32;
/// - for results, to float16 from float32 (infinite beyond 65504), and to int32
///   from int64 (what does not fit keeps its low bits).
FAISS_EXT_API bool canConvert(const DataType& from, const DataType& to);

/// Writes `source` as `to` elements to `destination` [rows, columns],
/// row-major, on the current GPU in the order of `stream`; does not wait. They
/// may not overlap. Throws InvalidArray where there is no such conversion,
/// CudaError.
FAISS_EXT_API void convertRows(
        const StridedRows& source,
        const DataType& to,
        void* destination,
        cudaStream_t stream);

/// The kernel of convertRows, and nothing else; its result is CUDA's. Simulated
/// runtimes put their own in its place.
FAISS_EXT_API cudaError_t launchConvertRows(
        const StridedRows& source,
        const DataType& to,
        void* destination,
        cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
