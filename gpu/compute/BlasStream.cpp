#include <faiss_ext/gpu/compute/BlasStream.h>

#include <string>

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

void checkBlas(cublasStatus_t status, const char* doing, cudaStream_t stream) {
    if (status == CUBLAS_STATUS_SUCCESS) {
        return;
    }
    // That clears the error of the failed call, too, over which Faiss' next
    // check would abort the process.
    throwIfContextLost(stream);
    const std::string text = std::string("cuBLAS has failed: ") + doing +
                             ", status " + std::to_string(int(status));
    if (status == CUBLAS_STATUS_ALLOC_FAILED) {
        throw OutOfMemory(text);
    }
    throw faiss::FaissException(text);
}

cublasHandle_t blasOn(
        faiss::gpu::GpuResources& resources, int device, cudaStream_t stream) {
    const cublasHandle_t blas = resources.getBlasHandle(device);
    checkBlas(cublasSetStream(blas, stream), "cublasSetStream", stream);
    return blas;
}

} // namespace gpu
} // namespace faiss_ext
