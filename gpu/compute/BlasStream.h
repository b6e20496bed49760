#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Throws OutOfMemory or faiss::FaissException where a call of cuBLAS on
/// `stream` has failed, or CudaError where the CUDA context is lost.
FAISS_EXT_API void checkBlas(
        cublasStatus_t status, const char* doing, cudaStream_t stream);

/// The cuBLAS handle of Faiss' resources, with `stream` set. It stays set, as
/// Faiss too leaves the last one that it used, and sets its own before each
/// call; the one before may have been destroyed by now. Throws as checkBlas.
FAISS_EXT_API cublasHandle_t
blasOn(faiss::gpu::GpuResources& resources, int device, cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
