#pragma once

/// What nvcc compiles for both sides, and any C++ compiler for one. The
/// arithmetic of the exact search is made of such functions alone, so that the
/// tests, which need no GPU, run what the GPU runs.
#ifdef __CUDACC__
#define FAISS_EXT_HOST_DEVICE __host__ __device__
#else
#define FAISS_EXT_HOST_DEVICE
#endif

// Each result here is that of one sequence of rounded operations. (nvcc defines
// no such macro for its own -use_fast_math; device code therefore spells its
// operations in PTX, see Float.h.)
#ifdef __FAST_MATH__
#error "the exact search is wrong under -ffast-math: compile this file without"
#endif
