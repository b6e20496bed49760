#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// A warp compares the scores of 32 queries with one tile of vectors after the
// other. Each lane keeps what is known of one of the queries, and of four
// vectors of the tile; each row of 128 scores is one load of the whole warp.
// Memory decides how long it takes, so kAtOnce of these loads are under way.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kQueries = 32;
constexpr int kAtOnce = 8;
/// Tiles of a warp, if there are enough for all multiprocessors.
constexpr int kMostTiles = 8;
constexpr int kTile = 4 * 32;

/// What a lane knows of four vectors of a tile, and of one of the queries, for
/// the finer filter.
struct Lane {
    float start[4];
    float norm[4];
    float threshold;
    float factor;
    float perVector;
};

/// What a vector adds to a tile: its start and norm, and to the rest of the
/// errors.
__device__ inline void addVector(
        Metric metric,
        const VectorTerms& vector,
        float& start,
        float& norm,
        float& rest) {
    start = fineStart(startOf(metric, vector));
    norm = 0;
    if (inRange(vector)) {
        const VectorBounds bounds = VectorBounds::boundsOf(vector);
        norm = bounds.norm;
        const float own = errorRest(bounds);
        rest = own > rest ? own : rest;
    }
}

/// Which vectors of a tile pass, for the query of each lane: bit i of word c is
/// vector 4 i + c. `scores` are those of the first query and this lane's four
/// vectors, of which the first `columns` exist. A whole tile is read by loads
/// of 16 bytes.
template <bool whole>
__device__ inline void comparePasses(
        const float* scores,
        idx_t ld,
        int columns,
        unsigned activeLanes,
        const Lane& lane,
        unsigned (&passing)[4]) {
    constexpr int kLoads = whole ? kAtOnce : 1;
    constexpr unsigned kThese = (1u << kLoads) - 1;
#pragma unroll 1
    for (int first = 0; first < kQueries; first += kLoads) {
        const unsigned these = activeLanes >> first & kThese;
        if (these != 0) {
            float4 loaded[kLoads];
            const float* row = scores;
#pragma unroll
            for (int j = 0; j < kLoads; ++j, row += ld) {
                loaded[j] = make_float4(0, 0, 0, 0);
                if (!(these >> j & 1)) {
                    continue;
                }
                // Read once.
                if constexpr (whole) {
                    loaded[j] = __ldcs(reinterpret_cast<const float4*>(row));
                } else {
                    const auto at = [&](int c) {
                        return c < columns ? __ldcs(row + c) : 0.0f;
                    };
                    loaded[j] = make_float4(at(0), at(1), at(2), at(3));
                }
            }
#pragma unroll
            for (int j = 0; j < kLoads; ++j) {
                const float limit =
                        __shfl_sync(kWholeWarp, lane.threshold, first + j);
                const float factor =
                        __shfl_sync(kWholeWarp, lane.factor, first + j);
                const float perVector =
                        __shfl_sync(kWholeWarp, lane.perVector, first + j);
                const float score[4] = {
                        loaded[j].x, loaded[j].y, loaded[j].z, loaded[j].w};
                const bool own = int(threadIdx.x % 32) == first + j;
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const unsigned all = __ballot_sync(
                            kWholeWarp,
                            passes(fineValue(
                                           score[c],
                                           factor,
                                           perVector,
                                           lane.norm[c],
                                           lane.start[c]),
                                   limit));
                    passing[c] = own ? all : passing[c];
                }
            }
        }
        scores += kLoads * ld;
    }
}

