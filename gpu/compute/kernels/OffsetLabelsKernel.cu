#include <faiss_ext/gpu/compute/kernels/OffsetLabels.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr int kThreads = 256;
/// Enough to fill any GPU; each thread takes several elements where there are
/// more.
constexpr int64_t kMostBlocks = 16384;

template <typename Label>
__global__ void offsetLabelsKernel(
        GroupedLabels<Label> labels, int64_t offset) {
    const int64_t count = labels.rows * labels.groups * labels.k;
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < count; i += step) {
        if (labels.data[i] >= 0) {
            labels.data[i] +=
                    static_cast<Label>(i / labels.k % labels.groups * offset);
        }
    }
}

template <typename Label>
cudaError_t launch(
        const GroupedLabels<Label>& labels,
        int64_t offset,
        cudaStream_t stream) {
    const int64_t count = labels.rows * labels.groups * labels.k;
    const int64_t blocks = (count + kThreads - 1) / kThreads;
    offsetLabelsKernel<<<
            static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
            kThreads,
            0,
            stream>>>(labels, offset);
    return cudaGetLastError();
}

} // namespace

cudaError_t launchOffsetLabels(
        const GroupedLabels<int32_t>& labels,
        int64_t offset,
        cudaStream_t stream) {
    return launch(labels, offset, stream);
}

cudaError_t launchOffsetLabels(
        const GroupedLabels<int64_t>& labels,
        int64_t offset,
        cudaStream_t stream) {
    return launch(labels, offset, stream);
}

} // namespace gpu
} // namespace faiss_ext
