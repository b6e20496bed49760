#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <faiss_ext/gpu/compute/kernels/FusedFilterPipeline.cuh>

// How the fused filter's scores are made and compared.

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace fused {

/// What threads of a group of warps have in common, one after the other for
/// all parts of a block's work.
template <typename S>
struct Comparing {
    const Filtering& filtering;
    Shared<S>& shared;
    const Tiles<S> tiles;
    const int group;
    /// Of the group, and of both.
    const int thread;
    const int warp;
    const int lane;
    Place place;
    Place termsPlace;
    uint32_t queriesPhase = 0;
    Survivors survivors;
    /// The largest RowTerms::own of the warp.
    float spread = 0;
    TileTerms tile = {0, 0};
    /// Something passed when the warp compared last.
    bool passedLast = false;

    __device__ Comparing(
            const Filtering& given, Shared<S>& ofBlock, const Tiles<S>& at)
            : filtering(given),
              shared(ofBlock),
              tiles(at),
              group(threadIdx.x / hopper::kWarpgroup - 1),
              thread(threadIdx.x % hopper::kWarpgroup),
              warp(threadIdx.x / 32 - hopper::kWarpgroup / 32),
              lane(threadIdx.x % 32),
              survivors(
                      given.queries,
                      ofBlock.waiting
                              [threadIdx.x / 32 - hopper::kWarpgroup / 32],
                      ofBlock.active) {
        if (S::kKept && group == 1) {
            hopper::giveTurn(0);
        }
    }

    /// The first row of the group's in a block of queries, and of this warp's.
    __device__ int groupRow(int block) const {
        return block * S::kBlockRows + group * hopper::kProductRows;
    }
    __device__ int warpRow(int block) const {
        return groupRow(block) + 16 * (warp % 4);
    }

    /// Reads what is known of one query of the part.
    __device__ void readRow(const Part& part) {
        bool active = false;
        if (thread < S::kBlocks * hopper::kProductRows) {
            const QueryState& queries = filtering.queries;
            const int row = groupRow(thread / hopper::kProductRows) +
                            thread % hopper::kProductRows;
            const idx_t query = part.queryTile * S::kRows + row;
            if (query < queries.n) {
                const QueryPath path = queries.paths[query];
                active = filtering.again ? path == QueryPath::Widened
                                         : path != QueryPath::Last;
            }
            RowTerms terms = noRowTerms();
            if (active) {
                const float cut = queries.cut[query];
                terms = rowTerms(
                        *filtering.state.terms, queries.terms[query], cut);
                if (part.firstTile == 0) {
                    // No other block has this tile, too.
                    const float least = queries.leastCut[query];
                    queries.leastCut[query] = cut < least ? cut : least;
                }
            }
            shared.rows[row] = terms;
            shared.active[row] = active ? ~0u : 0;
        }
        const bool any = __any_sync(kWholeWarp, active);
        if (lane == 0) {
            shared.warpHasRows[warp] = any;
        }
    }

    /// After all rows of the part have been read: whether the group has any in
    /// a block.
    __device__ bool hasRows(int block) const {
        constexpr int kWarps = hopper::kProductRows / 32;
        const bool* const has = shared.warpHasRows + 4 * group + kWarps * block;
        return has[0] || has[1];
    }

    __device__ void begin(const Part& part) {
        survivors.firstQuery = part.queryTile * S::kRows;
        // Lanes 0 to 15 know a row of the warp in one block, the others in the
        // next.
        const int block = lane / 16 < S::kBlocks ? lane / 16 : 0;
        float own = shared.rows[warpRow(block) + lane % 16].own;
        for (int step = 16; step > 0; step /= 2) {
            const float other = __shfl_xor_sync(kWholeWarp, own, step);
            own = other > own ? other : own;
        }
        spread = own;
        if (S::kKept) {
            shared.queriesHere.wait(queriesPhase);
            queriesPhase ^= 1;
        }
    }

    /// One thread's part of giving a stage back.
    __device__ void release(int stage) {
        shared.empty[stage].arrive();
    }

    /// Multiplies a block of queries with one part of a tile's components.
    template <int steps>
    __device__ void multiply(
            float (&sums)[hopper::kSums], int block, int stage, int part) {
        const uint64_t queries = hopper::tileDescriptor(
                tiles.rowTile(stage, part) +
                groupRow(block) * hopper::kTileRowBytes);
        const uint64_t vectors = hopper::tileDescriptor(tiles.stage(stage));
#pragma unroll
        for (int step = 0; step < steps; ++step) {
            hopper::multiplyTiles(
                    sums,
                    hopper::furtherBy(queries, step),
                    hopper::furtherBy(vectors, step),
                    part + step > 0);
        }
    }

    /// Reads what is known of the next tile's vectors: their starts.
    __device__ void readTerms() {
        shared.termsFull[termsPlace.stage].wait(termsPlace.phase);
        tile = shared.tiles[termsPlace.stage];
        const ColumnTerms* const columns = shared.columns[termsPlace.stage];
        float* const ofWarp = shared.starts[warp];
        // Everybody has read the former ones.
        __syncwarp();
#pragma unroll
        for (int i = 0; i < kColumns / 32; ++i) {
            const int column = 32 * i + lane;
            ofWarp[column] = startOf(columns[column], spread);
        }
        __syncwarp();
        shared.termsEmpty[termsPlace.stage].arrive();
        termsPlace.advance(kTermsAhead);
    }

    /// Compares the scores of a block of queries with a tile of vectors.
    __device__ void compare(
            const float (&sums)[hopper::kSums], int block, idx_t tileNumber) {
        const int row = warpRow(block) + lane / 4;
        const RowTerms terms0 = shared.rows[row];
        const RowTerms terms1 = shared.rows[row + 8];
        const float threshold0 = thresholdOf(terms0, tile, spread);
        const float threshold1 = thresholdOf(terms1, tile, spread);
        // Sum 4 j + c is of column 8 j + 2 (lane % 4) + c % 2.
        const float* const starts = shared.starts[warp] + 2 * (lane % 4);
        if (!passedLast) {
            // Of most tiles nothing passes: which are these takes less.
            bool some[4] = {false, false, false, false};
#pragma unroll
            for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    some[c] |= passes(
                            valueOf(sums[4 * j + c],
                                    c < 2 ? terms0.factor : terms1.factor,
                                    starts[8 * j + c % 2]),
                            c < 2 ? threshold0 : threshold1);
                }
            }
            const bool any = some[0] || some[1] || some[2] || some[3];
            if (!__any_sync(kWholeWarp, any)) {
                return;
            }
        }
        bool passed = false;
#pragma unroll
        for (int word = 0; word < kColumns / kColumnsOfWord; ++word) {
            // A bit for each score, 1 if it is ruled out: the sign of threshold
            // less value, which is not that of NaN. (The difference is rounded,
            // but its sign is right.)
            uint32_t out0 = 0;
            uint32_t out1 = 0;
#pragma unroll
            for (int c = 0; c < 32; ++c) {
                const int j = word * 16 + c / 2;
                const float start = starts[8 * j + c % 2];
                const float value0 =
                        valueOf(sums[4 * j + c % 2], terms0.factor, start);
                const float value1 =
                        valueOf(sums[4 * j + 2 + c % 2], terms1.factor, start);
                out0 = __funnelshift_l(
                        bitsOf(subtract(threshold0, value0)), out0, 1);
                out1 = __funnelshift_l(
                        bitsOf(subtract(threshold1, value1)), out1, 1);
            }
            uint32_t hits0 = ~out0 & shared.active[row];
            uint32_t hits1 = ~out1 & shared.active[row + 8];
            const idx_t first = tileNumber * kColumns + word * kColumnsOfWord;
            const VectorRows& rows = filtering.rows;
            if (first + kColumnsOfWord > rows.count) {
                const int columns =
                        first < rows.count ? int(rows.count - first) : 0;
                uint32_t exist = 0;
                for (int c = 0; c < 32; ++c) {
                    exist = exist << 1 | (columnOf(c, lane) < columns);
                }
                hits0 &= exist;
                hits1 &= exist;
            }
            passed |= (hits0 | hits1) != 0;
            survivors.add(
                    hits0,
                    hits1,
                    row,
                    rows.first + first * rows.step,
                    rows.step);
        }
        passedLast = __any_sync(kWholeWarp, passed);
    }

    /// Waits for the copies of a tile whose parts are all there at once.
    __device__ void waitForTile() {
        Place part = place;
#pragma unroll
        for (int i = 0; i < S::kDepth; ++i) {
            shared.full[part.stage].wait(part.phase);
            part.advance(filtering.stages);
        }
    }

    /// Begins the product of such a tile and a block of queries.
    __device__ void beginProduct(float (&sums)[hopper::kSums], int block) {
        hopper::holdSums(sums);
        hopper::beginProducts();
        Place part = place;
#pragma unroll
        for (int i = 0; i < S::kDepth; ++i) {
            if (i < S::kDepth - 1) {
                multiply<kStepsOfTile>(sums, block, part.stage, i);
            } else {
                multiply<S::kSteps - (S::kDepth - 1) * kStepsOfTile>(
                        sums, block, part.stage, i);
            }
            part.advance(filtering.stages);
        }
        hopper::endProducts();
    }

    __device__ void releaseTile() {
#pragma unroll
        for (int i = 0; i < S::kDepth; ++i) {
            release(place.stage);
            place.advance(filtering.stages);
        }
    }

    /// The groups take turns: while the tensor cores make the product of one,
    /// the other compares. (Without an order both would soon do the same at
    /// once.)
    __device__ void byTurns(const Part& part) {
        float sums[hopper::kSums];
        for (idx_t at = part.firstTile; at < part.lastTile; ++at) {
#pragma unroll 1
            for (int block = 0; block < S::kBlocks; ++block) {
                const bool has = hasRows(block);
                hopper::waitForTurn(group);
                if (block == 0) {
                    waitForTile();
                }
                if (has) {
                    beginProduct(sums, block);
                    hopper::giveTurn(1 - group);
                    hopper::waitForProducts<0>();
                    hopper::holdSums(sums);
                } else {
                    hopper::giveTurn(1 - group);
                }
                if (block == S::kBlocks - 1) {
                    releaseTile();
                }
                if (block == 0) {
                    readTerms();
                }
                if (has) {
                    compare(sums, block, at);
                }
            }
        }
    }

    /// Every part of a tile is given back as soon as the next one's product is
    /// on its way.
    __device__ void inParts(const Part& part) {
        float sums[hopper::kSums];
        for (idx_t at = part.firstTile; at < part.lastTile; ++at) {
            int former = 0;
            for (int i = 0; i < filtering.depth; ++i) {
                shared.full[place.stage].wait(place.phase);
                hopper::holdSums(sums);
                hopper::beginProducts();
                multiply<kStepsOfTile>(sums, 0, place.stage, i);
                hopper::endProducts();
                hopper::waitForProducts<1>();
                if (i > 0) {
                    release(former);
                }
                former = place.stage;
                place.advance(filtering.stages);
            }
            hopper::waitForProducts<0>();
            hopper::holdSums(sums);
            release(former);
            readTerms();
            compare(sums, 0, at);
        }
    }

    /// The same without any queries.
    __device__ void skip(const Part& part) {
        for (idx_t at = part.firstTile; at < part.lastTile; ++at) {
            for (int i = 0; i < filtering.depth; ++i) {
                shared.full[place.stage].wait(place.phase);
                release(place.stage);
                place.advance(filtering.stages);
            }
            readTerms();
        }
    }

    __device__ void run(const Part& part) {
        begin(part);
        if constexpr (S::kKept) {
            byTurns(part);
        } else if (hasRows(0)) {
            inParts(part);
        } else {
            skip(part);
        }
        survivors.finish();
    }
};

} // namespace fused
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
