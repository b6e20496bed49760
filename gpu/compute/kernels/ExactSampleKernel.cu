#include <algorithm>

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// Rounded towards infinity. (-ftz=true, which this library is not compiled
// with, would make these round denormal numbers down.)

__device__ inline float multiplyUp(float a, float b) {
    return __fmul_ru(a, b);
}

__device__ inline float addUp(float a, float b) {
    return __fadd_ru(a, b);
}

/// Once rounded, so that a score's bound takes three instructions.
__device__ inline float fusedUp(float a, float b, float c) {
    return __fmaf_ru(a, b, c);
}

__device__ inline float rootUp(float a) {
    return __fsqrt_ru(a);
}

/// What a vector adds to the values that bound its loss.
struct Bound {
    float start;
    VectorBounds bounds;
};

__device__ inline Bound boundOf(Metric metric, const VectorTerms& vector) {
    Bound bound;
    // A vector out of range proves nothing, whatever its score is.
    bound.start = infinity();
    if (inRange(vector)) {
        // As VectorBounds::boundsOf, but in float32, which is much faster.
        bound.bounds.error = vector.error;
        bound.bounds.norm =
                addUp(rootUp(multiplyUp(nextUp(vector.square), 1 + 0x1p-23f)),
                      vector.error);
        bound.start = 0;
        if (metric == Metric::L2) {
            // As in mostLoss: the square was rounded down.
            bound.start =
                    addUp(vector.square,
                          multiplyUp(
                                  multiplyUp(0x1p-22f, bound.bounds.norm),
                                  bound.bounds.norm));
        }
    }
    return bound;
}

/// The bin of 256 that holds the wanted one, counted from 1, of all that are in
/// the bins; and makes `wanted` its place within the bin. For one warp.
__device__ inline int binOf(const uint32_t* bins, uint32_t& wanted) {
    constexpr int kBins = 256 / 32;
    const int lane = threadIdx.x % 32;
    uint32_t own = 0;
    for (int i = 0; i < kBins; ++i) {
        own += bins[lane * kBins + i];
    }
    uint32_t upTo = own;
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t other = __shfl_up_sync(kWholeWarp, upTo, step);
        upTo += lane >= step ? other : 0;
    }
    const int holder = __ffs(__ballot_sync(kWholeWarp, upTo >= wanted)) - 1;
    int bin = lane * kBins;
    uint32_t before = upTo - own;
    if (lane == holder) {
        while (before + bins[bin] < wanted) {
            before += bins[bin++];
        }
    }
    wanted -= __shfl_sync(kWholeWarp, before, holder);
    return __shfl_sync(kWholeWarp, bin, holder);
}

/// Columns that a warp reads at once.
constexpr int kPiece = 4 * 32;