/// Block i takes queries 32 (i / tileBlocks) on, and the tiles of part i %
/// tileBlocks. `aligned`: rows of scores begin at multiples of 16 bytes.
template <bool aligned>
__global__ void __launch_bounds__(kThreads, 3) filterKernel(
        VectorRows rows,
        IndexState state,
        QueryState queries,
        const float* __restrict__ scores,
        idx_t ld,
        unsigned tileBlocks,
        int tilesOfWarp) {
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const unsigned part = blockIdx.x % tileBlocks;
    const idx_t firstQuery = idx_t(blockIdx.x / tileBlocks) * kQueries;
    const idx_t query = firstQuery + lane;

    bool active = query < queries.n;
    if (active) {
        active = queries.paths[query] != QueryPath::Last;
    }
    const unsigned activeLanes = __ballot_sync(kWholeWarp, active);
    if (activeLanes == 0) {
        return;
    }
    const Metric metric = state.terms->metric;
    Lane own = {{0, 0, 0, 0}, {0, 0, 0, 0}, 0, 0, 0};
    float base = 0;
    QueryTerms terms = {0, 0, 0, 0, 0, false};
    if (active) {
        terms = queries.terms[query];
        own.factor = terms.factor;
        own.perVector = finePerVector(terms);
        const float cut = queries.cut[query];
        base = thresholdBase(*state.terms, terms, cut);
        if (part == 0 && warp == 0) {
            // No other block touches it.
            const float least = queries.leastCut[query];
            queries.leastCut[query] = cut < least ? cut : least;
        }
    }

    const idx_t tiles = (rows.count + kTile - 1) / kTile;
    idx_t tile = idx_t(part) * kWarps * tilesOfWarp + warp;
#pragma unroll 1
    for (int i = 0; i < tilesOfWarp && tile < tiles; ++i, tile += kWarps) {
        const idx_t column = tile * kTile + 4 * lane;
        const idx_t left = rows.count - column;
        const int columns = left < 0 ? 0 : left < 4 ? int(left) : 4;
        float rest = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            own.start[c] = own.norm[c] = 0;
            if (c < columns) {
                addVector(
                        metric,
                        state.vectors[rows.first + (column + c) * rows.step],
                        own.start[c],
                        own.norm[c],
                        rest);
            }
        }
        for (int step = 16; step > 0; step /= 2) {
            const float other = __shfl_xor_sync(kWholeWarp, rest, step);
            rest = other > rest ? other : rest;
        }
        own.threshold = fineThreshold(terms, base, rest);
        // Lane i: which vectors of the tile pass for query i.
        unsigned passing[4] = {0, 0, 0, 0};
        const float* first = scores + firstQuery * ld + column;
        if (aligned && (tile + 1) * kTile <= rows.count) {
            comparePasses<true>(first, ld, 4, activeLanes, own, passing);
        } else {
            comparePasses<false>(first, ld, columns, activeLanes, own, passing);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                passing[c] &= __ballot_sync(kWholeWarp, c < columns);
            }
        }
        uint32_t found = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            passing[c] = active ? passing[c] : 0;
            found += __popc(passing[c]);
        }
        if (found == 0) {
            continue;
        }
        uint32_t place = atomicAdd(queries.counts + query, found);
        const uint32_t room = static_cast<uint32_t>(queries.capacity);
        uint32_t* survivors = queries.survivors + query * queries.capacity;
        for (int c = 0; c < 4 && place < room; ++c) {
            for (unsigned left = passing[c]; left != 0 && place < room;
                 left &= left - 1) {
                const idx_t at = tile * kTile + 4 * (__ffs(left) - 1) + c;
                survivors[place++] =
                        static_cast<uint32_t>(rows.first + at * rows.step);
            }
        }
    }
}

} // namespace

cudaError_t launchFilter(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const float* scores,
        idx_t ld,
        cudaStream_t stream) {
    if (queries.n == 0 || rows.count == 0) {
        return cudaSuccess;
    }
    const idx_t tiles = (rows.count + kTile - 1) / kTile;
    int processors = 0;
    const cudaError_t error = multiprocessors(processors);
    if (error != cudaSuccess) {
        return error;
    }
    const idx_t groups = (queries.n + kQueries - 1) / kQueries;
    // So many blocks keep all multiprocessors busy, to the end.
    const idx_t wanted = idx_t(processors) * 16;
    int tilesOfWarp = kMostTiles;
    while (tilesOfWarp > 1 &&
           groups * blocksFor(tiles, kWarps * tilesOfWarp) < wanted) {
        tilesOfWarp /= 2;
    }
    const unsigned tileBlocks = blocksFor(tiles, kWarps * tilesOfWarp);
    const auto filter =
            rowsAligned(scores, ld) ? filterKernel<true> : filterKernel<false>;
    filter<<<static_cast<unsigned>(groups * tileBlocks), kThreads, 0, stream>>>(
            rows, state, queries, scores, ld, tileBlocks, tilesOfWarp);
    return cudaGetLastError();
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
