#include <cuda.h>

#include <algorithm>

#include <faiss_ext/gpu/compute/kernels/ExactFusedFilter.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>
#include <faiss_ext/gpu/compute/kernels/Hopper.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// A block multiplies tiles of queries with tiles of vectors, one after the
// other, and compares the scores while they are in registers. One warp has the
// copies brought to shared memory, a second one what is known of the vectors,
// and two groups of four warps multiply and compare: while the tensor cores
// make the next scores of a group, it compares the last ones.
//
// Work is the pairs of a tile of queries and one of vectors; each block takes
// the same number of them, one or less apart, that follow each other, so that
// it changes its queries hardly ever and all multiprocessors end at once.

constexpr int kGroups = 2;
constexpr int kThreads = (1 + kGroups) * hopper::kWarpgroup;
constexpr int kComparingWarps = kGroups * hopper::kWarpgroup / 32;
/// Vectors of a tile.
constexpr int kColumns = hopper::kProductColumns;
constexpr int kColumnTileBytes = kColumns * hopper::kTileRowBytes;
/// Rows that are copied at once.
constexpr int kCopiedRows = 128;
constexpr int kMostStages = 16;
/// Tiles of vectors whose terms wait to be used.
constexpr int kTermsAhead = 4;
constexpr int kStepsOfTile = hopper::kTileWidth / hopper::kProductStep;
/// Of each thread, once the warps have their tasks: of the 168 that they begin
/// with.
constexpr int kCopyingRegisters = 40;
constexpr int kComparingRegisters = 232;

/// What a block does with its queries, of which a group has kBlocks times
/// kProductRows.
enum class Keeping {
    /// Their tile stays in shared memory. A group has sums for two products,
    /// and while one is made compares the other.
    AndOverlapping,
    /// It stays, but is so wide that parts of the vectors' tiles are given
    /// back before their product is made.
    Queries,
    /// It is too wide: it is copied anew for every tile of vectors.
    Nothing,
};

/// `steps` are those of a product, where it is known: the compiler lets two
/// products be made at once if it sees all of their instructions in a row.
template <int blocks, Keeping keeps, int steps = 0>
struct Shape {
    static constexpr int kBlocks = blocks;
    static constexpr Keeping kKeeping = keeps;
    static constexpr int kSteps = steps;
    static constexpr int kDepth = (steps + kStepsOfTile - 1) / kStepsOfTile;
    static_assert(kSteps <= kDepth * kStepsOfTile, "");
    static constexpr bool kKept = keeps != Keeping::Nothing;
    static constexpr int kGroupRows = blocks * hopper::kProductRows;
    /// Queries of a tile.
    static constexpr int kRows = kGroups * kGroupRows;
    static constexpr int kRowTileBytes = kRows * hopper::kTileRowBytes;
    static constexpr int kStageBytes =
            kColumnTileBytes + (kKept ? 0 : kRowTileBytes);
};

/// What a launch is about.
struct Filtering {
    VectorRows rows;
    IndexState state;
    QueryState queries;
    bool again;
    /// Tiles of vectors, and pairs of these and tiles of queries.
    idx_t tiles;
    idx_t pairs;
    /// kTileWidth components that a copy has, the last of them perhaps not
    /// all.
    int depth;
    /// Stages of the vectors' (else of both) copies.
    int stages;
};

/// What a query is compared by: those of a warp share `spread`, the largest
/// finePerVector() of any of them, and one addition and one multiplication a
/// score are saved. With S = factor * score, s the start of a vector and N its
/// norm, fineValue() and fineThreshold() say that
///
///     S + s - own N <= T                     (a vector that passes)
/// so  S + (s - spread N) <= T - (spread - own) N <= T - (spread - own) least
///
/// where `least` is not above any N of the tile. The parenthesis on the left
/// is known for a vector and a warp, the right side for a query and a tile.
struct RowTerms {
    float factor;
    float base;
    float perRest;
    float own;
};

