#pragma once

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// How many GPUs this process sees: 0 also where there is no driver. Any
/// thread; does not wait. Throws CudaError if CUDA cannot tell.
FAISS_EXT_API int gpuCount();

/// Throws InvalidDevice unless there is such a GPU: Faiss would end the
/// process. `name` is that of the argument, and begins the text. Throws
/// CudaError as gpuCount.
FAISS_EXT_API void checkDevice(int device, const char* name);

} // namespace gpu
} // namespace faiss_ext
