#include <faiss_ext/gpu/StreamOrder.h>

#include <faiss_ext/gpu/CudaHandles.h>

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
    DeviceGuard there(earlierDevice);
    Event reached;
    reached.record(earlier);
    DeviceGuard here(laterDevice);
    reached.orderBefore(later);
}

} // namespace gpu
} // namespace faiss_ext