/// What is known of a vector: s, not above fineStart(), and N, not below its
/// VectorBounds' norm.
struct ColumnTerms {
    float start;
    float norm;
};

/// And of the vectors of a tile in range.
struct TileTerms {
    /// Not above any norm.
    float least;
    /// Not below any errorRest().
    float rest;
};

struct Survivor {
    uint32_t label;
    /// Of the tile of queries.
    uint32_t row;
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
    /// 0 where nothing passes, else all bits.
    uint32_t active[S::kRows];
    alignas(16) ColumnTerms columns[kTermsAhead][kColumns];
    alignas(16) float starts[kComparingWarps][kColumns];
    Survivor waiting[kComparingWarps][2 * 32];
};

/// Added to bounds, as a part of them, for the roundings on the way: those of
/// either side are a few times 2^-24.
constexpr float kSlack = 0x1p-20f;
/// And for those of small numbers.
constexpr float kLeastSlack = 0x1p-140f;

/// Of a query, from its terms and threshold.
__device__ inline RowTerms rowTerms(
        const IndexTerms& index, const QueryTerms& query, float cut) {
    RowTerms terms;
    terms.factor = query.factor;
    const float base = thresholdBase(index, query, cut);
    terms.base = isFinite(base) ? add(multiplyAdd(kSlack, fabsf(base), base),
                                      kLeastSlack)
                                : base;
    terms.perRest = multiply(query.perError, 1 + kSlack);
    terms.own = finePerVector(query);
    return terms;
}

__device__ inline float thresholdOf(
        const RowTerms& row, const TileTerms& tile, float spread) {
    const float beyond = multiply(subtract(spread, row.own), 1 - kSlack);
    return multiplyAdd(
            row.perRest, tile.rest, multiplyAdd(-beyond, tile.least, row.base));
}

__device__ inline float startOf(const ColumnTerms& column, float spread) {
    return multiplyAdd(-spread, column.norm, column.start);
}

/// Of a vector. VectorBounds::boundsOf() and errorRest(), in float32 and a
/// little larger.
__device__ inline ColumnTerms columnTerms(
        Metric metric, const VectorTerms& vector, TileTerms& tile) {
    ColumnTerms column;
    column.start =
            multiply(fineStart(exact::startOf(metric, vector)), 1 - kSlack);
    column.norm = 0;
    if (inRange(vector)) {
        // The root is off by 2^-23 of itself at most; the norm of no vector is
        // below the root of the least number.
        float root;
        asm("sqrt.approx.f32 %0, %1;"
            : "=f"(root)
            : "f"(add(vector.square, FLT_MIN)));
        const float sum = add(root, vector.error);
        column.norm = multiply(sum, 1 + kSlack);
        const float less = subtract(multiply(sum, 1 - 4 * kSlack), 0x1p-62f);
        const float norm = less > 0 ? less : 0;
        tile.least = norm < tile.least ? norm : tile.least;
        const float rest = multiplyAddAbove(-kErrorOfNorm, norm, vector.error);
        tile.rest = rest > tile.rest ? rest : tile.rest;
    }
    return column;
}

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

/// The pairs of a block that have the same tile of queries.
struct Part {
    idx_t next;
    idx_t end;
    idx_t queryTile = 0;
    idx_t firstTile = 0;
    idx_t lastTile = 0;

    __device__ explicit Part(idx_t pairs)
            : next(pairs * blockIdx.x / gridDim.x),
              end(pairs * (blockIdx.x + 1) / gridDim.x) {}

