#pragma once

#include <faiss/gpu/GpuResources.h>

#include <cstddef>
#include <memory>
#include <mutex>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Device memory from Faiss' resources that may outlive the index it was made
/// for: the home of results that a caller asked for on the GPU without giving
/// arrays. Not movable; freed at the end of its life, in the order of the
/// resources' default stream.
class FAISS_EXT_API DeviceBuffer {
 public:
    /// `bytes` of memory on `device`, usable in the order of the default stream
    /// of `resources`. Throws faiss::FaissException if there is not enough.
    DeviceBuffer(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int device,
            size_t bytes);
    ~DeviceBuffer();

    DeviceBuffer(const DeviceBuffer&) = delete;
    DeviceBuffer& operator=(const DeviceBuffer&) = delete;

    /// Device pointer; nullptr if bytes was 0.
    void* data() const noexcept { return data_; }

 private:
    const std::shared_ptr<faiss::gpu::GpuResources> resources_;
    const std::shared_ptr<std::recursive_mutex> lock_;
    const int device_;
    void* data_ = nullptr;
};

} // namespace gpu
} // namespace faiss_ext
