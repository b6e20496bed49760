#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// A block compares a tile of queries with a tile of vectors, in segments of
// some components that it copies to shared memory, loading two ahead of what it
// computes. Two blocks share a multiprocessor, so that one computes while the
// other waits.
//
// Eight lanes have eight queries and eight vectors, 64 pairs, in common, and an
// eighth of each pair's chains each, two. So D's order of operations costs no
// register more than a plain sum would, and what a lane reads of 16 rows serves
// 128 multiplications: shared memory is no busier than the multiplying units.

constexpr int kLanes = 8;
constexpr int kChainsOfLane = kChains / kLanes;
static_assert(kChainsOfLane == 2, "a lane's pieces are read as float2");
/// What eight lanes have in common.
constexpr int kOfLanes = 8;
static_assert(kOfLanes == kLanes, "each lane gets one query's sums");
/// In a warp: 2 x 2 such groups of lanes.
constexpr int kWarpQueries = 2 * kOfLanes;
constexpr int kWarpVectors = 2 * kOfLanes;
/// In a block.
constexpr int kVectorWarps = 2;
constexpr int kThreads = 128;
constexpr int kBlocks = 2;
constexpr int kTileQueries = kThreads / 32 / kVectorWarps * kWarpQueries;
constexpr int kTileVectors = kVectorWarps * kWarpVectors;

constexpr int kSegment = 32;
constexpr int kFours = kSegment / 4;
/// Half a warp reads 16 neighbouring components of two rows that are kOfLanes
/// apart: from different banks.
constexpr int kStride = kSegment + 2;
static_assert(kOfLanes * kStride % 32 == 16, "see kStride");
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

/// The row of a segment where a query's components for one lane are: number i
/// of a lane's is query i ^ lane, so that what lanes give each other when they
/// join their chains has the same numbers in all of them.
__device__ inline int rowOfQuery(int query, int lane) {
    return query ^ lane;
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
        query = warp / kVectorWarps * kWarpQueries + group / 2 * kOfLanes;
        vector = warp % kVectorWarps * kWarpVectors + group % 2 * kOfLanes;
    }
};

/// Of two lanes, `apart` from each other, each adds half of the sums of `count`
/// queries of the other's to its own: numbers 2 i + 1, of i ^ lane, to 2 i.
template <int count>
__device__ inline void joinHalves(
        float (&sums)[kOfLanes][kOfLanes], int apart) {
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
#pragma unroll
        for (int j = 0; j < kOfLanes; ++j) {
            const float other =
                    __shfl_xor_sync(kWholeWarp, sums[2 * i + 1][j], apart);
            sums[i][j] = add(sums[2 * i][j], other);
        }
    }
}

/// Four components of each row that a thread copies, of one segment.
struct Copied {
    Four queries[kQueryCopies];
    Four vectors[kVectorCopies];
};

/// What there is to compare.
struct Work {
    const VectorRows& rows;
    const QueryState& queries;
    idx_t count;
    idx_t queryTiles;
    idx_t vectorTiles;

    __device__ Work(const VectorRows& of, const QueryState& by, idx_t last)
            : rows(of),
              queries(by),
              count(last),
              queryTiles((last + kTileQueries - 1) / kTileQueries),
              vectorTiles((of.count + kTileVectors - 1) / kTileVectors) {}
};

/// The pairs of tiles that a block compares, one after the other. Blocks that
/// are at work together share vectors.
struct Tile {
    const Work& work;
    /// From one to the next. (To divide for each would take a fifth as long as
    /// its work.)
    const idx_t vectorStep;
    const idx_t queryStep;
    idx_t vector;
    idx_t query;

    __device__ explicit Tile(const Work& of)
            : work(of),
              vectorStep(gridDim.x / of.queryTiles),
              queryStep(gridDim.x % of.queryTiles),
              vector(blockIdx.x / of.queryTiles),
              query(blockIdx.x % of.queryTiles) {}

    __device__ bool exists() const {
        return vector < work.vectorTiles;
    }
    __device__ void advance() {
        vector += vectorStep;
        query += queryStep;
        if (query >= work.queryTiles) {
            query -= work.queryTiles;
            ++vector;
        }
    }
    __device__ idx_t firstVector() const {
        return vector * kTileVectors;
    }
    __device__ idx_t firstQuery() const {
        return query * kTileQueries;
    }
};

