#include <faiss_ext/gpu/OffsetLabels.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr int kThreads = 256;
/// Enough to fill any GPU; each thread takes several elements where there are
/// more.
constexpr int64_t kMostBlocks = 16384;

template <typename Label>
__global__ void offsetLabelsKernel(
        Label* labels, int64_t count, int groups, int k, int64_t offset) {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < count; i += step) {
        if (labels[i] >= 0) {
            labels[i] += static_cast<Label>(i / k % groups * offset);
        }
    }
}

template <typename Label>
cudaError_t launch(
        Label* labels,
        int64_t rows,
        int groups,
        int k,
        int64_t offset,
        cudaStream_t stream) {
    const int64_t count = rows * groups * k;
    const int64_t blocks = (count + kThreads - 1) / kThreads;
    offsetLabelsKernel<<<
            static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
            kThreads,
            0,
            stream>>>(labels, count, groups, k, offset);
    return cudaGetLastError();
}

} // namespace

cudaError_t launchOffsetLabels(
        int32_t* labels,
        int64_t rows,
        int groups,
        int k,
        int64_t offset,
        cudaStream_t stream) {
    return launch(labels, rows, groups, k, offset, stream);
}

cudaError_t launchOffsetLabels(
        int64_t* labels,
        int64_t rows,
        int groups,
        int k,
        int64_t offset,
        cudaStream_t stream) {
    return launch(labels, rows, groups, k, offset, stream);
}

} // namespace gpu
} // namespace faiss_ext
