#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Labels [rows, groups * k] on the current GPU, row-major: adds g * offset to
/// each of group g, columns g * k to (g + 1) * k - 1, but not to a -1, which is
/// no label. In the order of `stream`; does not wait. The result is CUDA's.
/// Simulated runtimes put their own in its place.
FAISS_EXT_API cudaError_t launchOffsetLabels(
        int32_t* labels,
        int64_t rows,
        int groups,
        int k,
        int64_t offset,
        cudaStream_t stream);
FAISS_EXT_API cudaError_t launchOffsetLabels(
        int64_t* labels,
        int64_t rows,
        int groups,
        int k,
        int64_t offset,
        cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
