#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Rows from [n, d] as vectors of length one, to `to` [n, d], which is `from`
/// or does not overlap it; both on the current GPU. By compute/exact/
/// Normalize.h, bit for bit. In the order of `stream`; does not wait. The
/// result is CUDA's. Simulated runtimes put their own in its place.
FAISS_EXT_API cudaError_t launchNormalizeRows(
        const float* from, int64_t n, int d, float* to, cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
