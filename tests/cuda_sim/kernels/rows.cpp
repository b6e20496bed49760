// Replaces the kernels of faiss_ext: conversions, the labels of slices,
// neighbours that are missing, the search for numbers that are large in
// float16, and the normalisation of vectors.

#include <cuda_fp16.h>
#include <faiss_ext/gpu/arrays/ConvertRows.h>
#include <faiss_ext/gpu/compute/exact/Normalize.h>
#include <faiss_ext/gpu/compute/kernels/FillMissing.h>
#include <faiss_ext/gpu/compute/kernels/FindLarge.h>
#include <faiss_ext/gpu/compute/kernels/NormalizeRows.h>
#include <faiss_ext/gpu/compute/kernels/OffsetLabels.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../cuda_sim_kernel.h"

namespace faiss_ext {
namespace gpu {

namespace {

template <typename T>
T read(const char* bytes) {
    T value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
}

float halfAt(const char* bytes) {
    __half_raw half;
    half.x = read<uint16_t>(bytes);
    return __half2float(half);
}

float bfloatAt(const char* bytes) {
    const uint32_t bits = uint32_t(read<uint16_t>(bytes)) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

/// The float32 nearest to an element.
float floatAt(const DataType& type, const char* bytes) {
    const bool isSigned = type.kind == DataType::Kind::Int;
    switch (type.kind) {
        case DataType::Kind::Float:
            return type.bits == 16   ? halfAt(bytes)
                   : type.bits == 32 ? read<float>(bytes)
                                     : float(read<double>(bytes));
        case DataType::Kind::BFloat:
            return bfloatAt(bytes);
        default:
            switch (type.bits) {
                case 8:
                    return isSigned ? float(read<int8_t>(bytes))
                                    : float(read<uint8_t>(bytes));
                case 16:
                    return isSigned ? float(read<int16_t>(bytes))
                                    : float(read<uint16_t>(bytes));
                case 32:
                    return isSigned ? float(read<int32_t>(bytes))
                                    : float(read<uint32_t>(bytes));
                default:
                    return isSigned ? float(read<int64_t>(bytes))
                                    : float(read<uint64_t>(bytes));
            }
    }
}

/// Writes one element as another type.
void convert(
        const DataType& from,
        const char* source,
        const DataType& to,
        char* made) {
    if (to.kind == DataType::Kind::Float) {
        const float value = floatAt(from, source);
        const __half_raw half = __float2half_rn(value);
        std::memcpy(
                made,
                to.bits == 32 ? static_cast<const void*>(&value) : &half.x,
                to.bytes());
    } else {
        const int64_t value = from.bits == 32 ? int64_t(read<int32_t>(source))
                                              : read<int64_t>(source);
        const auto low = static_cast<int32_t>(value);
        std::memcpy(
                made,
                to.bits == 64 ? static_cast<const void*>(&value) : &low,
                to.bytes());
    }
}

template <typename Label>
cudaError_t offsetLabels(
        const GroupedLabels<Label>& labels,
        int64_t offset,
        cudaStream_t stream) {
    const size_t count = labels.rows * labels.groups * labels.k;
    return cuda_sim::launch(
            "offsetLabelsKernel",
            stream,
            {cuda_sim::writes(labels.data, count)},
            [=] {
                Label* const found = cuda_sim::view(labels.data);
                for (size_t i = 0; i < count; ++i) {
                    if (found[i] >= 0) {
                        found[i] += i / labels.k % labels.groups * offset;
                    }
                }
            });
}

template <typename Label>
cudaError_t fillMissing(
        float* distances,
        Label* labels,
        int64_t count,
        float distance,
        cudaStream_t stream) {
    std::vector<cuda_sim_range> ranges;
    if (distances) {
        ranges.push_back(cuda_sim::writes(distances, count));
    }
    if (labels) {
        ranges.push_back(cuda_sim::writes(labels, count));
    }
    return cuda_sim::launch("fillMissingKernel", stream, ranges, [=] {
        if (distances) {
            std::fill_n(cuda_sim::view(distances), count, distance);
        }
        if (labels) {
            std::fill_n(cuda_sim::view(labels), count, -1);
        }
    });
}

} // namespace

cudaError_t launchConvertRows(
        const StridedRows& source,
        const DataType& to,
        void* destination,
        cudaStream_t stream) {
    const int64_t rowReach = (source.rows - 1) * source.rowStride;
    const int64_t columnReach = (source.columns - 1) * source.columnStride;
    const int64_t low =
            std::min<int64_t>(rowReach, 0) + std::min<int64_t>(columnReach, 0);
    const int64_t high = std::max<int64_t>(rowReach, 0) +
                         std::max<int64_t>(columnReach, 0) +
                         source.dtype.bytes();
    const char* first = static_cast<const char*>(source.data);
    char* const made = static_cast<char*>(destination);
    const size_t bytes = source.rows * source.columns * to.bytes();
    return cuda_sim::launch(
            "convertRowsKernel",
            stream,
            {cuda_sim::reads(first + low, high - low),
             cuda_sim::writes(made, bytes)},
            [=] {
                const char* from = cuda_sim::view(first + low) - low;
                char* next = cuda_sim::view(made);
                for (int64_t i = 0; i < source.rows; ++i) {
                    for (int64_t j = 0; j < source.columns; ++j) {
                        convert(source.dtype,
                                from + i * source.rowStride +
                                        j * source.columnStride,
                                to,
                                next);
                        next += to.bytes();
                    }
                }
            });
}

cudaError_t launchFindLarge(
        const void* halves,
        int64_t count,
        uint16_t least,
        int32_t* found,
        cudaStream_t stream) {
    const char* const source = static_cast<const char*>(halves);
    return cuda_sim::launch(
            "findLargeKernel",
            stream,
            {cuda_sim::reads(source, count * 2), cuda_sim::writes(found, 1)},
            [=] {
                __half_raw bound;
                bound.x = least;
                const char* const from = cuda_sim::view(source);
                for (int64_t i = 0; i < count; ++i) {
                    // False for NaN.
                    if (std::abs(halfAt(from + i * 2)) >= __half2float(bound)) {
                        *cuda_sim::view(found) = 1;
                    }
                }
            });
}

cudaError_t launchNormalizeRows(
        const float* from, int64_t n, int d, float* to, cudaStream_t stream) {
    return cuda_sim::launch(
            "normalizeRowsKernel",
            stream,
            {cuda_sim::reads(from, n * d), cuda_sim::writes(to, n * d)},
            [=] {
                const float* const rows = cuda_sim::view(from);
                float* const made = cuda_sim::view(to);
                for (int64_t i = 0; i < n; ++i) {
                    exact::normalize(rows + i * d, d, made + i * d);
                }
            });
}

cudaError_t launchOffsetLabels(
        const GroupedLabels<int32_t>& labels,
        int64_t offset,
        cudaStream_t stream) {
    return offsetLabels(labels, offset, stream);
}

cudaError_t launchOffsetLabels(
        const GroupedLabels<int64_t>& labels,
        int64_t offset,
        cudaStream_t stream) {
    return offsetLabels(labels, offset, stream);
}

cudaError_t launchFillMissing(
        float* distances,
        int32_t* labels,
        int64_t count,
        float distance,
        cudaStream_t stream) {
    return fillMissing(distances, labels, count, distance, stream);
}

cudaError_t launchFillMissing(
        float* distances,
        int64_t* labels,
        int64_t count,
        float distance,
        cudaStream_t stream) {
    return fillMissing(distances, labels, count, distance, stream);
}

} // namespace gpu
} // namespace faiss_ext
