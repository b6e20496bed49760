// The computing functions of cuBLAS that Faiss may reach. Their parameters do
// not matter, so the header of cuBLAS may not be seen here.

#include "Unmodelled.h"

#define CUDA_SIM_UNMODELLED(name)                                \
    extern "C" int name() {                                      \
        cuda_sim_unmodelled(#name, __builtin_return_address(0)); \
        return 15; /* CUBLAS_STATUS_NOT_SUPPORTED */             \
    }

CUDA_SIM_UNMODELLED(cublasGemmEx)
CUDA_SIM_UNMODELLED(cublasGemmBatchedEx)
CUDA_SIM_UNMODELLED(cublasGemmStridedBatchedEx)
CUDA_SIM_UNMODELLED(cublasSgemmEx)
CUDA_SIM_UNMODELLED(cublasSgemm_v2)
CUDA_SIM_UNMODELLED(cublasSgemmBatched)
CUDA_SIM_UNMODELLED(cublasSgemmStridedBatched)
CUDA_SIM_UNMODELLED(cublasDgemm_v2)
CUDA_SIM_UNMODELLED(cublasHgemm)
CUDA_SIM_UNMODELLED(cublasHgemmBatched)
CUDA_SIM_UNMODELLED(cublasHgemmStridedBatched)
CUDA_SIM_UNMODELLED(cublasSgemv_v2)