    __device__ bool begin(idx_t tiles) {
        if (next == end) {
            return false;
        }
        queryTile = next / tiles;
        firstTile = next - queryTile * tiles;
        const idx_t left = end - next;
        lastTile = left < tiles - firstTile ? firstTile + left : tiles;
        next += lastTile - firstTile;
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
    const int firstRow = static_cast<int>(part.queryTile * S::kRows);
    const auto copyQueries = [&](char* tile, int i, hopper::Barrier* barrier) {
        for (int row = 0; row < S::kRows; row += kCopiedRows) {
            hopper::copyTile(
                    tile + row * hopper::kTileRowBytes,
                    queryMap,
                    i * hopper::kTileWidth,
                    firstRow + row,
                    barrier);
        }
    };
    if (S::kKept) {
        shared.queriesHere.arriveExpecting(filtering.depth * S::kRowTileBytes);
        for (int i = 0; i < filtering.depth; ++i) {
            copyQueries(tiles.rowTile(0, i), i, &shared.queriesHere);
        }
    }
    for (idx_t tile = part.firstTile; tile < part.lastTile; ++tile) {
        for (int i = 0; i < filtering.depth; ++i) {
            hopper::Barrier* const full = shared.full + place.stage;
            shared.empty[place.stage].wait(place.phase ^ 1);
            full->arriveExpecting(S::kStageBytes);
            hopper::copyTile(
                    tiles.stage(place.stage),
                    vectorMap,
                    i * hopper::kTileWidth,
                    static_cast<int>(tile * kColumns),
                    full);
            if (!S::kKept) {
                copyQueries(tiles.rowTile(place.stage, i), i, full);
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
    for (idx_t tile = part.firstTile; tile < part.lastTile; ++tile) {
        VectorTerms vectors[kColumns / 32];
        const idx_t first = tile * kColumns + lane;
#pragma unroll
        for (int i = 0; i < kColumns / 32; ++i) {
            // Who has none takes the last one again.
            const idx_t column = first + i * 32;
            const idx_t known = column < rows.count ? column : rows.count - 1;
            vectors[i] =
                    filtering.state.vectors[rows.first + known * rows.step];
        }
        shared.termsEmpty[place.stage].wait(place.phase ^ 1);
        TileTerms all = {infinity(), 0};
#pragma unroll
        for (int i = 0; i < kColumns / 32; ++i) {
            shared.columns[place.stage][lane + i * 32] =
                    columnTerms(metric, vectors[i], all);
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
        __syncwarp();
        if (lane == 0) {
            shared.termsFull[place.stage].arrive();
        }
        place.advance(kTermsAhead);
    }
}

/// Labels of a warp's survivors on their way to the queries' lists, 32 at a
/// time; a place in its list is asked for each and used when the next 32 come.
template <typename S>
struct Survivors {
    const QueryState& queries;
    Survivor* waiting;
    uint32_t* active;
    idx_t firstQuery = 0;
    int count = 0;
    bool asked = false;
    Survivor placed = {0, 0};
    uint32_t place = 0;

    __device__ Survivors(
            const Filtering& filtering, Shared<S>& shared, int warp)
            : queries(filtering.queries),
              waiting(shared.waiting[warp]),
              active(shared.active) {}

    /// Bit 31 - c of `hits` [2], of rows `row` and row + 8: column 8 (c / 2) +
    /// 2 (lane % 4) + c % 2.
    __device__ void add(
            uint32_t hits0,
            uint32_t hits1,
            uint32_t row,
            idx_t firstLabel,
            idx_t step) {
        const int lane = threadIdx.x % 32;
        const unsigned below = (1u << lane) - 1;
        while (true) {
            const bool some = (hits0 | hits1) != 0;
            const unsigned who = __ballot_sync(kWholeWarp, some);
            if (who == 0) {
                return;
            }
            if (some) {
                const bool second = hits0 == 0;
                const uint32_t hits = second ? hits1 : hits0;
                const int c = __clz(hits);
                const uint32_t left = hits & ~(0x80000000u >> c);
                hits0 = second ? 0 : left;
                hits1 = second ? left : hits1;
                const int column = 8 * (c / 2) + 2 * (lane % 4) + c % 2;
                waiting[count + __popc(who & below)] = {
                        static_cast<uint32_t>(firstLabel + column * step),
                        row + (second ? 8 : 0)};
            }
            count += __popc(who);
            if (count >= 32) {
                ask(32);
            }
        }
    }

    __device__ void finish() {
        ask(count);
        settle();
    }

   private:
    __device__ void ask(int these) {
        const int lane = threadIdx.x % 32;
        settle();
        __syncwarp();
        count -= these;
        if (lane < these) {
            asked = true;
            placed = waiting[count + lane];
            place = atomicAdd(queries.counts + firstQuery + placed.row, 1u);
        }
        __syncwarp();
    }

    __device__ void settle() {
        if (asked) {
            asked = false;
            const uint32_t own = place & ~kAgain;
            if (own < static_cast<uint32_t>(queries.capacity)) {
                queries.survivors
                        [(firstQuery + placed.row) * queries.capacity + own] =
                        placed.label;
            } else {
                // It ran over: one more or less is all the same.
                active[placed.row] = 0;
            }
        }
    }
};

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
    Survivors<S> survivors;
    /// The largest RowTerms::own of the warp.
    float spread = 0;
    TileTerms tile = {0, 0};

    __device__ Comparing(
            const Filtering& given, Shared<S>& ofBlock, const Tiles<S>& at)
            : filtering(given),
              shared(ofBlock),
              tiles(at),
              group(threadIdx.x / hopper::kWarpgroup - 1),
              thread(threadIdx.x % hopper::kWarpgroup),
              warp(threadIdx.x / 32 - hopper::kWarpgroup / 32),
              lane(threadIdx.x % 32),
              survivors(given, ofBlock, warp) {}

    /// The first row of this thread's sums of a product.
    __device__ int firstRow(int block) const {
        return group * S::kGroupRows + block * hopper::kProductRows +
               16 * (warp % 4) + lane / 4;
    }

    /// Reads what is known of one query of the part. Whether it takes part.
    __device__ bool readRow(const Part& part) {
        bool active = false;
        if (thread < S::kGroupRows) {
            const QueryState& queries = filtering.queries;
            const int row = group * S::kGroupRows + thread;
            const idx_t query = part.queryTile * S::kRows + row;
            if (query < queries.n) {
                active = queries.paths[query] != QueryPath::Last;
                if (filtering.again && active) {
                    // Others count on, but kAgain stays.
                    const volatile uint32_t* count = queries.counts + query;
                    active = (*count & kAgain) != 0;
                }
            }
            RowTerms terms = {0, 0, 0, 0};
            if (active) {
                const float cut = queries.cut[query];
                terms = rowTerms(
                        *filtering.state.terms, queries.terms[query], cut);
                if (part.firstTile == 0) {
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
        return active;
    }

    /// After all rows of the part have been read.
    __device__ bool groupHasRows() const {
        bool any = false;
        for (int i = 0; i < 4; ++i) {
            any = any || shared.warpHasRows[4 * group + i];
        }
        return any;
    }

    __device__ void begin(const Part& part) {
        survivors.firstQuery = part.queryTile * S::kRows;
        // Lanes 0 to 15 know a row of the warp in one product, the others in
        // the next.
        const int block = lane / 16 < S::kBlocks ? lane / 16 : 0;
        float own = shared.rows[group * S::kGroupRows +
                                block * hopper::kProductRows + 16 * (warp % 4) +
                                lane % 16]
                            .own;
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

    /// One warp's part of giving a stage back.
    __device__ void release(int stage) {
        if (lane == 0) {
            shared.empty[stage].arrive();
        }
    }

    /// The queries of a group without any.
    __device__ void skip(const Part& part) {
        if (S::kKept) {
            shared.queriesHere.wait(queriesPhase);
            queriesPhase ^= 1;
        }
        for (idx_t i = part.firstTile; i < part.lastTile; ++i) {
            for (int j = 0; j < filtering.depth; ++j) {
                shared.full[place.stage].wait(place.phase);
                release(place.stage);
                place.advance(filtering.stages);
            }
            shared.termsFull[termsPlace.stage].wait(termsPlace.phase);
            if (lane == 0) {
                shared.termsEmpty[termsPlace.stage].arrive();
            }
            termsPlace.advance(kTermsAhead);
        }
    }

    /// Multiplies the queries' block with one part of a tile's components.
    template <int steps>
    __device__ void multiply(
            float (&sums)[hopper::kSums], int block, int stage, int part) {
        const uint64_t queries = hopper::tileDescriptor(
                tiles.rowTile(stage, part) +
                (group * S::kGroupRows + block * hopper::kProductRows) *
                        hopper::kTileRowBytes);
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

    /// Reads what is known of the next tile's vectors: the starts of this
    /// thread's columns.
    __device__ void readTerms(float (&starts)[kColumns / 4]) {
        shared.termsFull[termsPlace.stage].wait(termsPlace.phase);
        tile = shared.tiles[termsPlace.stage];
        const ColumnTerms* const columns =
                shared.columns[termsPlace.stage] + 4 * lane;
        float4 own;
        own.x = startOf(columns[0], spread);
        own.y = startOf(columns[1], spread);
        own.z = startOf(columns[2], spread);
        own.w = startOf(columns[3], spread);
        float* const ofWarp = shared.starts[warp];
        // Everybody has read the former ones.
        __syncwarp();
        *reinterpret_cast<float4*>(ofWarp + 4 * lane) = own;
        __syncwarp();
        if (lane == 0) {
            shared.termsEmpty[termsPlace.stage].arrive();
        }
        termsPlace.advance(kTermsAhead);
        const float* const first = ofWarp + 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < kColumns / 8; ++j) {
            const float2 two = *reinterpret_cast<const float2*>(first + 8 * j);
            starts[2 * j] = two.x;
            starts[2 * j + 1] = two.y;
        }
    }

    /// Compares the scores of a block of queries with a tile of vectors.
    __device__ void compare(
            const float (&sums)[hopper::kSums],
            const float (&starts)[kColumns / 4],
            int block,
            idx_t tileNumber) {
        const int row = firstRow(block);
        const RowTerms terms0 = shared.rows[row];
        const RowTerms terms1 = shared.rows[row + 8];
        const float threshold0 = thresholdOf(terms0, tile, spread);
        const float threshold1 = thresholdOf(terms1, tile, spread);
        // A bit for each score, 1 if it is ruled out: the sign of threshold
        // less value, which is not that of NaN. (The difference is rounded,
        // but its sign is right.)
        uint32_t out0 = 0;
        uint32_t out1 = 0;
#pragma unroll
        for (int c = 0; c < kColumns / 4; ++c) {
            const int at = c / 2 * 4 + c % 2;
            const float value0 = valueOf(sums[at], terms0.factor, starts[c]);
            const float value1 =
                    valueOf(sums[at + 2], terms1.factor, starts[c]);
            out0 = __funnelshift_l(
                    bitsOf(subtract(threshold0, value0)), out0, 1);
            out1 = __funnelshift_l(
                    bitsOf(subtract(threshold1, value1)), out1, 1);
        }
        uint32_t hits0 = ~out0 & shared.active[row];
        uint32_t hits1 = ~out1 & shared.active[row + 8];
        const idx_t first = tileNumber * kColumns;
        const VectorRows& rows = filtering.rows;
        if (first + kColumns > rows.count) {
            const int columns = static_cast<int>(rows.count - first);
            uint32_t exist = 0;
            for (int c = 0; c < kColumns / 4; ++c) {
                const int column = 8 * (c / 2) + 2 * (lane % 4) + c % 2;
                exist = exist << 1 | (column < columns);
            }
            hits0 &= exist;
            hits1 &= exist;
        }
        survivors.add(
                hits0, hits1, row, rows.first + first * rows.step, rows.step);
    }

    /// Begins a product of a tile, the next one to be given back or one after
    /// it. A tile's first product waits until it is there.
    __device__ void beginProduct(
            float (&sums)[hopper::kSums], int block, const Place& from) {
        if (block == 0) {
            Place part = from;
#pragma unroll
            for (int i = 0; i < S::kDepth; ++i) {
                shared.full[part.stage].wait(part.phase);
                part.advance(filtering.stages);
            }
        }
        hopper::holdSums(sums);
        hopper::beginProducts();
        Place part = from;
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

    /// Once a product is made.
    __device__ void endProduct(
            float (&sums)[hopper::kSums],
            float (&starts)[kColumns / 4],
            int block,
            idx_t tileNumber) {
        hopper::holdSums(sums);
        if (block == S::kBlocks - 1) {
#pragma unroll
            for (int i = 0; i < S::kDepth; ++i) {
                release(place.stage);
                place.advance(filtering.stages);
            }
        }
        if (block == 0) {
            readTerms(starts);
        }
        compare(sums, starts, block, tileNumber);
    }

    __device__ Place nextTile() const {
        Place next = place;
#pragma unroll
        for (int i = 0; i < S::kDepth; ++i) {
            next.advance(filtering.stages);
        }
        return next;
    }

    /// Products by turns have one set of sums and the other. (Four in a row;
    /// the compiler would have the tensor cores wait if one that a loop's turn
    /// has begun were ended in the next.)
    __device__ void overlapping(const Part& part) {
        float even[hopper::kSums];
        float odd[hopper::kSums];
        float starts[kColumns / 4];
        // The block of the second and the last product; their tiles, and those
        // of the first and the third.
        constexpr int kOdd = S::kBlocks - 1;
        constexpr int kTile1 = S::kBlocks == 1 ? 1 : 0;
        constexpr int kTile2 = 2 / S::kBlocks;
        constexpr int kTile3 = 3 / S::kBlocks;
        const auto ofOdd = [&] { return kTile1 == 1 ? nextTile() : place; };
        idx_t at = part.firstTile;
        for (; at + kTile3 < part.lastTile; at += kTile3 + 1) {
            beginProduct(even, 0, place);
            beginProduct(odd, kOdd, ofOdd());
            hopper::waitForProducts<1>();
            endProduct(even, starts, 0, at);
            beginProduct(even, 0, nextTile());
            hopper::waitForProducts<1>();
            endProduct(odd, starts, kOdd, at + kTile1);
            beginProduct(odd, kOdd, ofOdd());
            hopper::waitForProducts<1>();
            endProduct(even, starts, 0, at + kTile2);
            hopper::waitForProducts<0>();
            endProduct(odd, starts, kOdd, at + kTile3);
        }
        for (; at < part.lastTile; ++at) {
            beginProduct(even, 0, place);
            if (S::kBlocks == 2) {
                beginProduct(odd, kOdd, place);
                hopper::waitForProducts<1>();
                endProduct(even, starts, 0, at);
                hopper::waitForProducts<0>();
                endProduct(odd, starts, kOdd, at);
            } else {
                hopper::waitForProducts<0>();
                endProduct(even, starts, 0, at);
            }
        }
    }

    /// Every part of a tile is given back as soon as the next one's product is
    /// on its way.
    __device__ void inParts(const Part& part) {
        float sums[S::kBlocks][hopper::kSums];
        float starts[kColumns / 4];
        for (idx_t at = part.firstTile; at < part.lastTile; ++at) {
            int former = 0;
            for (int i = 0; i < filtering.depth; ++i) {
                shared.full[place.stage].wait(place.phase);
#pragma unroll
                for (int block = 0; block < S::kBlocks; ++block) {
                    hopper::holdSums(sums[block]);
                }
                hopper::beginProducts();
#pragma unroll
                for (int block = 0; block < S::kBlocks; ++block) {
                    multiply<kStepsOfTile>(sums[block], block, place.stage, i);
                }
                hopper::endProducts();
                hopper::waitForProducts<1>();
                if (i > 0) {
                    release(former);
                }
                former = place.stage;
                place.advance(filtering.stages);
            }
            hopper::waitForProducts<0>();
#pragma unroll
            for (int block = 0; block < S::kBlocks; ++block) {
                hopper::holdSums(sums[block]);
            }
            release(former);
            readTerms(starts);
#pragma unroll
            for (int block = 0; block < S::kBlocks; ++block) {
                compare(sums[block], starts, block, at);
            }
        }
    }

    __device__ void run(const Part& part) {
        if (!groupHasRows()) {
            skip(part);
            return;
        }
        begin(part);
        if constexpr (S::kKeeping == Keeping::AndOverlapping) {
            overlapping(part);
        } else {
            inParts(part);
        }
        survivors.finish();
    }
};

template <typename S>
__global__ void __launch_bounds__(kThreads, 1) fusedFilterKernel(
        const __grid_constant__ Filtering filtering,
        const __grid_constant__ CUtensorMap queryMap,
        const __grid_constant__ CUtensorMap vectorMap) {
    extern __shared__ char dynamic[];
    __shared__ Shared<S> shared;
    const uint32_t offset =
            hopper::sharedAddress(dynamic) % hopper::kTileAlignment;
    const Tiles<S> tiles(
            dynamic + (offset ? hopper::kTileAlignment - offset : 0),
            filtering.depth);
    if (threadIdx.x == 0) {
        shared.queriesHere.initialise(1);
        for (int i = 0; i < filtering.stages; ++i) {
            shared.full[i].initialise(1);
            shared.empty[i].initialise(kComparingWarps);
        }
        for (int i = 0; i < kTermsAhead; ++i) {
            shared.termsFull[i].initialise(1);
            shared.termsEmpty[i].initialise(kComparingWarps);
        }
        hopper::fenceBarriers();
    }
    // (The loops below begin with a wait for all threads.)
    Part part(filtering.pairs);
    if (threadIdx.x < hopper::kWarpgroup) {
        hopper::keepRegisters<kCopyingRegisters>();
        const int warp = threadIdx.x / 32;
        const Metric metric = filtering.state.terms->metric;
        Place copies;
        Place terms;
        while (part.begin(filtering.tiles)) {
            __syncthreads();
            if (!__syncthreads_or(0)) {
                continue;
            }
            if (threadIdx.x == 0) {
                bringCopies(
                        filtering,
                        &queryMap,
                        &vectorMap,
                        tiles,
                        shared,
                        part,
                        copies);
            } else if (warp == 1) {
                bringTerms(filtering, metric, shared, part, terms);
            }
        }
    } else {
        hopper::takeRegisters<kComparingRegisters>();
        Comparing<S> comparing(filtering, shared, tiles);
        while (part.begin(filtering.tiles)) {
            // Nobody needs the terms of the former queries any more.
            __syncthreads();
            const bool active = comparing.readRow(part);
            if (!__syncthreads_or(active)) {
                continue;
            }
            comparing.run(part);
        }
    }
}

/// The driver's, which is not linked.
using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled findEncode() {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion(
            "cuTensorMapEncodeTiled",
            &found,
            12000,
            cudaEnableDefault,
            &result);
#else
    const cudaError_t error = cudaGetDriverEntryPoint(
            "cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess
                   ? reinterpret_cast<EncodeTiled>(found)
                   : nullptr;
}

EncodeTiled encodeTiled() {
    static const EncodeTiled encode = findEncode();
    return encode;
}

/// Of copies [count, width], `stride` apart.
cudaError_t mapOf(
        const Half* copies,
        idx_t count,
        int width,
        idx_t stride,
        CUtensorMap& map) {
    const EncodeTiled encode = encodeTiled();
    if (!encode) {
        return cudaErrorNotSupported;
    }
    const cuuint64_t sizes[] = {
            static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(count)};
    const cuuint64_t strides[] = {
            static_cast<cuuint64_t>(stride) * sizeof(Half)};
    const cuuint32_t tile[] = {hopper::kTileWidth, kCopiedRows};
    const cuuint32_t every[] = {1, 1};
    const CUresult result =
            encode(&map,
                   CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                   2,
                   const_cast<Half*>(copies),
                   sizes,
                   strides,
                   tile,
                   every,
                   CU_TENSOR_MAP_INTERLEAVE_NONE,
                   CU_TENSOR_MAP_SWIZZLE_128B,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/// What a block may have, but for what it always has.
template <typename S>
constexpr int dynamicBytes() {
    constexpr int kAll = 227 << 10;
    return kAll - static_cast<int>(sizeof(Shared<S>)) - 1024;
}

/// Stages that there is room for.
template <typename S>
int stagesOf(int depth) {
    const int room = dynamicBytes<S>() - hopper::kTileAlignment -
                     (S::kKept ? depth * S::kRowTileBytes : 0);
    return room < 0 ? 0 : std::min(kMostStages, room / S::kStageBytes);
}

template <typename S>
cudaError_t launch(
        FilterPass pass,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const Half* copies,
        idx_t stride,
        cudaStream_t stream) {
    int processors = 0;
    cudaError_t error = multiprocessors(processors);
    const int width = copyWidth(queries.d);
    CUtensorMap queryMap;
    CUtensorMap vectorMap;
    if (error == cudaSuccess) {
        error = mapOf(queries.copies, queries.n, width, width, queryMap);
    }
    if (error == cudaSuccess) {
        error = mapOf(copies, rows.count, width, stride, vectorMap);
    }
    Filtering filtering;
    filtering.rows = rows;
    filtering.state = state;
    filtering.queries = queries;
    filtering.again = pass == FilterPass::Again;
    filtering.tiles = (rows.count + kColumns - 1) / kColumns;
    filtering.pairs = filtering.tiles * ((queries.n + S::kRows - 1) / S::kRows);
    filtering.depth = (width + hopper::kTileWidth - 1) / hopper::kTileWidth;
    filtering.stages = stagesOf<S>(filtering.depth);
    const int bytes = hopper::kTileAlignment +
                      (S::kKept ? filtering.depth * S::kRowTileBytes : 0) +
                      filtering.stages * S::kStageBytes;
    const auto kernel = fusedFilterKernel<S>;
    if (error == cudaSuccess) {
        error = allowShared(kernel, bytes);
    }
    if (error != cudaSuccess) {
        return error;
    }
    kernel<<<
            blocksFor(filtering.pairs, 1, processors),
            kThreads,
            bytes,
            stream>>>(filtering, queryMap, vectorMap);
    return cudaGetLastError();
}

} // namespace

cudaError_t fusedFilterRuns(bool& runs) {
    int device = 0;
    int major = 0;
    int minor = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(
                &major, cudaDevAttrComputeCapabilityMajor, device);
    }
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(
                &minor, cudaDevAttrComputeCapabilityMinor, device);
    }
    runs = error == cudaSuccess && major == 9 && minor == 0 && encodeTiled();
    return error;
}

cudaError_t launchFusedFilter(
        FilterPass pass,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const Half* copies,
        idx_t stride,
        cudaStream_t stream) {
    if (queries.n == 0 || rows.count == 0) {
        return cudaSuccess;
    }
    const auto by = [&](auto shape) {
        return launch<decltype(shape)>(
                pass, rows, state, queries, copies, stride, stream);
    };
    constexpr Keeping kOverlapping = Keeping::AndOverlapping;
    // The fewer rows there are without a query, the better.
    const auto rowsOf = [&](idx_t tile) {
        return (queries.n + tile - 1) / tile * tile;
    };
    const bool wide = rowsOf(256) <= rowsOf(128);
    const int width = copyWidth(queries.d);
    if (width <= 64) {
        return wide ? by(Shape<2, kOverlapping, 4>())
                    : by(Shape<1, kOverlapping, 4>());
    }
    if (width <= 96) {
        return wide ? by(Shape<2, kOverlapping, 6>())
                    : by(Shape<1, kOverlapping, 6>());
    }
    if (width <= 128) {
        return wide ? by(Shape<2, kOverlapping, 8>())
                    : by(Shape<1, kOverlapping, 8>());
    }
    if (wide && width <= 256) {
        return by(Shape<2, Keeping::Queries>());
    }
    if (width <= 512) {
        return by(Shape<1, Keeping::Queries>());
    }
    return by(Shape<2, Keeping::Nothing>());
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