/// Loads the segments of a block's tiles, one after the other: two ahead of
/// what is computed, for memory takes longer than a segment.
template <bool aligned, typename Stored>
struct Loading {
    const Work& work;
    const Stored* const data;
    const int d;
    /// Components of all segments of a tile.
    const int length;
    Tile tile;
    int first = 0;
    /// This thread's rows of the tile. Who has none takes the last one again,
    /// and who has no tile any more.
    const float* x[kQueryCopies];
    const Stored* y[kVectorCopies];

    __device__ Loading(
            const Work& of, const Stored* stored, int components, int all)
            : work(of), data(stored), d(components), length(all), tile(of) {
        begin();
    }

    __device__ void begin() {
        const int row = threadIdx.x / kFours;
#pragma unroll
        for (int c = 0; c < kQueryCopies; ++c) {
            const idx_t query = tile.firstQuery() + row + c * kCopiedRows;
            const idx_t known = query < work.count ? query : work.count - 1;
            x[c] = work.queries.x + idx_t(work.queries.last[known]) * d;
        }
#pragma unroll
        for (int c = 0; c < kVectorCopies; ++c) {
            const idx_t vector = tile.firstVector() + row + c * kCopiedRows;
            const idx_t known =
                    vector < work.rows.count ? vector : work.rows.count - 1;
            y[c] = data + (work.rows.first + known * work.rows.step) * d;
        }
    }

    __device__ void next(Copied& copied) {
        const int at = first + 4 * (threadIdx.x % kFours);
#pragma unroll
        for (int c = 0; c < kQueryCopies; ++c) {
            copied.queries[c] = loadFour<aligned>(x[c], at, d);
        }
#pragma unroll
        for (int c = 0; c < kVectorCopies; ++c) {
            copied.vectors[c] = loadFour<aligned>(y[c], at, d);
        }
        first += kSegment;
        if (first == length) {
            first = 0;
            tile.advance();
            begin();
        }
    }
};

/// Two lanes' components, of one row.
__device__ inline void store(
        float* first, float* second, const Four& components) {
    *reinterpret_cast<float2*>(first) =
            make_float2(components.at[0], components.at[1]);
    *reinterpret_cast<float2*>(second) =
            make_float2(components.at[2], components.at[3]);
}

__device__ inline void storeSegment(const Copied& copied, Segment& segment) {
    const int at = 4 * (threadIdx.x % kFours);
    const int row = threadIdx.x / kFours;
    const int lane = at / kChainsOfLane % kLanes;
#pragma unroll
    for (int c = 0; c < kQueryCopies; ++c) {
        const int query = row + c * kCopiedRows;
        store(segment.queries + rowOfQuery(query, lane) * kStride + at,
              segment.queries + rowOfQuery(query, lane + 1) * kStride + at + 2,
              copied.queries[c]);
    }
#pragma unroll
    for (int c = 0; c < kVectorCopies; ++c) {
        float* const to =
                segment.vectors + (row + c * kCopiedRows) * kStride + at;
        store(to, to + 2, copied.vectors[c]);
    }
}

/// What a lane has of 64 pairs.
using Chains = float[kChainsOfLane][kOfLanes][kOfLanes];

/// Adds the dimensions of a segment that there are.
template <Metric metric>
__device__ inline void addSegment(
        const Segment& segment,
        const Place& place,
        int dimensions,
        Chains& chain) {
    const float* xs = segment.queries + place.query * kStride +
                      kChainsOfLane * place.lane;
    const float* ys = segment.vectors + place.vector * kStride +
                      kChainsOfLane * place.lane;
#pragma unroll
    for (int step = 0; step < kSegment; step += kChains) {
        if (step >= dimensions) {
            break;
        }
        float2 a[kOfLanes];
#pragma unroll
        for (int i = 0; i < kOfLanes; ++i) {
            a[i] = *reinterpret_cast<const float2*>(xs + i * kStride + step);
        }
#pragma unroll
        for (int j = 0; j < kOfLanes; ++j) {
            const float2 b =
                    *reinterpret_cast<const float2*>(ys + j * kStride + step);
#pragma unroll
            for (int i = 0; i < kOfLanes; ++i) {
                chain[0][i][j] =
                        addDimension<metric>(a[i].x, b.x, chain[0][i][j]);
                chain[1][i][j] =
                        addDimension<metric>(a[i].y, b.y, chain[1][i][j]);
            }
        }
    }
}

