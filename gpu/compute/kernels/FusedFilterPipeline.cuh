#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>
#include <faiss_ext/gpu/compute/kernels/FusedFilterSurvivors.cuh>
#include <faiss_ext/gpu/compute/kernels/FusedFilterTerms.cuh>
#include <faiss_ext/gpu/compute/kernels/Hopper.cuh>

// How the fused filter's work is cut, what a block has in shared memory, and
// how copies and terms come there.

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace fused {

/// Groups of four warps that multiply and compare.
constexpr int kGroups = 2;
constexpr int kThreads = (1 + kGroups) * hopper::kWarpgroup;
constexpr int kComparingThreads = kGroups * hopper::kWarpgroup;
constexpr int kComparingWarps = kComparingThreads / 32;
/// Threads that bring the vectors' terms.
constexpr int kTermsThreads = 32;
/// Vectors of a tile.
constexpr int kColumns = hopper::kProductColumns;
constexpr int kColumnTileBytes = kColumns * hopper::kTileRowBytes;
/// Rows that are copied at once.
constexpr int kCopiedRows = 128;
constexpr int kMostStages = 16;
/// Tiles of vectors whose terms wait to be used.
constexpr int kTermsAhead = 4;
constexpr int kStepsOfTile = hopper::kTileWidth / hopper::kProductStep;

/// What a block does with a tile of queries and one of vectors. A group
/// multiplies `blocks` times kProductRows queries with the vectors, one block
/// after the other. `steps`: those of a product if it is known, whose queries
/// stay in shared memory; 0 where that is too wide, and the queries' copies
/// come anew with those of every tile of vectors.
template <int blocks, int steps>
struct Shape {
    static constexpr int kBlocks = blocks;
    static constexpr int kSteps = steps;
    static constexpr bool kKept = steps > 0;
    static constexpr int kDepth = (steps + kStepsOfTile - 1) / kStepsOfTile;
    /// Queries of a tile: block after block, in each group after group.
    static constexpr int kBlockRows = kGroups * hopper::kProductRows;
    static constexpr int kRows = blocks * kBlockRows;
    static constexpr int kRowTileBytes = kRows * hopper::kTileRowBytes;
    static constexpr int kStageBytes =
            kColumnTileBytes + (kKept ? 0 : kRowTileBytes);
    static_assert(kKept || blocks == 1, "the sums of one block");
};

/// What a launch is about.
struct Filtering {
    VectorRows rows;
    IndexState state;
    QueryState queries;
    bool again;
    /// Tiles of queries, and of vectors, and of these in a section: all that
    /// blocks are at work with are of about one section.
    idx_t queryTiles;
    idx_t tiles;
    idx_t sectionTiles;
    /// kTileWidth components that a copy has, the last of them perhaps not
    /// all.
    int depth;
    /// Stages of the vectors' (else of both) copies.
    int stages;
};

/// In shared memory.
template <typename S>
struct Shared {
    hopper::Barrier queriesHere;
    hopper::Barrier full[kMostStages];
    hopper::Barrier empty[kMostStages];
    hopper::Barrier termsFull[kTermsAhead];
    hopper::Barrier termsEmpty[kTermsAhead];
    TileTerms tiles[kTermsAhead];
    bool warpHasRows[kComparingWarps];
    alignas(16) RowTerms rows[S::kRows];
    uint32_t active[S::kRows];
    alignas(16) ColumnTerms columns[kTermsAhead][kColumns];
    alignas(16) float starts[kComparingWarps][kColumns];
    Survivor waiting[kComparingWarps][kWaiting];

    __device__ void initialise(int stages) {
        queriesHere.initialise(1);
        for (int i = 0; i < stages; ++i) {
            full[i].initialise(1);
            empty[i].initialise(kComparingThreads);
        }
        for (int i = 0; i < kTermsAhead; ++i) {
            termsFull[i].initialise(kTermsThreads);
            termsEmpty[i].initialise(kComparingThreads);
        }
        hopper::fenceBarriers();
    }

    /// Whether any query of the part takes part.
    __device__ bool hasRows() const {
        bool any = false;
        for (int warp = 0; warp < kComparingWarps; ++warp) {
            any |= warpHasRows[warp];
        }
        return any;
    }
};

/// Where a ring of stages stands.
struct Place {
    int stage = 0;
    uint32_t phase = 0;

    __device__ void advance(int stages) {
        if (++stage == stages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/// Work is the pairs of a tile of queries and one of vectors. Of those of a
/// section each block takes the same number, one or less apart, that follow
/// each other, so that it changes its queries seldom and all multiprocessors
/// end at once. A part of it are those with the same queries.
struct Part {
    const Filtering& filtering;
    idx_t sectionFirst;
    idx_t sectionTiles = 0;
    idx_t number = -1;
    idx_t next = 0;
    idx_t end = 0;

    idx_t queryTile = 0;
    idx_t firstTile = 0;
    idx_t lastTile = 0;

    __device__ explicit Part(const Filtering& of)
            : filtering(of), sectionFirst(-of.sectionTiles) {}

    /// Begins the next one, if there is one.
    __device__ bool begin() {
        while (next == end) {
            sectionFirst += filtering.sectionTiles;
            const idx_t left = filtering.tiles - sectionFirst;
            if (left <= 0) {
                return false;
            }
            sectionTiles = left < filtering.sectionTiles
                                   ? left
                                   : filtering.sectionTiles;
            // Those that have one more are others in every section.
            const idx_t own = (blockIdx.x + ++number * 37) % gridDim.x;
            const idx_t pairs = sectionTiles * filtering.queryTiles;
            next = pairs * own / gridDim.x;
            end = pairs * (own + 1) / gridDim.x;
        }
        queryTile = next / sectionTiles;
        const idx_t first = next - queryTile * sectionTiles;
        const idx_t these = end - next < sectionTiles - first
                                    ? end - next
                                    : sectionTiles - first;
        firstTile = sectionFirst + first;
        lastTile = firstTile + these;
        next += these;
        return true;
    }
};

/// Tiles in dynamic shared memory.
template <typename S>
struct Tiles {
    char* queries;
    char* stages;

    __device__ Tiles(char* memory, int depth)
            : queries(memory),
              stages(memory + (S::kKept ? depth * S::kRowTileBytes : 0)) {}

    __device__ char* stage(int number) const {
        return stages + number * S::kStageBytes;
    }

    /// `part` of the queries' copies.
    __device__ char* rowTile(int stageNumber, int part) const {
        return S::kKept ? queries + part * S::kRowTileBytes
                        : stage(stageNumber) + kColumnTileBytes;
    }
};

/// `part` of the components of rows from `first` on.
template <int rows>
__device__ inline void copyRows(
        char* tile,
        const CUtensorMap* map,
        int part,
        idx_t first,
        hopper::Barrier* barrier) {
    for (int row = 0; row < rows; row += kCopiedRows) {
        hopper::copyTile(
                tile + row * hopper::kTileRowBytes,
                map,
                part * hopper::kTileWidth,
                static_cast<int>(first + row),
                barrier);
    }
}

/// One thread has the copies brought.
template <typename S>
__device__ inline void bringCopies(
        const Filtering& filtering,
        const CUtensorMap* queryMap,
        const CUtensorMap* vectorMap,
        const Tiles<S>& tiles,
        Shared<S>& shared,
        const Part& part,
        Place& place) {
    const idx_t firstRow = part.queryTile * S::kRows;
    if (S::kKept) {
        shared.queriesHere.arriveExpecting(filtering.depth * S::kRowTileBytes);
        for (int i = 0; i < filtering.depth; ++i) {
            copyRows<S::kRows>(
                    tiles.rowTile(0, i),
                    queryMap,
                    i,
                    firstRow,
                    &shared.queriesHere);
        }
    }
    for (idx_t tile = part.firstTile; tile < part.lastTile; ++tile) {
        for (int i = 0; i < filtering.depth; ++i) {
            hopper::Barrier* const full = shared.full + place.stage;
            shared.empty[place.stage].wait(place.phase ^ 1);
            full->arriveExpecting(S::kStageBytes);
            copyRows<kColumns>(
                    tiles.stage(place.stage),
                    vectorMap,
                    i,
                    tile * kColumns,
                    full);
            if (!S::kKept) {
                copyRows<S::kRows>(
                        tiles.rowTile(place.stage, i),
                        queryMap,
                        i,
                        firstRow,
                        full);
            }
            place.advance(filtering.stages);
        }
    }
}

/// One warp computes what is known of the vectors.
template <typename S>
__device__ inline void bringTerms(
        const Filtering& filtering,
        Metric metric,
        Shared<S>& shared,
        const Part& part,
        Place& place) {
    const VectorRows& rows = filtering.rows;
    const int lane = threadIdx.x % 32;
    constexpr int kAtOnce = 4;
    for (idx_t tile = part.firstTile; tile < part.lastTile; ++tile) {
        TileTerms all = {infinity(), 0};
        for (int base = 0; base < kColumns; base += kAtOnce * 32) {
            VectorTerms vectors[kAtOnce];
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                // Who has none takes the last one again.
                const idx_t column = tile * kColumns + base + i * 32 + lane;
                const idx_t known =
                        column < rows.count ? column : rows.count - 1;
                vectors[i] =
                        filtering.state.vectors[rows.first + known * rows.step];
            }
            if (base == 0) {
                shared.termsEmpty[place.stage].wait(place.phase ^ 1);
            }
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                shared.columns[place.stage][base + i * 32 + lane] =
                        columnTerms(metric, vectors[i], all);
            }
        }
        for (int step = 16; step > 0; step /= 2) {
            const float least = __shfl_xor_sync(kWholeWarp, all.least, step);
            const float rest = __shfl_xor_sync(kWholeWarp, all.rest, step);
            all.least = least < all.least ? least : all.least;
            all.rest = rest > all.rest ? rest : all.rest;
        }
        if (lane == 0) {
            all.least = all.least < infinity() ? all.least : 0;
            shared.tiles[place.stage] = all;
        }
        shared.termsFull[place.stage].arrive();
        place.advance(kTermsAhead);
    }
}

} // namespace fused
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
