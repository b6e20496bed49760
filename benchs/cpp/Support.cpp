#include "Support.h"

#include <cuda_runtime_api.h>

#include <faiss_ext/gpu/cuda/CudaCheck.h>

#include "Benchs.h"

namespace benchs {

std::string& lastError() {
    thread_local std::string text;
    return text;
}

faiss::gpu::StandardGpuResources& resources() {
    static auto& shared = *new faiss::gpu::StandardGpuResources;
    return shared;
}

int currentDevice() {
    int device;
    FAISS_EXT_CUDA_TRY(cudaGetDevice(&device));
    return device;
}

} // namespace benchs

const char* faiss_ext_benchs_error() {
    return benchs::lastError().c_str();
}