/// A block takes `Queries` queries, and every step-th piece of the columns.
/// Each of its threads keeps, of every query, the least bound in each of
/// `Slots` parts of the sample: the k-th smallest of all these is a bound that
/// k vectors meet, and hardly above the k-th smallest of the sample, as long as
/// there are several times k of them. One pass over the scores is enough, and
/// no order of anything shows.
template <int Threads, int Queries, int Slots, bool aligned>
__global__ void __launch_bounds__(Threads) sampleCutKernel(
        VectorRows rows,
        IndexState state,
        QueryState queries,
        const float* __restrict__ scores,
        idx_t ld,
        idx_t step) {
    const idx_t firstQuery = idx_t(blockIdx.x) * Queries;
    const Metric metric = state.terms->metric;
    float factor[Queries];
    float perNorm[Queries];
    float perError[Queries];
    const float* row[Queries];
    bool any = false;
#pragma unroll
    for (int j = 0; j < Queries; ++j) {
        // A query too many is the last one again.
        const idx_t query =
                firstQuery + j < queries.n ? firstQuery + j : queries.n - 1;
        any |= queries.paths[query] != QueryPath::Last;
        factor[j] = queries.terms[query].factor;
        perNorm[j] = queries.terms[query].perNorm;
        perError[j] = queries.terms[query].perError;
        row[j] = scores + query * ld;
    }
    if (!any) {
        return;
    }
    float least[Queries][Slots];
#pragma unroll
    for (int j = 0; j < Queries; ++j) {
#pragma unroll
        for (int slot = 0; slot < Slots; ++slot) {
            least[j][slot] = infinity();
        }
    }
    const idx_t pieces = (rows.count + kPiece - 1) / kPiece;
    for (idx_t first = threadIdx.x / 32; first * step < pieces;
         first += Threads / 32 * (Slots / 4)) {
#pragma unroll
        for (int slot = 0; slot < Slots; slot += 4) {
            const idx_t piece = (first + slot / 4 * (Threads / 32)) * step;
            const idx_t column = piece * kPiece + 4 * (threadIdx.x % 32);
            if (column >= rows.count) {
                break;
            }
            const bool whole = column + 4 <= rows.count;
            float score[Queries][4];
#pragma unroll
            for (int j = 0; j < Queries; ++j) {
                if (aligned && whole) {
                    const float4 four = __ldg(
                            reinterpret_cast<const float4*>(row[j] + column));
                    score[j][0] = four.x;
                    score[j][1] = four.y;
                    score[j][2] = four.z;
                    score[j][3] = four.w;
                } else {
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        score[j][c] = column + c < rows.count
                                              ? __ldg(row[j] + column + c)
                                              : 0.0f;
                    }
                }
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                Bound bound;
                bound.start = infinity();
                if (column + c < rows.count) {
                    bound = boundOf(
                            metric,
                            state.vectors
                                    [rows.first + (column + c) * rows.step]);
                }
#pragma unroll
                for (int j = 0; j < Queries; ++j) {
                    const float spread =
                            fusedUp(perNorm[j],
                                    bound.bounds.norm,
                                    fusedUp(perError[j],
                                            bound.bounds.error,
                                            bound.start));
                    // (NaN is never the less.)
                    least[j][slot + c] =
                            fminf(least[j][slot + c],
                                  fusedUp(score[j][c], factor[j], spread));
                }
            }
        }
    }

    // The wanted one by digits of its distance from the least of all, the first
    // one first: so the digits differ, and few threads wait for the same bin.
    // No bound is behind all that there are.
    constexpr int kDigit = 8;
    const uint32_t none = lossKey(infinity());
    __shared__ uint32_t bins[Queries][1 << kDigit];
    __shared__ uint32_t prefixes[Queries];
    __shared__ uint32_t wanted[Queries];
    __shared__ uint32_t first[Queries];
    __shared__ uint32_t last[Queries];
    if (threadIdx.x < Queries) {
        prefixes[threadIdx.x] = 0;
        wanted[threadIdx.x] = static_cast<uint32_t>(queries.rank);
        first[threadIdx.x] = none;
        last[threadIdx.x] = 0;
    }
    __syncthreads();
    uint32_t key[Queries][Slots];
#pragma unroll
    for (int j = 0; j < Queries; ++j) {
        uint32_t low = none;
        uint32_t high = 0;
#pragma unroll
        for (int slot = 0; slot < Slots; ++slot) {
            const uint32_t own = lossKey(least[j][slot]);
            key[j][slot] = own;
            low = own < low ? own : low;
            high = own < none && own > high ? own : high;
        }
        for (int apart = 16; apart > 0; apart /= 2) {
            const uint32_t lower = __shfl_xor_sync(kWholeWarp, low, apart);
            const uint32_t higher = __shfl_xor_sync(kWholeWarp, high, apart);
            low = lower < low ? lower : low;
            high = higher > high ? higher : high;
        }
        if (threadIdx.x % 32 == 0) {
            atomicMin(first + j, low);
            atomicMax(last + j, high);
        }
    }
    __syncthreads();
    int most = 0;
