#include <faiss_ext/gpu/compute/kernels/ExactScan.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScanLists.cuh>

#include <algorithm>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

// A scan whose warps multiply half-precision copies of 16 vectors and of all
// queries by tensor cores, and compute D of those pairs alone whose score does
// not rule them out: Margin.h proves that those with a D not above the cut are
// among them. The copies are made of the vectors on the way, so that these are
// read once. Scores stay in registers.

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
/// Of the vectors that a warp multiplies at once.
constexpr int kTile = 16;
/// Of a multiprocessor, for blocks to share.
constexpr size_t kSharedBytes = 200 << 10;

/// The tensor cores' step: 16 components. Which these are is free, as long as
/// they are the same of vectors and queries: those that a lane reads at once.
constexpr int kStep = 16;

/// Where the four components of a step are that the first of the four lanes of
/// a row has; the next lane's come after a load's.
template <typename Source>
__host__ __device__ constexpr int componentsOf(int step) {
    // Of float16, a load of eight serves two steps.
    return sizeof(Source) == 4 ? step * kStep
                               : step / 2 * (2 * kStep) + step % 2 * 4;
}

/// Of a load of 16 bytes.
template <typename Source>
constexpr int kLoaded = 16 / sizeof(Source);

/// D += A B: 16 vectors by 16 components, by 8 queries.
__device__ inline void multiplyStep(
        float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t pairOf(Half low, Half high) {
    return low.bits | uint32_t(high.bits) << 16;
}

/// What is known of a vector for the finer filter of Margin.h.
struct Vector {
    float start;
    float norm;
    float rest;
};

/// As VectorBounds::boundsOf and errorRest, but in float32, rounded upwards,
/// which is much faster: any norm not below the vector's and its copy's will
/// do, and what is left of the error is as much less.
__device__ inline Vector vectorOf(Metric metric, const VectorTerms& terms) {
    Vector vector = {fineStart(startOf(metric, terms)), 0, 0};
    if (inRange(terms)) {
        vector.norm = __fadd_ru(
                __fsqrt_ru(__fmul_ru(nextUp(terms.square), 1 + 0x1p-23f)),
                terms.error);
        const float rest =
                __fadd_ru(terms.error, -__fmul_rd(kErrorOfNorm, vector.norm));
        vector.rest = rest > 0 ? rest : 0;
    }
    return vector;
}

/// What a block knows of its queries, for the filter.
template <int Queries>
struct BlockQueries {
    /// x: the factor; y: perVector; z: fineThreshold() of vectors whose rest is
    /// zero, which are most; w: perError.
    float4 terms[Queries];
    /// thresholdBase()
    float base[Queries];
    uint64_t cut[Queries];
};

/// Pairs that a warp has not ruled out.
struct Pairs {
    static constexpr int kRoom = 64;

    uint32_t labels[kRoom];
    uint8_t queries[kRoom];
};

/// The terms and copies of query `index` of a block, by one warp. The copies
/// are for multiplyStep(): of step s and queries 16 j to 16 j + 15 lane l has
/// 16 bytes at (s * Queries / 16 + j) * 32 + l.
template <typename Source, int Queries>
__device__ inline void prepareQuery(
        const IndexState& state,
        const float* x,
        int d,
        int index,
        float cut,
        Half* copies,
        BlockQueries<Queries>& queries) {
    const int lane = threadIdx.x % 32;
    const Metric metric = state.terms->metric;
    const auto centreOf = [&](int i) {
        return QuerySums::queryCentre(metric, state.centre[i]);
    };
    int largest = 0;
    for (int i = lane; i < d; i += 32) {
        const int bin = exponentBin(subtract(x[i], centreOf(i)));
        largest = bin > largest ? bin : largest;
    }
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) {
        const int other = __shfl_xor_sync(kWholeWarp, largest, apart);
        largest = other > largest ? other : largest;
    }
    const int scale = scaleOfBin(largest);
    const float factor = powerOfTwo(scale);
    const float inverse = powerOfTwo(-scale);
    QuerySums sums;
    for (int i = lane; i < d; i += 32) {
        const Half copy = halfOf(x[i], centreOf(i), factor);
        sums.addComponent(metric, x[i], state.centre[i], copy, inverse);
        int step, part;
        if (sizeof(Source) == 4) {
            step = i / kStep;
            part = i / 4 % 4;
        } else {
            step = i / (2 * kStep) * 2 + i / 4 % 2;
            part = i / 8 % 4;
        }
        const int group = index / 16;
        const int owner = index % 8 * 4 + part;
        const int place = ((step * (Queries / 16) + group) * 32 + owner) * 8;
        copies[place + index / 8 % 2 * 4 + i % 4] = copy;
    }
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) {
        QuerySums other;
        other.row.square = __shfl_xor_sync(kWholeWarp, sums.row.square, apart);
        other.row.error = __shfl_xor_sync(kWholeWarp, sums.row.error, apart);
        other.dot = __shfl_xor_sync(kWholeWarp, sums.dot, apart);
        sums.addPart(other);
    }
    sums.row.outside = __any_sync(kWholeWarp, sums.row.outside);
    if (lane == 0) {
        const QueryTerms terms = queryTerms(*state.terms, sums, scale);
        const float base = thresholdBase(*state.terms, terms, cut);
        // (Infinity times zero is for queries out of range: NaN lets all pass.)
        queries.terms[index] = make_float4(
                terms.factor,
                finePerVector(terms),
                fineThreshold(terms, base, 0),
                terms.perError);
        queries.base[index] = base;
    }
}

