#pragma once

#include <cuda_runtime_api.h>

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

/// Runs a CUDA runtime call; throws CudaError with the call's text if it fails.
/// The thread's last-error slot is cleared, so that the failure is reported by
/// this exception alone and not again by an unrelated later check (Faiss'
/// checks after its kernel launches abort the process). Where CUDA was lost by
/// a fork, it is not called.
#define FAISS_EXT_CUDA_TRY(call)                                       \
    do {                                                               \
        ::faiss_ext::gpu::beforeCuda();                                \
        const cudaError_t faissExtStatus_ = (call);                    \
        if (faissExtStatus_ != cudaSuccess) {                          \
            cudaGetLastError();                                        \
            throw ::faiss_ext::gpu::CudaError(faissExtStatus_, #call); \
        }                                                              \
    } while (false)

/// The same for destructors and clean-up, which must not throw: the failure is
/// dropped here because either an exception is already on its way, or the next
/// call on the same device reports it.
#define FAISS_EXT_CUDA_NOTHROW(call)                                    \
    do {                                                                \
        if (!::faiss_ext::gpu::lostByFork() && (call) != cudaSuccess) { \
            cudaGetLastError();                                         \
        }                                                               \
    } while (false)
