#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>

#include <algorithm>

namespace faiss_ext {
namespace gpu {
namespace exact {

cublasStatus_t launchScores(
        cublasHandle_t blas,
        const Half* queries,
        idx_t n,
        const Half* vectors,
        idx_t stride,
        idx_t count,
        int width,
        float* scores,
        idx_t ld) {
    // cuBLAS takes sizes as int. Whole tiles of any kernel, and aligned.
    constexpr idx_t kMost = idx_t(1) << 30;
    if (ld > INT32_MAX || stride > INT32_MAX || count > ld) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const float one = 1;
    const float zero = 0;
    for (idx_t query = 0; query < n; query += kMost) {
        for (idx_t vector = 0; vector < count; vector += kMost) {
            // Column-major for cuBLAS: the transposed of the scores.
            const cublasStatus_t status = cublasGemmEx(
                    blas,
                    CUBLAS_OP_T,
                    CUBLAS_OP_N,
                    static_cast<int>(std::min(kMost, count - vector)),
                    static_cast<int>(std::min(kMost, n - query)),
                    width,
                    &one,
                    vectors + vector * stride,
                    CUDA_R_16F,
                    static_cast<int>(stride),
                    queries + query * width,
                    CUDA_R_16F,
                    width,
                    &zero,
                    scores + query * ld + vector,
                    CUDA_R_32F,
                    static_cast<int>(ld),
                    CUBLAS_COMPUTE_32F,
                    CUBLAS_GEMM_DEFAULT);
            if (status != CUBLAS_STATUS_SUCCESS) {
                return status;
            }
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
