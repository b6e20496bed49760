#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Where PooledGpuResources takes GPU memory from: a pool of the caller's, with
/// the stream-ordered semantics of cudaMallocAsync. Any thread calls it, for
/// several GPUs perhaps at once.
class FAISS_EXT_API DeviceAllocator {
   public:
    virtual ~DeviceAllocator();

    /// `bytes` (a multiple of 256, never 0) of device memory on the GPU
    /// `device`, which is current; aligned to 16 bytes or more, and usable at
    /// once by work enqueued on `stream`, a stream of that GPU. Throws what
    /// derives from std::exception if there is none.
    virtual void* allocate(size_t bytes, int device, cudaStream_t stream) = 0;

    /// Gives back memory, with the arguments it was allocated with; `device` is
    /// current. Other streams that used it have been ordered before what
    /// `stream` is given from now on, so it may be given at once to work
    /// of that stream, and to others after it.
    virtual void deallocate(
            void* memory,
            size_t bytes,
            int device,
            cudaStream_t stream) noexcept = 0;
};

} // namespace gpu
} // namespace faiss_ext