/// Steps of the tensor cores whose loads are on their way at once. As fast as
/// any with an H200, but for sixteen queries and float32, for which four are by
/// 3%.
constexpr int kSteps = 8;
/// Of a multiprocessor, so that registers suffice for that.
constexpr int kBlocks = 2;

/// Blocks in y take `Queries` queries each; those in x tiles for each warp.
/// `source` [count, stride]: what copies are made of, or are. `steps`: of the
/// tensor cores, a multiple of kSteps. `wholeLoads`: of the queries. Shared
/// memory: the queries' copies, and for sources of float32 the centre.
template <typename Stored, typename Source, int Queries>
__global__ void __launch_bounds__(kThreads, kBlocks) tensorScanKernel(
        const Stored* data,
        const Source* source,
        idx_t stride,
        idx_t count,
        IndexState state,
        ScanState scan,
        bool wholeLoads,
        int steps) {
    constexpr bool kMakes = sizeof(Source) == 4;
    constexpr int kGroups = Queries / 8;
    extern __shared__ __align__(16) uint4 sharedMemory[];
    __shared__ BlockQueries<Queries> queries;
    __shared__ GatheredKeys gathered[kWarps];
    __shared__ Pairs gatheredPairs[kWarps];
    letNextKernelBegin();
    afterFormerKernel();
    const Metric metric = state.terms->metric;
    const int d = scan.d;
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const uint32_t firstQuery = blockIdx.y * Queries;
    const int copyWords = steps * (Queries / 16) * 32;
    const int centreWords = kMakes ? steps * kStep / 4 : 0;
    for (int i = threadIdx.x; i < copyWords + centreWords; i += kThreads) {
        sharedMemory[i] = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();
    float* const centre = reinterpret_cast<float*>(sharedMemory + copyWords);
    if (kMakes) {
        for (int i = threadIdx.x; i < d; i += kThreads) {
            centre[i] = state.centre[i];
        }
    }
    for (int q = warp; q < Queries; q += kWarps) {
        const idx_t query = firstQuery + q;
        if (query < scan.n) {
            const uint64_t cut = scan.cuts[query];
            prepareQuery<Source>(
                    state,
                    scan.x + query * d,
                    d,
                    q,
                    lossOf(cut),
                    reinterpret_cast<Half*>(sharedMemory),
                    queries);
            queries.cut[q] = cut;
        } else if (lane == 0) {
            queries.terms[q] = make_float4(0, 0, -infinity(), 0);
            queries.base[q] = -infinity();
        }
    }
    __syncthreads();
    const float factor =
            kMakes ? powerOfTwo(state.terms->scale) : 0.0f; // of the copies
    const int row = lane / 4;
    const int part = lane % 4;
    const int present = static_cast<int>(
            scan.n - firstQuery < Queries ? scan.n - firstQuery : Queries);
    WarpKeys keys = {
            scan.counts, scan.lists, scan.capacity, firstQuery, gathered[warp]};
    Pairs& pairs = gatheredPairs[warp];
    int pairCount = 0;

    // D of pairs, eight at once. (Their vectors have just been read.)
    const auto compare = [&](int from, int to) {
        __syncwarp();
        const ScanLane place;
        for (int base = from; base < to; base += 8) {
            const int i = base + place.vector;
            const int own = i < to ? i : to - 1;
            const uint32_t label = pairs.labels[own];
            const int query = pairs.queries[own];
            const Stored* y = data + idx_t(label) * d;
            const float loss = lossOfPair<true>(
                    metric,
                    scan.x + idx_t(firstQuery + query) * d,
                    wholeLoads,
                    y,
                    d,
                    place.group);
            const uint64_t key = keyOfLoss(loss, label);
            keys.add(
                    i < to && place.group == 0 && key != kMissing &&
                            key <= queries.cut[query],
                    key,
                    query);
            keys.makeRoom<1>();
        }
        __syncwarp();
    };

    const idx_t tiles = (count + kTile - 1) / kTile;
    for (idx_t tile = idx_t(blockIdx.x) * kWarps + warp; tile < tiles;
         tile += idx_t(gridDim.x) * kWarps) {
        const idx_t first = tile * kTile;
        const auto upTo = [&](idx_t at) { return at < count ? at : count - 1; };
        const Source* const low = source + upTo(first + row) * stride;
        const Source* const high = source + upTo(first + row + 8) * stride;
        // A lane knows a vector, and tells the others.
        const VectorTerms terms =
                state.vectors[upTo(first + row + part % 2 * 8)];
        float sums[kGroups][4];
#pragma unroll
        for (int j = 0; j < kGroups; ++j) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                sums[j][c] = 0;
            }
        }
#pragma unroll 1
        for (int step = 0; step < steps; step += kSteps) {
            // All loads are on their way before the first is waited for.
            StoredFour<Source> lows[kSteps];
            StoredFour<Source> highs[kSteps];
            const int from =
                    componentsOf<Source>(step) + kLoaded<Source> * part;
            if ((step + kSteps) * kStep <= d) {
                const Source* const lowFrom = low + from;
                const Source* const highFrom = high + from;
                if constexpr (kMakes) {
#pragma unroll
                    for (int s = 0; s < kSteps; ++s) {
                        loadOnce(lowFrom + componentsOf<Source>(s), lows[s]);
                        loadOnce(highFrom + componentsOf<Source>(s), highs[s]);
                    }
                } else {
#pragma unroll
                    for (int s = 0; s < kSteps; s += 2) {
                        const int i = componentsOf<Source>(s);
                        loadTwice(lowFrom + i, lows[s], lows[s + 1]);
                        loadTwice(highFrom + i, highs[s], highs[s + 1]);
                    }
                }
            } else {
#pragma unroll
                for (int s = 0; s < kSteps; ++s) {
                    const int i = from + componentsOf<Source>(s);
                    lows[s] = loadStored<true>(low, i, d);
                    highs[s] = loadStored<true>(high, i, d);
                }
            }
#pragma unroll
            for (int s = 0; s < kSteps; ++s) {
                uint32_t a[4];
                if constexpr (kMakes) {
                    const float4 m = *reinterpret_cast<const float4*>(
                            centre + (step + s) * kStep + 4 * part);
                    const Four below = lows[s].components();
                    const Four above = highs[s].components();
                    a[0] =
                            pairOf(halfOf(below.at[0], m.x, factor),
                                   halfOf(below.at[1], m.y, factor));
                    a[1] =
                            pairOf(halfOf(above.at[0], m.x, factor),
                                   halfOf(above.at[1], m.y, factor));
                    a[2] =
                            pairOf(halfOf(below.at[2], m.z, factor),
                                   halfOf(below.at[3], m.w, factor));
                    a[3] =
                            pairOf(halfOf(above.at[2], m.z, factor),
                                   halfOf(above.at[3], m.w, factor));
                } else {
                    a[0] = lows[s].bits.x;
                    a[1] = highs[s].bits.x;
                    a[2] = lows[s].bits.y;
                    a[3] = highs[s].bits.y;
                }
                const uint4* const b =
                        sharedMemory + (step + s) * (Queries / 16) * 32 + lane;
#pragma unroll
                for (int j = 0; j < kGroups; j += 2) {
                    const uint4 two = b[j / 2 * 32];
                    multiplyStep(sums[j], a, two.x, two.y);
                    multiplyStep(sums[j + 1], a, two.z, two.w);
                }
            }
        }

        // Sums c of group j: of row + c / 2 * 8, and query 8 j + 2 part + c
        // % 2.
        const Vector own = vectorOf(metric, terms);
        float start[2];
        float norm[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            start[r] = __shfl_sync(kWholeWarp, own.start, 4 * row + r);
            norm[r] = __shfl_sync(kWholeWarp, own.norm, 4 * row + r);
        }
        float rest = own.rest;
#pragma unroll
        for (int apart = 16; apart > 0; apart /= 2) {
            const float other = __shfl_xor_sync(kWholeWarp, rest, apart);
            rest = other > rest ? other : rest;
        }
        unsigned passing = 0;
#pragma unroll
        for (int j = 0; j < kGroups; ++j) {
#pragma unroll
            for (int other = 0; other < 2; ++other) {
                const int q = 8 * j + 2 * part + other;
                const float4 of = queries.terms[q];
                float threshold = of.z;
                if (rest > 0) {
                    threshold = multiplyAddAbove(of.w, rest, queries.base[q]);
                }
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const float value = fineValue(
                            sums[j][2 * r + other],
                            of.x,
                            of.y,
                            norm[r],
                            start[r]);
                    if (passes(value, threshold)) {
                        passing |= 1u << (4 * j + 2 * r + other);
                    }
                }
            }
        }
        if (!__any_sync(kWholeWarp, passing != 0)) {
            continue;
        }
