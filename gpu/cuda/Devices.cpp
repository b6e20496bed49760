#include <faiss_ext/gpu/cuda/Devices.h>

#include <cuda_runtime_api.h>

#include <string>

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

int gpuCount() {
    beforeCuda();
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status == cudaSuccess) {
        return count;
    }
    // CUDA keeps it as its last error, on which Faiss would abort.
    cudaGetLastError();
    if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) {
        return 0;
    }
    throw CudaError(status, "cudaGetDeviceCount(&count)");
}

void checkDevice(int device, const char* name) {
    const int count = gpuCount();
    if (device >= 0 && device < count) {
        return;
    }
    throw InvalidDevice(
            std::string(name) + ": GPU " + std::to_string(device) + "; " +
            (count == 0 ? "this process sees no GPU: look at nvidia-smi and "
                          "CUDA_VISIBLE_DEVICES, or use an index on the CPU"
                        : "this process sees " + std::to_string(count) +
                                  ": give 0 to " + std::to_string(count - 1)));
}

} // namespace gpu
} // namespace faiss_ext
