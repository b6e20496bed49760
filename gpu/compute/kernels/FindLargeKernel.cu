#include <faiss_ext/gpu/compute/kernels/FindLarge.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr int kThreads = 256;
/// Enough to fill any GPU; each thread takes many elements.
constexpr int64_t kMostBlocks = 4096;

/// The bits of float16 numbers without their signs are in the order of their
/// magnitudes; above infinity's is NaN.
constexpr uint16_t kMagnitude = 0x7fff;
constexpr uint16_t kInfinity = 0x7c00;

__global__ void findLargeKernel(
        const uint16_t* halves, int64_t count, uint16_t least, int32_t* found) {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    bool any = false;
    for (; i < count; i += step) {
        const uint16_t magnitude = halves[i] & kMagnitude;
        any |= magnitude >= least && magnitude <= kInfinity;
    }
    if (any) {
        // Whoever else writes it writes the same.
        *found = 1;
    }
}

} // namespace

cudaError_t launchFindLarge(
        const void* halves,
        int64_t count,
        uint16_t least,
        int32_t* found,
        cudaStream_t stream) {
    const int64_t blocks = (count + kThreads - 1) / kThreads;
    findLargeKernel<<<
            static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
            kThreads,
            0,
            stream>>>(
            static_cast<const uint16_t*>(halves), count, least, found);
    return cudaGetLastError();
}

} // namespace gpu
} // namespace faiss_ext