#pragma unroll 1
        for (int at = 0; at < 4 * kGroups; ++at) {
            const int q = at / 4 * 8 + 2 * part + at % 2;
            const idx_t vector = first + row + at / 2 % 2 * 8;
            const bool has =
                    (passing >> at & 1) && q < present && vector < count;
            const unsigned lanes = __ballot_sync(kWholeWarp, has);
            if (lanes == 0) {
                continue;
            }
            if (has) {
                const int place =
                        pairCount + __popc(lanes & ((1u << lane) - 1));
                pairs.labels[place] = static_cast<uint32_t>(vector);
                pairs.queries[place] = static_cast<uint8_t>(q);
            }
            pairCount += __popc(lanes);
            if (pairCount > Pairs::kRoom - 32) {
                compare(0, pairCount);
                pairCount = 0;
            }
        }
    }
    compare(0, pairCount);
    keys.append();
}

template <int Queries, typename Stored, typename Source>
cudaError_t launchBy(
        const Stored* data,
        const Source* source,
        idx_t stride,
        idx_t count,
        const IndexState& state,
        const ScanState& scan,
        cudaStream_t stream) {
    static_assert(
            Queries % 16 == 0 && Queries <= 64 && kSteps % 2 == 0,
            "see the kernel");
    const auto kernel = tensorScanKernel<Stored, Source, Queries>;
    const int steps = scanWidth<kSteps>(scan.d) / kStep;
    const size_t bytes = size_t(steps) * kStep *
                         (Queries * sizeof(Half) +
                          (sizeof(Source) == 4 ? sizeof(float) : 0));
    int processors = 0;
    cudaError_t error = multiprocessors(processors);
    if (error == cudaSuccess) {
        error = allowShared(kernel, bytes);
    }
    if (error != cudaSuccess) {
        return error;
    }
    const unsigned groups = blocksFor(scan.n, Queries);
    // As many as are at work at once.
    constexpr size_t kFixed = kWarps * (sizeof(GatheredKeys) + sizeof(Pairs)) +
                              sizeof(BlockQueries<Queries>);
    const int64_t fit = int64_t(kSharedBytes / (bytes + kFixed));
    const int64_t most = std::max<int64_t>(
            1, std::min<int64_t>(kBlocks, fit) * processors / groups);
    const dim3 grid(blocksFor(count, kWarps * kTile, most), groups);
    return launchAfter(
            kernel,
            grid,
            kThreads,
            bytes,
            stream,
            data,
            source,
            stride,
            count,
            state,
            scan,
            rowsAligned(scan.x, scan.d),
            steps);
}

