// Declares the one conversion template of Faiss that is replaced; its header
// needs a CUDA compiler.

#pragma once

#include <faiss/gpu/GpuResources.h>
#include <faiss/gpu/utils/DeviceTensor.cuh>

namespace faiss {
namespace gpu {

template <typename From, typename To, int Dim>
DeviceTensor<To, Dim, true> convertTensorTemporary(
        GpuResources* res, cudaStream_t stream, Tensor<From, Dim, true>& in);

} // namespace gpu
} // namespace faiss
