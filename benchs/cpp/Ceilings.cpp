// What the machine can do at best: copies, cuBLAS, host functions, events.

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>

#include "Benchs.h"
#include "Support.h"

using namespace benchs;

namespace {

/// Times `enqueue(stream)` from an idle device to an idle device.
template <typename Enqueue>
double timed(const Enqueue& enqueue) {
    return guarded(-1.0, [&] {
        faiss_ext::gpu::Stream stream;
        FAISS_EXT_CUDA_TRY(cudaDeviceSynchronize());
        const auto begin = Clock::now();
        enqueue(stream.get());
        FAISS_EXT_CUDA_TRY(cudaStreamSynchronize(stream.get()));
        return secondsSince(begin);
    });
}

void CUDART_CB doNothing(void*) {}

void cublasTry(cublasStatus_t status, const char* call) {
    if (status != CUBLAS_STATUS_SUCCESS) {
        throw std::runtime_error(
                std::string(call) + " ended with status " +
                std::to_string(status));
    }
}

/// Puts a cuBLAS handle on a stream for as long as it lives. Faiss leaves its
/// handle on whichever stream it used last.
class HandleOnStream {
   public:
    HandleOnStream(cublasHandle_t handle, cudaStream_t stream)
            : handle_(handle) {
        cublasTry(cublasGetStream(handle, &before_), "cublasGetStream");
        cublasTry(cublasSetStream(handle, stream), "cublasSetStream");
    }
    ~HandleOnStream() {
        cublasSetStream(handle_, before_);
    }
    HandleOnStream(const HandleOnStream&) = delete;
    HandleOnStream& operator=(const HandleOnStream&) = delete;

   private:
    cublasHandle_t handle_;
    cudaStream_t before_ = nullptr;
};

} // namespace

double faiss_ext_benchs_copy(void* to, const void* from, size_t bytes) {
    return timed([&](cudaStream_t stream) {
        FAISS_EXT_CUDA_TRY(
                cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    });
}

double faiss_ext_benchs_gemm(
        int size, const float* a, const float* b, float* c) {
    return timed([&](cudaStream_t stream) {
        // Faiss' own handle, in its mode; on the stream that is waited for.
        const auto shared = resources().getResources();
        const cublasHandle_t handle = shared->getBlasHandle(currentDevice());
        const HandleOnStream onStream(handle, stream);
        const float one = 1, zero = 0;
        cublasTry(
                cublasSgemm(
                        handle,
                        CUBLAS_OP_N,
                        CUBLAS_OP_N,
                        size,
                        size,
                        size,
                        &one,
                        a,
                        size,
                        b,
                        size,
                        &zero,
                        c,
                        size),
                "cublasSgemm");
    });
}

double faiss_ext_benchs_host_functions(int count) {
    return timed([&](cudaStream_t stream) {
        for (int i = 0; i < count; ++i) {
            FAISS_EXT_CUDA_TRY(cudaLaunchHostFunc(stream, doNothing, nullptr));
        }
    });
}

double faiss_ext_benchs_events(int count) {
    return timed([&](cudaStream_t stream) {
        faiss_ext::gpu::Event event;
        for (int i = 0; i < count; ++i) {
            event.record(stream);
        }
        event.wait();
    });
}
