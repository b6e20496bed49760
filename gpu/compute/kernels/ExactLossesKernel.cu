#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// A block compares 32 queries with 32 vectors, in segments of 32 components
// that it copies to shared memory: the next one while it computes with this.
// Two blocks share a multiprocessor, so that one computes while the other
// waits.
//
// Four lanes have four queries and four vectors, 16 pairs, in common, and a
// quarter of each pair's chains each. So D's order of operations costs no
// register more than a plain sum would, and every load serves four operations.
constexpr int kThreads = 256;
constexpr int kBlocks = 2;
constexpr int kTileQueries = 32;
constexpr int kTileVectors = 32;
constexpr int kSegment = 32;
constexpr int kOfLane = 4;
/// Neighbouring fours of rows, read at once, lie in different banks.
constexpr int kStride = kSegment + 4;
/// A thread copies four components of a query and of a vector.
constexpr int kFours = kSegment / 4;
static_assert(
        kTileQueries * kFours == kThreads && kTileVectors * kFours == kThreads,
        "each four of a segment has a thread");
/// In a warp: 2 x 4 of these lanes; in a block: 4 x 2 warps.
static_assert(
        4 * 2 * kOfLane == kTileQueries && 2 * 4 * kOfLane == kTileVectors,
        "all pairs of a tile");

struct Segment {
    float queries[kTileQueries * kStride];
    float vectors[kTileVectors * kStride];
};

__device__ inline void store(float* row, int four, const Four& components) {
    *reinterpret_cast<float4*>(row + 4 * four) = make_float4(
            components.at[0],
            components.at[1],
            components.at[2],
            components.at[3]);
}

__device__ inline void load(const float* row, float (&components)[4]) {
    const float4 four = *reinterpret_cast<const float4*>(row);
    components[0] = four.x;
    components[1] = four.y;
    components[2] = four.z;
    components[3] = four.w;
}

/// Where a thread stands.
struct Place {
    int group; // of chains
    int query; // the first of four, in the tile
    int vector;

    __device__ Place() {
        const int lane = threadIdx.x % 32;
        const int warp = threadIdx.x / 32;
        group = lane % 4;
        query = (warp / 2 * 2 + lane / 16) * kOfLane;
        vector = (warp % 2 * 4 + lane / 4 % 4) * kOfLane;
    }
};

/// The losses of query `place.query + place.group` and four vectors.
template <Metric metric, bool aligned, typename Stored>
__device__ inline void lossesOfTile(
        const float* x, // of this thread's four, or nullptr
        const Stored* y,
        int d,
        const Place& place,
        bool computes,
        Segment* segments,
        float (&losses)[kOfLane]) {
    const int four = threadIdx.x % kFours;
    const int row = threadIdx.x / kFours;
    float chain[kOfLane][kOfLane][4];
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
#pragma unroll
        for (int j = 0; j < kOfLane; ++j) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                chain[i][j][c] = 0;
            }
        }
    }
    const Four none = {{0, 0, 0, 0}};
    const auto loadX = [&](int first) {
        return x ? loadFour<aligned>(x, first + 4 * four, d) : none;
    };
    const auto loadY = [&](int first) {
        return y ? loadFour<aligned>(y, first + 4 * four, d) : none;
    };
    const auto storeBoth = [&](Segment& segment, const Four& a, const Four& b) {
        store(segment.queries + row * kStride, four, a);
        store(segment.vectors + row * kStride, four, b);
    };
    storeBoth(segments[0], loadX(0), loadY(0));
    __syncthreads();
    int current = 0;
    for (int first = 0; first < d; first += kSegment) {
        const bool more = first + kSegment < d;
        Four nextX = none;
        Four nextY = none;
        if (more) {
            nextX = loadX(first + kSegment);
            nextY = loadY(first + kSegment);
        }
        if (computes) {
            const float* xs = segments[current].queries +
                              place.query * kStride + 4 * place.group;
            const float* ys = segments[current].vectors +
                              place.vector * kStride + 4 * place.group;
#pragma unroll
            for (int step = 0; step < kSegment; step += kChains) {
                if (first + step >= d) {
                    break;
                }
                float a[kOfLane][4];
                float b[kOfLane][4];
#pragma unroll
                for (int i = 0; i < kOfLane; ++i) {
                    load(xs + i * kStride + step, a[i]);
                    load(ys + i * kStride + step, b[i]);
                }
#pragma unroll
                for (int c = 0; c < 4; ++c) {
#pragma unroll
                    for (int i = 0; i < kOfLane; ++i) {
#pragma unroll
                        for (int j = 0; j < kOfLane; ++j) {
                            chain[i][j][c] = addDimension<metric>(
                                    a[i][c], b[j][c], chain[i][j][c]);
                        }
                    }
                }
            }
        }
        current ^= 1;
        if (more) {
            // Nobody has read it since the last time that all waited.
            storeBoth(segments[current], nextX, nextY);
        }
        __syncthreads();
    }
    if (!computes) {
        return;
    }
    // Each lane joins the groups of chains of another of the four queries: it
    // gives away half of what it has, twice.
    const bool odd = place.group & 1;
    const bool upper = place.group & 2;
