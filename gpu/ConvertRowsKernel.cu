#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <faiss_ext/gpu/ConvertRows.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr int kThreads = 256;
/// Enough to fill any GPU; each thread takes several elements where there are
/// more.
constexpr int64_t kMostBlocks = 16384;

template <typename T>
__global__ void toFloat32Kernel(
        const char* source,
        int64_t elements,
        int64_t columns,
        int64_t rowStride,
        int64_t columnStride,
        float* destination) {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < elements; i += step) {
        const int64_t row = i / columns;
        const int64_t column = i - row * columns;
        destination[i] = static_cast<float>(*reinterpret_cast<const T*>(
                source + row * rowStride + column * columnStride));
    }
}

template <typename T>
cudaError_t launch(
        const StridedRows& source, float* destination, cudaStream_t stream) {
    const int64_t elements = source.rows * source.columns;
    const int64_t blocks = (elements + kThreads - 1) / kThreads;
    toFloat32Kernel<T>
            <<<static_cast<unsigned>(
                       blocks < kMostBlocks ? blocks : kMostBlocks),
               kThreads,
               0,
               stream>>>(
                    static_cast<const char*>(source.data),
                    elements,
                    source.columns,
                    source.rowStride,
                    source.columnStride,
                    destination);
    return cudaGetLastError();
}

} // namespace

cudaError_t launchToFloat32(
        const StridedRows& source, float* destination, cudaStream_t stream) {
    switch (source.dtype.kind) {
        case DataType::Kind::Float:
            return source.dtype.bits == 16
                           ? launch<__half>(source, destination, stream)
                           : launch<float>(source, destination, stream);
        case DataType::Kind::BFloat:
            return launch<__nv_bfloat16>(source, destination, stream);
        case DataType::Kind::Int:
            return launch<int8_t>(source, destination, stream);
        case DataType::Kind::UInt:
            return launch<uint8_t>(source, destination, stream);
        default:
            return cudaErrorInvalidValue;
    }
}

} // namespace gpu
} // namespace faiss_ext
