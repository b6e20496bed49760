#include <faiss_ext/gpu/DeviceBuffer.h>

#include <cuda_runtime_api.h>

#include <utility>

#include <faiss_ext/gpu/CudaHandles.h>
#include <faiss_ext/gpu/ResourcesLock.h>

namespace faiss_ext {
namespace gpu {

DeviceBuffer::DeviceBuffer(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        size_t bytes)
        : resources_(std::move(resources)),
          lock_(lockOf(resources_.get())),
          device_(device) {
    std::lock_guard<std::recursive_mutex> guard(*lock_);
    DeviceGuard current(device);
    data_ = resources_->allocMemory(faiss::gpu::AllocRequest(
            faiss::gpu::AllocType::Other,
            device,
            faiss::gpu::MemorySpace::Device,
            resources_->getDefaultStream(device),
            bytes));
}

DeviceBuffer::~DeviceBuffer() {
    std::lock_guard<std::recursive_mutex> guard(*lock_);
    if (!contextLost(device_, resources_->getDefaultStream(device_))) {
        resources_->deallocMemory(device_, data_);
    } else {
        // The CUDA context is lost. Faiss' resources abort the process when
        // they cannot free, so they are kept for ever.
        keepForEver(resources_);
    }
}

} // namespace gpu
} // namespace faiss_ext
