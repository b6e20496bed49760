#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <faiss_ext/gpu/arrays/ConvertRows.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr int kThreads = 256;
/// Enough to fill any GPU; each thread takes several elements where there are
/// more.
constexpr int64_t kMostBlocks = 16384;

template <typename From, typename To>
__global__ void convertRowsKernel(
        const char* source,
        int64_t elements,
        int64_t columns,
        int64_t rowStride,
        int64_t columnStride,
        To* destination) {
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i < elements; i += step) {
        // A division takes longer than the rest.
        const int64_t row = elements == columns ? 0 : i / columns;
        const int64_t column = i - row * columns;
        destination[i] = static_cast<To>(*reinterpret_cast<const From*>(
                source + row * rowStride + column * columnStride));
    }
}

template <typename From, typename To>
cudaError_t launch(
        const StridedRows& source, void* destination, cudaStream_t stream) {
    const int64_t elements = source.rows * source.columns;
    const int64_t blocks = (elements + kThreads - 1) / kThreads;
    convertRowsKernel<From, To>
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
                    static_cast<To*>(destination));
    return cudaGetLastError();
}

/// By the size of the integers.
template <typename I8, typename I16, typename I32, typename I64>
cudaError_t integersToFloat32(
        const StridedRows& source, void* destination, cudaStream_t stream) {
    switch (source.dtype.bits) {
        case 8:
            return launch<I8, float>(source, destination, stream);
        case 16:
            return launch<I16, float>(source, destination, stream);
        case 32:
            return launch<I32, float>(source, destination, stream);
        default:
            return launch<I64, float>(source, destination, stream);
    }
}

cudaError_t toFloat32(
        const StridedRows& source, void* destination, cudaStream_t stream) {
    switch (source.dtype.kind) {
        case DataType::Kind::Float:
            return source.dtype.bits == 16
                           ? launch<__half, float>(source, destination, stream)
                   : source.dtype.bits == 32
                           ? launch<float, float>(source, destination, stream)
                           : launch<double, float>(source, destination, stream);
        case DataType::Kind::BFloat:
            return launch<__nv_bfloat16, float>(source, destination, stream);
        case DataType::Kind::Int:
            return integersToFloat32<int8_t, int16_t, int32_t, int64_t>(
                    source, destination, stream);
        case DataType::Kind::UInt:
            return integersToFloat32<uint8_t, uint16_t, uint32_t, uint64_t>(
                    source, destination, stream);
        default:
            return cudaErrorInvalidValue;
    }
}

} // namespace

cudaError_t launchConvertRows(
        const StridedRows& source,
        const DataType& to,
        void* destination,
        cudaStream_t stream) {
    if (!canConvert(source.dtype, to)) {
        return cudaErrorInvalidValue;
    }
    if (to.kind == DataType::Kind::Float) {
        return to.bits == 32
                       ? toFloat32(source, destination, stream)
                       : launch<float, __half>(source, destination, stream);
    }
    if (to.bits == 32) {
        return launch<int64_t, int32_t>(source, destination, stream);
    }
    return source.dtype.bits == 32
                   ? launch<int32_t, int64_t>(source, destination, stream)
                   : launch<int64_t, int64_t>(source, destination, stream);
}

} // namespace gpu
} // namespace faiss_ext
