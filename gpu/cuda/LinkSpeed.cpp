#include <faiss_ext/gpu/cuda/LinkSpeed.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>
#include <faiss_ext/gpu/resources/DeviceBuffer.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// What may still be copied when something fails ends before its memory goes.
struct EndCopies {
    cudaStream_t stream;
    ~EndCopies() {
        FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(stream));
    }
};

double medianSpeed(
        void* to,
        const void* from,
        size_t bytes,
        int repetitions,
        cudaStream_t stream) {
    TimingEvent begin;
    TimingEvent end;
    std::vector<double> seconds;
    const EndCopies onReturn{stream};
    // The first copy is not counted.
    for (int i = 0; i <= repetitions; ++i) {
        begin.record(stream);
        FAISS_EXT_CUDA_TRY(
                cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
        end.record(stream);
        end.wait();
        if (i > 0) {
            seconds.push_back(end.secondsSince(begin));
        }
    }
    auto middle = seconds.begin() + seconds.size() / 2;
    std::nth_element(seconds.begin(), middle, seconds.end());
    return bytes / *middle;
}

} // namespace

LinkSpeed measureLinkSpeed(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        size_t bytes,
        int repetitions) {
    if (bytes == 0 || repetitions < 1) {
        throw InvalidArray(
                "measureLinkSpeed: bytes and repetitions must be 1 or more");
    }
    DeviceGuard guard(device);
    const RelaxedCapture relaxed;
    const DeviceBuffer onDevice(std::move(resources), device, bytes);
    TransferCounters counters;
    PinnedBufferPool pool(PinnedBufferPool::bucketSize(bytes), counters);
    const PinnedBuffer onHost = pool.acquire(bytes);
    const cudaStream_t stream = onDevice.stream();
    refuseCapture(stream, "the resources");
    LinkSpeed speed;
    speed.toDevice = medianSpeed(
            onDevice.data(), onHost.data(), bytes, repetitions, stream);
    speed.toHost = medianSpeed(
            onHost.data(), onDevice.data(), bytes, repetitions, stream);
    return speed;
}

} // namespace gpu
} // namespace faiss_ext
