#pragma once

#include <cuda_runtime.h>

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>

// What several kernels ask of a search's state.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Whether it is known that no list has to be made again.
__device__ inline bool noneAgain(const QueryState& queries) {
    const volatile uint32_t* const count = queries.againCount;
    return count && *count == 0;
}

/// How many of the best vectors a cut is made of.
inline __host__ __device__ int rankOf(const QueryState& queries) {
    return queries.rank > 0 ? queries.rank : queries.k;
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
