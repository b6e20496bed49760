#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// A block compares a tile of queries with a tile of vectors, in segments of
// some components that it copies to shared memory: the next one while it
// computes with this. Several blocks share a multiprocessor, so that one
// computes while another waits.
//
// Eight lanes have eight queries and eight vectors, 64 pairs, in common, and an
// eighth of each pair's chains each, two. So D's order of operations costs no
// register more than a plain sum would, and what a lane reads of 16 rows serves
// 256 operations: shared memory is half as busy as the multiplying units.

constexpr int kLanes = 8;
constexpr int kOfLane = 8;
constexpr int kChainsOfLane = kChains / kLanes;
static_assert(kChainsOfLane == 2, "a lane's pieces are read as float2");
/// In a warp: 2 x 2 such groups of lanes.
constexpr int kWarpQueries = 2 * kOfLane;
constexpr int kWarpVectors = 2 * kOfLane;
#ifndef SEG
#define SEG 32
#endif
#ifndef QW
#define QW 2
#define VW 2
#define NB 2
#endif
/// In a block.
constexpr int kQueryWarps = QW;
constexpr int kVectorWarps = VW;
constexpr int kThreads = 32 * kQueryWarps * kVectorWarps;
constexpr int kBlocks = NB;
constexpr int kTileQueries = kQueryWarps * kWarpQueries;
constexpr int kTileVectors = kVectorWarps * kWarpVectors;

constexpr int kSegment = SEG;
constexpr int kFours = kSegment / 4;
/// Half a warp reads 16 neighbouring components of two rows that are kOfLane
/// apart: from different banks.
constexpr int kStride = kSegment + 2;
static_assert(kOfLane * kStride % 32 == 16, "see kStride");
/// Rows that a block copies at once, four components a thread.
constexpr int kCopiedRows = kThreads / kFours;
constexpr int kQueryCopies = kTileQueries / kCopiedRows;
constexpr int kVectorCopies = kTileVectors / kCopiedRows;
static_assert(
        kQueryCopies * kCopiedRows == kTileQueries &&
                kVectorCopies * kCopiedRows == kTileVectors,
        "each row of a tile is copied");

struct Segment {
    float queries[kTileQueries * kStride];
    float vectors[kTileVectors * kStride];
};

__device__ inline void store(float* row, int four, const Four& components) {
    float2* const to = reinterpret_cast<float2*>(row + 4 * four);
    to[0] = make_float2(components.at[0], components.at[1]);
    to[1] = make_float2(components.at[2], components.at[3]);
}

/// Where a thread stands.
struct Place {
    int lane;  // of eight: which chains
    int query; // the first of eight, in the tile
    int vector;

    __device__ Place() {
        const int group = threadIdx.x % 32 / kLanes;
        const int warp = threadIdx.x / 32;
        lane = threadIdx.x % kLanes;
        query = warp / kVectorWarps * kWarpQueries + group / 2 * kOfLane;
        vector = warp % kVectorWarps * kWarpVectors + group % 2 * kOfLane;
    }
};

/// Of each of two neighbouring lanes, `apart` from each other, half of the sums
/// of `count` queries: it adds the other lane's, of its half, to its own.
template <int count>
__device__ inline void joinHalves(float (&sums)[kOfLane][kOfLane], int apart) {
    const bool upper = threadIdx.x & apart;
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
#pragma unroll
        for (int j = 0; j < kOfLane; ++j) {
            const float even = sums[2 * i][j];
            const float odd = sums[2 * i + 1][j];
            const float other =
                    __shfl_xor_sync(kWholeWarp, upper ? even : odd, apart);
            sums[i][j] = add(upper ? odd : even, other);
        }
    }
}

/// The rows of a tile that a thread copies, or null.
template <typename Stored>
struct CopiedRows {
    const float* queries[kQueryCopies];
    const Stored* vectors[kVectorCopies];
};

/// Four components of each.
struct Copied {
    Four queries[kQueryCopies];
    Four vectors[kVectorCopies];
};

template <bool aligned, typename Stored>
__device__ inline void loadSegment(
        const CopiedRows<Stored>& rows, int first, int d, Copied& copied) {
    const int at = first + 4 * (threadIdx.x % kFours);
#pragma unroll
    for (int c = 0; c < kQueryCopies; ++c) {
        copied.queries[c] = {{0, 0, 0, 0}};
        if (rows.queries[c]) {
            copied.queries[c] = loadFour<aligned>(rows.queries[c], at, d);
        }
    }
#pragma unroll
    for (int c = 0; c < kVectorCopies; ++c) {
        copied.vectors[c] = {{0, 0, 0, 0}};
        if (rows.vectors[c]) {
            copied.vectors[c] = loadFour<aligned>(rows.vectors[c], at, d);
        }
    }
}

