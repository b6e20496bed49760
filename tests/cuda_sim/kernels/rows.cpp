// Replaces the kernel of faiss_ext's conversion to float32.

#include <cuda_fp16.h>
#include <faiss_ext/gpu/ConvertRows.h>

#include <algorithm>
#include <cstring>

#include "../cuda_sim_kernel.h"

namespace faiss_ext {
namespace gpu {

namespace {

uint16_t word(const char* bytes) {
    uint16_t value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
}

float floatOf(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

float element(const DataType& type, const char* bytes) {
    switch (type.kind) {
        case DataType::Kind::Float: {
            if (type.bits == 16) {
                __half_raw half;
                half.x = word(bytes);
                return __half2float(half);
            }
            float value;
            std::memcpy(&value, bytes, sizeof(value));
            return value;
        }
        case DataType::Kind::BFloat:
            return floatOf(uint32_t(word(bytes)) << 16);
        case DataType::Kind::Int:
            return static_cast<signed char>(*bytes);
        default:
            return static_cast<unsigned char>(*bytes);
    }
}

} // namespace

cudaError_t launchToFloat32(
        const StridedRows& source, float* destination, cudaStream_t stream) {
    const int64_t rowReach = (source.rows - 1) * source.rowStride;
    const int64_t columnReach = (source.columns - 1) * source.columnStride;
    const int64_t low =
            std::min<int64_t>(rowReach, 0) + std::min<int64_t>(columnReach, 0);
    const int64_t high = std::max<int64_t>(rowReach, 0) +
                         std::max<int64_t>(columnReach, 0) +
                         source.dtype.bytes();
    const char* first = static_cast<const char*>(source.data);
    return cuda_sim::launch(
            "toFloat32Kernel",
            stream,
            {cuda_sim::reads(first + low, high - low),
             cuda_sim::writes(destination, source.rows * source.columns)},
            [=] {
                const char* from = cuda_sim::view(first + low) - low;
                float* to = cuda_sim::view(destination);
                for (int64_t i = 0; i < source.rows; ++i) {
                    for (int64_t j = 0; j < source.columns; ++j) {
                        *to++ =
                                element(source.dtype,
                                        from + i * source.rowStride +
                                                j * source.columnStride);
                    }
                }
            });
}

} // namespace gpu
} // namespace faiss_ext
