#pragma once

#include <cstddef>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Where the bytes of an array lie, as far as a copy is concerned.
enum class MemoryKind {
    /// Memory of one GPU.
    Device,
    /// Page-locked host memory: the GPU copies it by itself.
    Pinned,
    /// cudaMallocManaged: reachable from both sides; copied like Pinned.
    Managed,
    /// Any other host memory.
    Pageable,
};

struct MemoryPlacement {
    MemoryKind kind;
    /// The GPU, for MemoryKind::Device; otherwise -1.
    int device;

    bool onDevice(int id) const {
        return kind == MemoryKind::Device && device == id;
    }
    bool onHost() const {
        return kind != MemoryKind::Device;
    }
};

/// Asks the CUDA runtime where [data, data + bytes) lies; bytes >= 1. Both ends
/// are asked: host memory that is pinned at one end only is Pageable, device
/// memory that ends too early throws InvalidArray, which names `argument`.
/// Throws CudaError if the runtime cannot answer. Does not wait.
FAISS_EXT_API MemoryPlacement
placementOf(const void* data, size_t bytes, const char* argument);

/// The GPU on which device, managed or pinned memory at `data` was allocated: a
/// stream that an array comes with is one of that GPU. -1 for pageable memory.
/// Throws CudaError. Does not wait.
FAISS_EXT_API int allocatingDevice(const void* data);

} // namespace gpu
} // namespace faiss_ext