__device__ inline void storeSegment(const Copied& copied, Segment& segment) {
    const int four = threadIdx.x % kFours;
    const int row = threadIdx.x / kFours;
#pragma unroll
    for (int c = 0; c < kQueryCopies; ++c) {
        store(segment.queries + (row + c * kCopiedRows) * kStride,
              four,
              copied.queries[c]);
    }
#pragma unroll
    for (int c = 0; c < kVectorCopies; ++c) {
        store(segment.vectors + (row + c * kCopiedRows) * kStride,
              four,
              copied.vectors[c]);
    }
}

/// The losses of query `place.query + place.lane` and eight vectors.
template <Metric metric, bool aligned, typename Stored>
__device__ inline void lossesOfTile(
        const CopiedRows<Stored>& rows,
        int d,
        const Place& place,
        bool computes,
        Segment* segments,
        float (&losses)[kOfLane]) {
    float chain[kChainsOfLane][kOfLane][kOfLane];
#pragma unroll
    for (int c = 0; c < kChainsOfLane; ++c) {
#pragma unroll
        for (int i = 0; i < kOfLane; ++i) {
#pragma unroll
            for (int j = 0; j < kOfLane; ++j) {
                chain[c][i][j] = 0;
            }
        }
    }
    Copied copied;
    loadSegment<aligned>(rows, 0, d, copied);
    storeSegment(copied, segments[0]);
    __syncthreads();
    int current = 0;
    for (int first = 0; first < d; first += kSegment) {
        const bool more = first + kSegment < d;
        if (more) {
            loadSegment<aligned>(rows, first + kSegment, d, copied);
        }
        if (computes) {
            const float* xs = segments[current].queries +
                              place.query * kStride +
                              kChainsOfLane * place.lane;
            const float* ys = segments[current].vectors +
                              place.vector * kStride +
                              kChainsOfLane * place.lane;
#pragma unroll
            for (int step = 0; step < kSegment; step += kChains) {
                if (first + step >= d) {
                    break;
                }
                float2 a[kOfLane];
#pragma unroll
                for (int i = 0; i < kOfLane; ++i) {
                    a[i] = *reinterpret_cast<const float2*>(
                            xs + i * kStride + step);
                }
#pragma unroll
                for (int j = 0; j < kOfLane; ++j) {
                    const float2 b = *reinterpret_cast<const float2*>(
                            ys + j * kStride + step);
#pragma unroll
                    for (int i = 0; i < kOfLane; ++i) {
                        chain[0][i][j] = addDimension<metric>(
                                a[i].x, b.x, chain[0][i][j]);
                        chain[1][i][j] = addDimension<metric>(
                                a[i].y, b.y, chain[1][i][j]);
                    }
                }
            }
        }
        current ^= 1;
        if (more) {
            // Nobody has read it since the last time that all waited.
            storeSegment(copied, segments[current]);
        }
        __syncthreads();
    }
    if (!computes) {
        return;
    }
    // As joinChains() and joinGroups(): neighbouring chains first.
    float sums[kOfLane][kOfLane];
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
#pragma unroll
        for (int j = 0; j < kOfLane; ++j) {
            sums[i][j] = add(chain[0][i][j], chain[1][i][j]);
        }
    }
    joinHalves<8>(sums, 1);
    joinHalves<4>(sums, 2);
    joinHalves<2>(sums, 4);
#pragma unroll
    for (int j = 0; j < kOfLane; ++j) {
        losses[j] = lossOf(metric, add(sums[0][j], 0.0f));
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
        CopiedRows<Stored> copied;
#pragma unroll
        for (int c = 0; c < kQueryCopies; ++c) {
            const idx_t query = firstQuery + row + c * kCopiedRows;
            copied.queries[c] =
                    query < count ? queries.x + idx_t(queries.last[query]) * d
                                  : nullptr;
        }
#pragma unroll
        for (int c = 0; c < kVectorCopies; ++c) {
            const idx_t vector = firstVector + row + c * kCopiedRows;
            copied.vectors[c] =
                    vector < rows.count
                            ? data + (rows.first + vector * rows.step) * d
                            : nullptr;
        }
        // The same for a warp.
        const bool computes =
                firstQuery + place.query / kWarpQueries * kWarpQueries < count;
        float found[kOfLane];
        if (l2) {
            lossesOfTile<Metric::L2, aligned>(
                    copied, d, place, computes, segments, found);
        } else {
            lossesOfTile<Metric::InnerProduct, aligned>(
                    copied, d, place, computes, segments, found);
        }
        const idx_t query = firstQuery + place.query + place.lane;
        const idx_t vector = firstVector + place.vector;
        if (!computes || query >= count) {
            continue;
        }
        float* to = losses + query * ld + vector;
        if (alignedLosses && vector + kOfLane <= rows.count) {
#pragma unroll
            for (int j = 0; j < kOfLane; j += 4) {
                *reinterpret_cast<float4*>(to + j) = make_float4(
                        found[j], found[j + 1], found[j + 2], found[j + 3]);
            }
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