#pragma unroll
    for (int j = 0; j < Queries; ++j) {
        const uint32_t low = first[j];
        // (Where there is no bound at all, each is that number 0.)
        const uint32_t behind = last[j] < low ? 0 : last[j] - low + 1;
#pragma unroll
        for (int slot = 0; slot < Slots; ++slot) {
            const uint32_t own = key[j][slot];
            key[j][slot] = own < none ? own - low : behind;
        }
        const int bits = 32 - __clz(static_cast<int>(behind));
        most = bits > most ? bits : most;
    }
    for (int left = most; left > 0; left -= kDigit) {
        const int shift = left > kDigit ? left - kDigit : 0;
        for (int i = threadIdx.x; i < Queries << kDigit; i += Threads) {
            bins[i >> kDigit][i & ((1 << kDigit) - 1)] = 0;
        }
        __syncthreads();
        const uint32_t mask = (1u << (left - shift)) - 1;
#pragma unroll
        for (int j = 0; j < Queries; ++j) {
            const uint32_t prefix = prefixes[j];
#pragma unroll
            for (int slot = 0; slot < Slots; ++slot) {
                const uint32_t own = key[j][slot];
                if (left == most || own >> left == prefix) {
                    atomicAdd(&bins[j][own >> shift & mask], 1u);
                }
            }
        }
        __syncthreads();
        const int warp = threadIdx.x / 32;
        if (warp < Queries) {
            uint32_t place = wanted[warp];
            const int bin = binOf(bins[warp], place);
            __syncwarp();
            if (threadIdx.x % 32 == 0) {
                wanted[warp] = place;
                prefixes[warp] = prefixes[warp] << (left - shift) |
                                 static_cast<uint32_t>(bin);
            }
        }
        __syncthreads();
    }
    if (threadIdx.x < Queries && firstQuery + threadIdx.x < queries.n) {
        const idx_t query = firstQuery + threadIdx.x;
        if (queries.paths[query] != QueryPath::Last) {
            const uint32_t low = first[threadIdx.x];
            const uint32_t own = low + prefixes[threadIdx.x];
            const float found =
                    own <= last[threadIdx.x] ? lossOfKey(own) : infinity();
            // The vector's own part is in the bound already.
            const float cut = mostLoss(
                    *state.terms, queries.terms[query], found, VectorBounds());
            if (cut < queries.cut[query]) {
                queries.cut[query] = cut;
            }
        }
    }
}

template <int Threads, int Queries, int Slots>
cudaError_t launch(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const float* scores,
        idx_t ld,
        idx_t step,
        cudaStream_t stream) {
    static_assert(Slots % 4 == 0 && Threads / 32 >= Queries, "see the kernel");
    const auto sampleCut =
            rowsAligned(scores, ld)
                    ? sampleCutKernel<Threads, Queries, Slots, true>
                    : sampleCutKernel<Threads, Queries, Slots, false>;
    sampleCut<<<blocksFor(queries.n, Queries), Threads, 0, stream>>>(
            rows, state, queries, scores, ld, step);
    return cudaGetLastError();
}

} // namespace

cudaError_t launchSampleCut(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const float* scores,
        idx_t ld,
        cudaStream_t stream) {
    const idx_t rank = queries.rank;
    if (rows.count < rank) {
        return cudaErrorInvalidValue;
    }
    if (queries.n == 0) {
        return cudaSuccess;
    }
    // So many vectors are enough, if the lists have room for what passes a cut
    // of so few.
    const idx_t enough = std::max<idx_t>(
            {1 << 14, 16 * rank, rows.count / queries.capacity * 4 * rank});
    const idx_t step = std::max<idx_t>(1, rows.count / enough);
    const auto by = [&](auto launchParts) {
        return launchParts(rows, state, queries, scores, ld, step, stream);
    };
    // Parts: 512 and 2048, an eighth of which is the rank; 8192, a quarter.
    return rank <= 64    ? by(launch<128, 4, 4>)
           : rank <= 256 ? by(launch<256, 4, 8>)
                         : by(launch<512, 2, 16>);
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
