// Where the Faiss versions differ in what is replaced here.

#pragma once

#include <faiss/Index.h>

#define CUDA_SIM_FAISS_VERSION                                 \
    (FAISS_VERSION_MAJOR * 10000 + FAISS_VERSION_MINOR * 100 + \
     FAISS_VERSION_PATCH)

namespace cuda_sim {

#if CUDA_SIM_FAISS_VERSION < 10704
using idx_t = faiss::Index::idx_t;
using Count = int; // rows, in GPU code
using Label = int; // labels, before they leave the GPU
#else
using idx_t = faiss::idx_t;
using Count = faiss::idx_t;
using Label = faiss::idx_t;
#endif

} // namespace cuda_sim
