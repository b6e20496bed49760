#include <faiss_ext/gpu/compute/kernels/FillMissing.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr int kThreads = 256;
/// Enough to fill any GPU; each thread takes several elements where there are
/// more.
constexpr int64_t kMostBlocks = 16384;

template <typename Label>
__global__ void fillMissingKernel(
        float* distances, Label* labels, int64_t count, float distance) {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < count; i += step) {
        if (distances) {
            distances[i] = distance;
        }
        if (labels) {
            labels[i] = -1;
        }
    }
}

template <typename Label>
cudaError_t launch(
        float* distances,
        Label* labels,
        int64_t count,
        float distance,
        cudaStream_t stream) {
    const int64_t blocks = (count + kThreads - 1) / kThreads;
    fillMissingKernel<<<
            static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
            kThreads,
            0,
            stream>>>(distances, labels, count, distance);
    return cudaGetLastError();
}

} // namespace

cudaError_t launchFillMissing(
        float* distances,
        int32_t* labels,
        int64_t count,
        float distance,
        cudaStream_t stream) {
    return launch(distances, labels, count, distance, stream);
}

cudaError_t launchFillMissing(
        float* distances,
        int64_t* labels,
        int64_t count,
        float distance,
        cudaStream_t stream) {
    return launch(distances, labels, count, distance, stream);
}

} // namespace gpu
} // namespace faiss_ext