#pragma unroll
    for (int j = 0; j < kOfLane; ++j) {
        float own[kOfLane];
#pragma unroll
        for (int i = 0; i < kOfLane; ++i) {
            own[i] = joinChains(
                    chain[i][j][0],
                    chain[i][j][1],
                    chain[i][j][2],
                    chain[i][j][3]);
        }
        const float low =
                add(odd ? own[1] : own[0],
                    __shfl_xor_sync(kWholeWarp, odd ? own[0] : own[1], 1));
        const float high =
                add(odd ? own[3] : own[2],
                    __shfl_xor_sync(kWholeWarp, odd ? own[2] : own[3], 1));
        const float all =
                add(upper ? high : low,
                    __shfl_xor_sync(kWholeWarp, upper ? low : high, 2));
        losses[j] = lossOf(metric, add(all, 0.0f));
    }
}

template <bool aligned, typename Stored>
__global__ void __launch_bounds__(kThreads, kBlocks) lossesKernel(
        const Stored* data,
        VectorRows rows,
        IndexState state,
        QueryState queries,
        float* losses,
        idx_t ld,
        bool alignedLosses) {
    const idx_t count = *queries.lastCount;
    if (count == 0) {
        return;
    }
    __shared__ __align__(16) Segment segments[2];
    const int d = queries.d;
    const bool l2 = state.terms->metric == Metric::L2;
    const Place place;
    const int row = threadIdx.x / kFours;
    const idx_t queryTiles = (count + kTileQueries - 1) / kTileQueries;
    const idx_t vectorTiles = (rows.count + kTileVectors - 1) / kTileVectors;
    // Blocks that are at work together share vectors.
    for (idx_t tile = blockIdx.x; tile < queryTiles * vectorTiles;
         tile += gridDim.x) {
        const idx_t firstVector = tile / queryTiles * kTileVectors;
        const idx_t firstQuery = tile % queryTiles * kTileQueries;
        const float* x = nullptr;
        if (firstQuery + row < count) {
            x = queries.x + idx_t(queries.last[firstQuery + row]) * d;
        }
        const Stored* y = nullptr;
        if (firstVector + row < rows.count) {
            y = data + (rows.first + (firstVector + row) * rows.step) * d;
        }
        // The same for a warp.
        const bool computes =
                firstQuery + place.query / (2 * kOfLane) * (2 * kOfLane) <
                count;
        float found[kOfLane];
        if (l2) {
            lossesOfTile<Metric::L2, aligned>(
                    x, y, d, place, computes, segments, found);
        } else {
            lossesOfTile<Metric::InnerProduct, aligned>(
                    x, y, d, place, computes, segments, found);
        }
        const idx_t query = firstQuery + place.query + place.group;
        const idx_t vector = firstVector + place.vector;
        if (!computes || query >= count) {
            continue;
        }
        float* to = losses + query * ld + vector;
        if (alignedLosses && vector + kOfLane <= rows.count) {
            *reinterpret_cast<float4*>(to) =
                    make_float4(found[0], found[1], found[2], found[3]);
        } else {
#pragma unroll
            for (int j = 0; j < kOfLane; ++j) {
                if (vector + j < rows.count) {
                    to[j] = found[j];
                }
            }
        }
    }
}

} // namespace

cudaError_t launchLosses(
        const VectorsView& vectors,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        float* losses,
        idx_t ld,
        cudaStream_t stream) {
    if (queries.n == 0 || rows.count == 0) {
        return cudaSuccess;
    }
    int processors = 0;
    const cudaError_t error = multiprocessors(processors);
    if (error != cudaSuccess) {
        return error;
    }
    const int d = vectors.d;
    const int64_t tiles = int64_t(blocksFor(queries.n, kTileQueries)) *
                          blocksFor(rows.count, kTileVectors);
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        const bool aligned = rowsAligned(data, d) && rowsAligned(queries.x, d);
        const auto kernel = aligned ? lossesKernel<true, Stored>
                                    : lossesKernel<false, Stored>;
        kernel<<<
                blocksFor(tiles, 1, kBlocks * int64_t(processors)),
                kThreads,
                0,
                stream>>>(
                data,
                rows,
                state,
                queries,
                losses,
                ld,
                rowsAligned(losses, ld));
        return cudaGetLastError();
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