/// The losses of query `place.query + place.lane` and eight vectors: the sums
/// as joinChains() and joinGroups() make them, neighbouring chains first.
template <Metric metric>
__device__ inline void joinLanes(
        const Chains& chain, float (&losses)[kOfLanes]) {
    float sums[kOfLanes][kOfLanes];
#pragma unroll
    for (int i = 0; i < kOfLanes; ++i) {
#pragma unroll
        for (int j = 0; j < kOfLanes; ++j) {
            sums[i][j] = add(chain[0][i][j], chain[1][i][j]);
        }
    }
    joinHalves<8>(sums, 1);
    joinHalves<4>(sums, 2);
    joinHalves<2>(sums, 4);
#pragma unroll
    for (int j = 0; j < kOfLanes; ++j) {
        losses[j] = lossOf(metric, add(sums[0][j], 0.0f));
    }
}

template <Metric metric, bool aligned, typename Stored>
__device__ inline void lossesOfBlock(
        const Work& work,
        const Stored* data,
        Segment* segments,
        float* losses,
        idx_t ld,
        bool alignedLosses) {
    const int d = work.queries.d;
    // An even number of segments.
    const int length = (d + 2 * kSegment - 1) / (2 * kSegment) * (2 * kSegment);
    const Place place;
    Loading<aligned, Stored> loading(work, data, d, length);
    // (Two, by name, so that each stays in registers.)
    Copied odd;
    Copied even;
    loading.next(even);
    storeSegment(even, segments[0]);
    loading.next(odd);
    __syncthreads();
    for (Tile tile(work); tile.exists(); tile.advance()) {
        const idx_t firstQuery = tile.firstQuery();
        // The same for a warp.
        const bool computes =
                firstQuery + place.query / kWarpQueries * kWarpQueries <
                work.count;
        Chains chain;
#pragma unroll
        for (int c = 0; c < kChainsOfLane; ++c) {
#pragma unroll
            for (int i = 0; i < kOfLanes; ++i) {
#pragma unroll
                for (int j = 0; j < kOfLanes; ++j) {
                    chain[c][i][j] = 0;
                }
            }
        }
        for (int first = 0; first < length; first += 2 * kSegment) {
            // A segment is stored where nobody has read since all waited.
            loading.next(even);
            if (computes) {
                addSegment<metric>(segments[0], place, d - first, chain);
            }
            storeSegment(odd, segments[1]);
            __syncthreads();
            loading.next(odd);
            if (computes) {
                addSegment<metric>(
                        segments[1], place, d - first - kSegment, chain);
            }
            storeSegment(even, segments[0]);
            __syncthreads();
        }
        float found[kOfLanes];
        joinLanes<metric>(chain, found);
        const idx_t query = firstQuery + place.query + place.lane;
        const idx_t vector = tile.firstVector() + place.vector;
        if (query >= work.count) {
            continue;
        }
        float* to = losses + query * ld + vector;
        if (alignedLosses && vector + kOfLanes <= work.rows.count) {
#pragma unroll
            for (int j = 0; j < kOfLanes; j += 4) {
                *reinterpret_cast<float4*>(to + j) = make_float4(
                        found[j], found[j + 1], found[j + 2], found[j + 3]);
            }
        } else {
#pragma unroll
            for (int j = 0; j < kOfLanes; ++j) {
                if (vector + j < work.rows.count) {
                    to[j] = found[j];
                }
            }
        }
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
    const Work work(rows, queries, count);
    if (state.terms->metric == Metric::L2) {
        lossesOfBlock<Metric::L2, aligned>(
                work, data, segments, losses, ld, alignedLosses);
    } else {
        lossesOfBlock<Metric::InnerProduct, aligned>(
                work, data, segments, losses, ld, alignedLosses);
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
