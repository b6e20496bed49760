// How a library that stands in for kernels puts their work on a simulated
// stream. Replace the launcher function of a kernel by one that calls launch().

#ifndef CUDA_SIM_KERNEL_H
#define CUDA_SIM_KERNEL_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Bytes that a kernel touches. is_write: it writes them, and may read them
/// before or after; they are ordered after all that reads or writes them, which
/// is more than a read needs, and so one range says both.
struct cuda_sim_range {
    const void* ptr;
    size_t bytes;
    int is_write;
};

/// Enqueues run(arg) as one operation on a stream of the current device. It
/// executes late, as any operation does. destroy(arg), if given, is called
/// after that, or at once where the launch fails. The ranges are checked
/// (bounds, use after free, races) during this call. Nothing else may be
/// touched by run, which must make no CUDA call. An error is also left for
/// cudaGetLastError, as by a real launch.
cudaError_t cuda_sim_launch(
        const char* name,
        cudaStream_t stream,
        const struct cuda_sim_range* ranges,
        size_t num_ranges,
        void (*run)(void* arg),
        void* arg,
        void (*destroy)(void* arg));

/// Where the bytes of a device pointer can be touched. Only inside run.
void* cuda_sim_view(const void* device);

#ifdef __cplusplus
}

#include <initializer_list>
#include <utility>
#include <vector>

namespace cuda_sim {

template <typename T>
cuda_sim_range reads(const T* ptr, size_t count) {
    return {ptr, count * sizeof(T), 0};
}

template <typename T>
cuda_sim_range writes(T* ptr, size_t count) {
    return {ptr, count * sizeof(T), 1};
}

template <typename T>
T* view(T* device) {
    return static_cast<T*>(cuda_sim_view(device));
}

/// The same for any callable; it is copied.
template <typename F>
cudaError_t launch(
        const char* name,
        cudaStream_t stream,
        const std::vector<cuda_sim_range>& ranges,
        F run) {
    return cuda_sim_launch(
            name,
            stream,
            ranges.data(),
            ranges.size(),
            [](void* arg) { (*static_cast<F*>(arg))(); },
            new F(std::move(run)),
            [](void* arg) { delete static_cast<F*>(arg); });
}

} // namespace cuda_sim
#endif

#endif