/// Whether rows are read by loads of 16 bytes.
template <typename Source>
bool wholeLoads(const Source* source, idx_t stride) {
    return stride * sizeof(Source) % 16 == 0 &&
           reinterpret_cast<uintptr_t>(source) % 16 == 0;
}

} // namespace

cudaError_t launchTensorScan(
        Metric metric,
        const VectorsView& vectors,
        const Half* copies,
        const IndexState& state,
        const ScanState& scan,
        cudaStream_t stream) {
    if (scan.n == 0 || vectors.n == 0) {
        return cudaSuccess;
    }
    const int d = vectors.d;
    if (!tensorScanServes(scan.n, d, scan.k, vectors.float16 && !copies)) {
        return cudaErrorInvalidValue;
    }
    if (scan.listsAll(vectors.n)) {
        return launchScan(metric, vectors, scan, stream);
    }
    return withStored(vectors, [&](const auto* data) {
        const auto from = [&](const auto* source, idx_t stride) {
            using Stored = std::decay_t<decltype(*data)>;
            using Source = std::decay_t<decltype(*source)>;
            if (!wholeLoads(source, stride) || !rowsAligned(data, d)) {
                return cudaErrorInvalidValue;
            }
            const auto launch = scan.n > 32   ? launchBy<64, Stored, Source>
                                : scan.n > 16 ? launchBy<32, Stored, Source>
                                              : launchBy<16, Stored, Source>;
            return launch(data, source, stride, vectors.n, state, scan, stream);
        };
        return copies ? from(copies, copyWidth(d)) : from(data, d);
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
