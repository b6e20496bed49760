#include <faiss_ext/gpu/compute/kernels/NormalizeRows.h>

#include <faiss_ext/gpu/compute/exact/Normalize.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

#include <cstdint>

namespace faiss_ext {
namespace gpu {

namespace {

using exact::kNormChains;
using exact::kNormLanes;

constexpr int kThreads = 256;
constexpr int kRowsOfBlock = kThreads / kNormLanes;
/// Enough to fill any GPU; each warp takes many rows.
constexpr int64_t kMostBlocks = 16384;

/// (Not by __ldg, as loadFour: the rows may be written, too.)
__device__ float4 loadFourInPlace(const float* from) {
    return *reinterpret_cast<const float4*>(from);
}

/// A warp a row. With kWhole every row begins at a multiple of 16 bytes and
/// has whole loads of four components. Each lane writes what it has read, so
/// `to` may be `from`.
template <bool kWhole>
__global__ void __launch_bounds__(kThreads)
        normalizeRowsKernel(const float* from, int64_t n, int d, float* to) {
    const int first = 4 * (threadIdx.x % kNormLanes);
    const int64_t step = int64_t(gridDim.x) * kRowsOfBlock;
    int64_t row = int64_t(blockIdx.x) * kRowsOfBlock + threadIdx.x / kNormLanes;
    for (; row < n; row += step) {
        const float* const x = from + row * d;
        float* const y = to + row * d;
        double c0 = 0, c1 = 0, c2 = 0, c3 = 0;
        for (int i = first; i < d; i += kNormChains) {
            if (kWhole) {
                const float4 four = loadFourInPlace(x + i);
                c0 = exact::addSquare(four.x, c0);
                c1 = exact::addSquare(four.y, c1);
                c2 = exact::addSquare(four.z, c2);
                c3 = exact::addSquare(four.w, c3);
            } else {
                c0 = exact::addSquare(x[i], c0);
                c1 = i + 1 < d ? exact::addSquare(x[i + 1], c1) : c1;
                c2 = i + 2 < d ? exact::addSquare(x[i + 2], c2) : c2;
                c3 = i + 3 < d ? exact::addSquare(x[i + 3], c3) : c3;
            }
        }
        double sum = exact::joinNormChains(c0, c1, c2, c3);
        // Either order of two lanes has the same sum: all lanes have it.
        for (int half = kNormLanes / 2; half > 0; half /= 2) {
            sum += __shfl_xor_sync(exact::kWholeWarp, sum, half);
        }
        const double factor = exact::normFactor(sum);
        for (int i = first; i < d; i += kNormChains) {
            if (kWhole) {
                float4 four = loadFourInPlace(x + i);
                four.x = exact::normalizedComponent(four.x, factor);
                four.y = exact::normalizedComponent(four.y, factor);
                four.z = exact::normalizedComponent(four.z, factor);
                four.w = exact::normalizedComponent(four.w, factor);
                *reinterpret_cast<float4*>(y + i) = four;
            } else {
                for (int c = i; c < i + 4 && c < d; ++c) {
                    y[c] = exact::normalizedComponent(x[c], factor);
                }
            }
        }
    }
}

} // namespace

cudaError_t launchNormalizeRows(
        const float* from, int64_t n, int d, float* to, cudaStream_t stream) {
    if (n == 0) {
        return cudaSuccess;
    }
    const bool whole = exact::rowsAligned(from, d) && exact::rowsAligned(to, d);
    const auto kernel =
            whole ? normalizeRowsKernel<true> : normalizeRowsKernel<false>;
    kernel<<<
            exact::blocksFor(n, kRowsOfBlock, kMostBlocks),
            kThreads,
            0,
            stream>>>(from, n, d, to);
    return cudaGetLastError();
}

} // namespace gpu
} // namespace faiss_ext
