#pragma once

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <cstddef>
#include <memory>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

class ResourcesLock;

/// Device memory from Faiss' resources that may outlive the index it was made
/// for: the home of results that a caller asked for on the GPU without giving
/// arrays. Not movable; freed at the end of its life, in the order of the
/// resources' default stream, and of all streams once it was shared.
class FAISS_EXT_API DeviceBuffer {
   public:
    /// `bytes` of memory on `device`, usable in the order of the default stream
    /// of `resources`. Throws faiss::FaissException if there is not enough, and
    /// as lockUnlessInterrupted.
    DeviceBuffer(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int device,
            size_t bytes);
    ~DeviceBuffer();

    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;

    /// Device pointer; nullptr if bytes was 0.
    void* data() const noexcept {
        return data_;
    }
    size_t bytes() const noexcept {
        return bytes_;
    }
    int device() const noexcept {
        return device_;
    }
    /// The stream that the content is ordered on: the resources' default one
    /// when the buffer was made. Faiss' own lives as long as this buffer; one
    /// of the caller's must be there still when the content is copied.
    cudaStream_t stream() const noexcept {
        return stream_;
    }

    /// Told before code of others gets the address. On which streams it uses
    /// the memory is not known, so the end of this buffer then waits for the
    /// GPU.
    void share() noexcept {
        shared_ = true;
    }

    /// A copy with a life of its own, made in the order of stream(); does not
    /// wait. Throws faiss::FaissException if there is not enough memory,
    /// CudaError.
    std::shared_ptr<DeviceBuffer> copy() const;

    /// Copies the content to host memory of bytes(), in the order of stream();
    /// waits for it. Throws CudaError.
    void copyToHost(void* to) const;

   private:
    const std::shared_ptr<faiss::gpu::GpuResources> resources_;
    const std::shared_ptr<ResourcesLock> lock_;
    const int device_;
    const size_t bytes_;
    // Set once the lock is taken.
    cudaStream_t stream_ = nullptr;
    void* data_ = nullptr;
    bool shared_ = false;
};

} // namespace gpu
} // namespace faiss_ext
