#pragma once

#include <cstddef>
#include <cstdint>

/// What the benchmarks time in C++, behind a C interface that Python's ctypes
/// calls: one harness (benchs/measure) interleaves, counts and records for C++
/// and Python alike, and no interpreter runs inside a timed part.
///
/// Every function that returns a double returns the seconds that the timed part
/// took, or -1; one that returns a pointer, nullptr. Then
/// faiss_ext_benchs_error tells why. The current device is used. For one thread
/// at a time, except search.

#define FAISS_EXT_BENCHS_API extern "C" __attribute__((visibility("default")))

/// The text of the calling thread's last failure.
FAISS_EXT_BENCHS_API const char* faiss_ext_benchs_error();

// Ceilings (Ceilings.cpp). All wait for the device before the clock starts and
// before it stops.

/// One cudaMemcpyAsync of `bytes` bytes; host memory should be pinned.
FAISS_EXT_BENCHS_API double faiss_ext_benchs_copy(
        void* to, const void* from, size_t bytes);

/// C = A * B of [size, size] float32 by cuBLAS, in the mathematical mode that
/// Faiss sets: 2 * size^3 operations. Three device arrays of size^2 elements.
FAISS_EXT_BENCHS_API double faiss_ext_benchs_gemm(
        int size, const float* a, const float* b, float* c);

/// `count` host functions that do nothing on one stream, then a wait.
FAISS_EXT_BENCHS_API double faiss_ext_benchs_host_functions(int count);

/// `count` event records on one stream, then a wait for the last one.
FAISS_EXT_BENCHS_API double faiss_ext_benchs_events(int count);

// Copy-back by itself (CopyBack.cpp): results that lie on the GPU come to the
// host. The "computation" is one device copy of known results to wherever the
// method wants them, the same for all methods.

struct faiss_ext_benchs_copy_back;

/// Results labels [n] int64 and distances [n] float32, given in host memory;
/// labels may be null.
FAISS_EXT_BENCHS_API faiss_ext_benchs_copy_back* faiss_ext_benchs_copy_back_new(
        int64_t n, const int64_t* labels, const float* distances);

/// Brings them to host memory and waits. Methods: 0, the pipeline of faiss_ext;
/// 1, the steps of Faiss' GpuIndex::search (outputs uploaded, two copies back,
/// each with a wait for the stream); 2, a cudaMemcpyAsync for each array and
/// one wait; 3, no copy: the kernel that makes each array stores it into host
/// memory, which must be pinned and mapped, and one wait.
FAISS_EXT_BENCHS_API double faiss_ext_benchs_copy_back_run(
        faiss_ext_benchs_copy_back* self,
        int method,
        int64_t* labels,
        float* distances);

FAISS_EXT_BENCHS_API void faiss_ext_benchs_copy_back_delete(
        faiss_ext_benchs_copy_back* self);

// The search (Search.cpp).

struct faiss_ext_benchs_index;

/// A flat L2 index over base [nb, d] float32 in host memory: faiss_ext's if
/// `ours`, else Faiss' own.
FAISS_EXT_BENCHS_API faiss_ext_benchs_index* faiss_ext_benchs_index_new(
        int ours, int d, int64_t nb, const float* base);

/// One search: x [n, d] float32, distances [n, k] float32, labels [n, k] int64,
/// each on the host or on the GPU. `wait`: until the device is idle, inside
/// the timed part.
FAISS_EXT_BENCHS_API double faiss_ext_benchs_index_search(
        faiss_ext_benchs_index* self,
        int64_t n,
        const float* x,
        int64_t k,
        float* distances,
        int64_t* labels,
        int wait);

/// `threads` threads make `calls` searches of one query each, at once, on one
/// index: x [threads, d], distances [threads, k], labels [threads, k] in host
/// memory. `locked`: a mutex around each search, as stock Faiss needs. The
/// seconds from when all threads are there, and have made one search each that
/// is not counted, to the last one's end.
FAISS_EXT_BENCHS_API double faiss_ext_benchs_index_search_threads(
        faiss_ext_benchs_index* self,
        int threads,
        int calls,
        const float* x,
        int64_t k,
        float* distances,
        int64_t* labels,
        int locked);

FAISS_EXT_BENCHS_API void faiss_ext_benchs_index_delete(
        faiss_ext_benchs_index* self);
