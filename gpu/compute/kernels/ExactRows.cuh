#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include <faiss_ext/gpu/compute/exact/ExactArithmetic.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>

// How the exact search's kernels read rows, and how they are launched.

namespace faiss_ext {
namespace gpu {
namespace exact {

constexpr unsigned kWholeWarp = 0xffffffff;

/// Four neighbouring components.
struct Four {
    float at[4];
};

/// Components i to i + 3 of a row of d, zeros beyond its end. i is a multiple
/// of 4. `aligned`: every row begins at a multiple of four components.
template <bool aligned>
__device__ inline Four loadFour(const float* row, int i, int d) {
    Four four = {{0, 0, 0, 0}};
    if constexpr (aligned) {
        if (i < d) {
            const float4 loaded =
                    __ldg(reinterpret_cast<const float4*>(row + i));
            four = {{loaded.x, loaded.y, loaded.z, loaded.w}};
        }
    } else {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            if (i + c < d) {
                four.at[c] = __ldg(row + i + c);
            }
        }
    }
    return four;
}

template <bool aligned>
__device__ inline Four loadFour(const Half* row, int i, int d) {
    Four four = {{0, 0, 0, 0}};
    if constexpr (aligned) {
        if (i < d) {
            const uint2 loaded = __ldg(reinterpret_cast<const uint2*>(row + i));
            four.at[0] = toFloat(Half{static_cast<uint16_t>(loaded.x)});
            four.at[1] = toFloat(Half{static_cast<uint16_t>(loaded.x >> 16)});
            four.at[2] = toFloat(Half{static_cast<uint16_t>(loaded.y)});
            four.at[3] = toFloat(Half{static_cast<uint16_t>(loaded.y >> 16)});
        }
    } else {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            if (i + c < d) {
                four.at[c] = toFloat(row[i + c]);
            }
        }
    }
    return four;
}

/// Whether rows [.., d] from `data` on begin at multiples of four components.
template <typename Stored>
inline bool rowsAligned(const Stored* data, int d) {
    return d % 4 == 0 &&
           reinterpret_cast<uintptr_t>(data) % (4 * sizeof(Stored)) == 0;
}

/// The same of rows [.., ld] of scores or losses.
inline bool rowsAligned(const float* data, idx_t ld) {
    return ld % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

/// Calls make(data, d) with the vectors' data as what it is.
template <typename Function>
inline cudaError_t withStored(const VectorsView& vectors, Function&& make) {
    return vectors.float16 ? make(static_cast<const Half*>(vectors.data))
                           : make(static_cast<const float*>(vectors.data));
}

/// Blocks for `items`, so many of which a block takes; none is an error of
/// CUDA's, which nothing launched here has.
inline unsigned blocksFor(int64_t items, int64_t perBlock) {
    return static_cast<unsigned>((items + perBlock - 1) / perBlock);
}

/// The same, `most` at most: for blocks that go on until all is done.
inline unsigned blocksFor(int64_t items, int64_t perBlock, int64_t most) {
    const int64_t blocks = (items + perBlock - 1) / perBlock;
    return static_cast<unsigned>(blocks < most ? blocks : most);
}

/// Of the current GPU.
inline cudaError_t multiprocessors(int& count) {
    int device = 0;
    const cudaError_t error = cudaGetDevice(&device);
    return error != cudaSuccess
                   ? error
                   : cudaDeviceGetAttribute(
                             &count, cudaDevAttrMultiProcessorCount, device);
}

/// Allows a kernel so much dynamic shared memory.
template <typename Kernel>
inline cudaError_t allowShared(Kernel* kernel, size_t bytes) {
    // Of 48 KiB, which it has anyway, static shared memory is a part.
    constexpr size_t kAlways = 8 << 10;
    if (bytes <= kAlways) {
        return cudaSuccess;
    }
    return cudaFuncSetAttribute(
            reinterpret_cast<const void*>(kernel),
            cudaFuncAttributeMaxDynamicSharedMemorySize,
            static_cast<int>(bytes));
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
