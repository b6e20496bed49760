#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Writes `distance` and the label -1, `count` times each, to memory that the
/// current GPU can write; nothing where a pointer is null. In the order of
/// `stream`; does not wait. The result is CUDA's. Simulated runtimes put their
/// own in its place.
FAISS_EXT_API cudaError_t launchFillMissing(
        float* distances,
        int32_t* labels,
        int64_t count,
        float distance,
        cudaStream_t stream);
FAISS_EXT_API cudaError_t launchFillMissing(
        float* distances,
        int64_t* labels,
        int64_t count,
        float distance,
        cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
