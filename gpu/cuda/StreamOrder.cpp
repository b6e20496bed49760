#include <faiss_ext/gpu/cuda/StreamOrder.h>

#include <faiss_ext/gpu/cuda/CudaHandles.h>

namespace faiss_ext {
namespace gpu {

void orderStreams(
        cudaStream_t earlier,
        int earlierDevice,
        cudaStream_t later,
        int laterDevice) {
    if (earlier == later && earlierDevice == laterDevice) {
        return;
    }
    // An event is recorded on a stream of the GPU it was made on; a stream of
    // any GPU may wait for it. The default streams are those of the current
    // GPU.
    //
    // In a capture, the event would take `later` into it, or end it.
    {
        DeviceGuard here(laterDevice);
        refuseCapture(later, "the stream that is to wait");
    }
    DeviceGuard there(earlierDevice);
    refuseCapture(earlier, "the stream that is to be waited for");
    Event reached;
    reached.record(earlier);
    DeviceGuard here(laterDevice);
    reached.orderBefore(later);
}

} // namespace gpu
} // namespace faiss_ext
