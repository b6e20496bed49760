#pragma once

#include <cuda_runtime.h>

#include <utility>

// Kernels that begin while the one before them on the stream ends: a launch's
// own microseconds are a good part of a short search.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// What the former kernels of the stream have written can be read, and what
/// they read be written. A kernel of launchAfter() calls this before either.
__device__ inline void afterFormerKernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel's blocks may take what room there is, once all blocks have
/// called this (or have ended).
__device__ inline void letNextKernelBegin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Launches a kernel that calls afterFormerKernel().
template <typename... Parameters, typename... Arguments>
inline cudaError_t launchAfter(
        void (*kernel)(Parameters...),
        dim3 grid,
        unsigned threads,
        size_t sharedBytes,
        cudaStream_t stream,
        Arguments&&... arguments) {
    int device = 0;
    int major = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(
                &major, cudaDevAttrComputeCapabilityMajor, device);
    }
    if (error != cudaSuccess) {
        return error;
    }
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = sharedBytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = major >= 9 ? 1 : 0;
    return cudaLaunchKernelEx(
            &config, kernel, Parameters(std::forward<Arguments>(arguments))...);
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
