#include <faiss_ext/gpu/resources/DeviceBuffer.h>

#include <cuda_runtime_api.h>

#include <mutex>
#include <utility>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/StreamOrder.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

namespace faiss_ext {
namespace gpu {

DeviceBuffer::DeviceBuffer(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        size_t bytes)
        : resources_(std::move(resources)),
          lock_(lockOf(resources_.get())),
          device_(device),
          bytes_(bytes) {
    const auto guard = lockUnlessInterrupted(*lock_);
    // The first question makes Faiss allocate.
    const RelaxedCapture relaxed;
    stream_ = resources_->getDefaultStream(device);
    DeviceGuard current(device);
    data_ = resources_->allocMemory(faiss::gpu::AllocRequest(
            faiss::gpu::AllocType::Other,
            device,
            faiss::gpu::MemorySpace::Device,
            stream_,
            bytes));
}

DeviceBuffer::~DeviceBuffer() {
    const LockForEnd lock(*lock_);
    const RelaxedCapture relaxed;
    // As in ~CallRunner.
    if (lock.held() && !contextLost(resources_->getAsyncCopyStream(device_))) {
        if (shared_) {
            // As cudaFree does by itself, and a pool does not.
            waitForDevice(device_);
        }
        resources_->deallocMemory(device_, data_);
    } else {
        // The CUDA context is lost. Faiss' resources abort the process when
        // they cannot free, so they are kept for ever.
        keepForEver(resources_);
    }
}

std::shared_ptr<DeviceBuffer> DeviceBuffer::copy() const {
    auto made = std::make_shared<DeviceBuffer>(resources_, device_, bytes_);
    DeviceGuard current(device_);
    refuseCapture(stream_, "the array");
    orderStreams(stream_, device_, made->stream_, device_);
    if (bytes_ > 0) {
        FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                made->data_,
                data_,
                bytes_,
                cudaMemcpyDeviceToDevice,
                made->stream_));
    }
    orderStreams(made->stream_, device_, stream_, device_);
    return made;
}

void DeviceBuffer::copyToHost(void* to) const {
    if (bytes_ == 0) {
        return;
    }
    DeviceGuard current(device_);
    refuseCapture(stream_, "the array");
    FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
            to, data_, bytes_, cudaMemcpyDeviceToHost, stream_));
    Event done;
    done.record(stream_);
    done.wait();
}

} // namespace gpu
} // namespace faiss_ext
