#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Sets *found, on the current GPU, to 1 if one of `count` float16 numbers
/// there is `least` or more in magnitude (infinity is, NaN is not); `least` is
/// a positive float16 number, as its bits. In the order of `stream`; does not
/// wait. The result is CUDA's. Simulated runtimes put their own in its place.
FAISS_EXT_API cudaError_t launchFindLarge(
        const void* halves,
        int64_t count,
        uint16_t least,
        int32_t* found,
        cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
