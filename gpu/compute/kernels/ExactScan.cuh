#pragma once

#include <faiss_ext/gpu/compute/kernels/ExactScan.h>
#include <faiss_ext/gpu/compute/kernels/ExactLaunch.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

// D of a few queries and many vectors, each vector read once, and by lanes that
// read whole sectors: what the kernels of a scan are made of.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Four neighbouring components of a vector as they are stored, so that those
/// on their way take no more registers than that.
template <typename Stored>
struct StoredFour;

template <>
struct StoredFour<float> {
    uint4 bits;

    __device__ Four components() const {
        return {
                {floatOf(bits.x),
                 floatOf(bits.y),
                 floatOf(bits.z),
                 floatOf(bits.w)}};
    }
};

template <>
struct StoredFour<Half> {
    uint2 bits;

    __device__ Four components() const {
        return {
                {toFloat(Half{static_cast<uint16_t>(bits.x)}),
                 toFloat(Half{static_cast<uint16_t>(bits.x >> 16)}),
                 toFloat(Half{static_cast<uint16_t>(bits.y)}),
                 toFloat(Half{static_cast<uint16_t>(bits.y >> 16)})}};
    }
};

/// Sectors that nobody reads again: they need not push out others.
__device__ inline void loadOnce(const float* from, StoredFour<float>& four) {
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(four.bits.x),
                   "=r"(four.bits.y),
                   "=r"(four.bits.z),
                   "=r"(four.bits.w)
                 : "l"(from));
}

__device__ inline void loadOnce(const Half* from, StoredFour<Half>& four) {
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                 : "=r"(four.bits.x), "=r"(four.bits.y)
                 : "l"(from));
}

/// Eight neighbouring components.
__device__ inline void loadTwice(
        const Half* from, StoredFour<Half>& four, StoredFour<Half>& next) {
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(four.bits.x),
                   "=r"(four.bits.y),
                   "=r"(next.bits.x),
                   "=r"(next.bits.y)
                 : "l"(from));
}

/// Components i to i + 3 of a row of d, zeros beyond its end, as loadFour().
template <bool aligned>
__device__ inline StoredFour<float> loadStored(const float* row, int i, int d) {
    StoredFour<float> four = {make_uint4(0, 0, 0, 0)};
    if constexpr (aligned) {
        if (i < d) {
            loadOnce(row + i, four);
        }
    } else {
        const Four loaded = loadFour<false>(row, i, d);
        four.bits = make_uint4(
                bitsOf(loaded.at[0]),
                bitsOf(loaded.at[1]),
                bitsOf(loaded.at[2]),
                bitsOf(loaded.at[3]));
    }
    return four;
}

template <bool aligned>
__device__ inline StoredFour<Half> loadStored(const Half* row, int i, int d) {
    StoredFour<Half> four = {make_uint2(0, 0)};
    if constexpr (aligned) {
        if (i < d) {
            loadOnce(row + i, four);
        }
    } else {
        uint32_t bits[4] = {0, 0, 0, 0};
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            if (i + c < d) {
                bits[c] = row[i + c].bits;
            }
        }
        four.bits =
                make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
    }
    return four;
}

/// resultKey() of a loss.
__device__ inline uint64_t keyOfLoss(float loss, uint32_t label) {
    return loss < missingLoss() ? uint64_t(lossKey(loss)) << 32 | label
                                : kMissing;
}

/// Where a lane stands: four lanes have a vector in common, and each of them
/// four neighbouring chains of D. Neighbouring lanes have the same chains, so
/// that they read the same components of a query.
struct ScanLane {
    int group;  // of chains
    int vector; // of the eight that a warp has at once

    __device__ ScanLane() {
        const int lane = threadIdx.x % 32;
        group = lane / 2 % 4;
        vector = lane % 2 + lane / 8 * 2;
    }
};

/// What the lanes of the other groups of chains have: xor of the lane's number.
constexpr int kNextGroup = 2;
constexpr int kNextGroups = 4;

/// Chains of `Queries` queries and `Vectors` vectors, and what becomes of them.
template <Metric metric, int Queries, int Vectors>
struct ScanTile {
    static constexpr int kPairs = Queries * Vectors;
    /// D of so many pairs end in each lane.
    static constexpr int kOwn = kPairs < 4 ? 1 : kPairs / 4;
    static_assert(kPairs < 4 || kPairs % 4 == 0, "four lanes share them");

    float chain[Vectors][Queries][4];

    __device__ void clear() {
#pragma unroll
        for (int v = 0; v < Vectors; ++v) {
#pragma unroll
            for (int q = 0; q < Queries; ++q) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    chain[v][q][c] = 0;
                }
            }
        }
    }

    /// Four more components; those of query q are at x + q * stride.
    template <typename Stored>
    __device__ void add(
            const float* x,
            int stride,
            const StoredFour<Stored> (&stored)[Vectors]) {
        Four y[Vectors];
#pragma unroll
        for (int v = 0; v < Vectors; ++v) {
            y[v] = stored[v].components();
        }
#pragma unroll
        for (int q = 0; q < Queries; ++q) {
            const float4 four =
                    *reinterpret_cast<const float4*>(x + q * stride);
            const float a[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int v = 0; v < Vectors; ++v) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    chain[v][q][c] = addDimension<metric>(
                            a[c], y[v].at[c], chain[v][q][c]);
                }
            }
        }
    }

    /// The pair whose loss is at losses()[i] in a lane of a group of chains:
    /// its vector times Queries, plus its query.
    __device__ static int pairOf(int i, int group) {
        return kPairs < 4 ? group % kPairs : 4 * i + group;
    }

    /// Whether it is there alone.
    __device__ static bool owns(int group) {
        return kPairs >= 4 || group < kPairs;
    }

    /// Lanes give away half of what they have, twice, so that each pair is
    /// added once.
    __device__ void losses(int group, float (&loss)[kOwn]) const {
        const auto own = [&](int pair) {
            const float(&four)[4] = chain[pair / Queries][pair % Queries];
            return joinChains(four[0], four[1], four[2], four[3]);
        };
        const bool odd = group & 1;
        const bool upper = group & 2;
        const auto ofTwo = [&](float even, float other) {
            const float given =
                    __shfl_xor_sync(kWholeWarp, odd ? even : other, kNextGroup);
            return exact::add(odd ? other : even, given);
        };
        const auto end = [](float sum, float given) {
            return lossOf(metric, exact::add(exact::add(sum, given), 0.0f));
        };
        if constexpr (kPairs == 1) {
            const float one = own(0);
            const float two = exact::add(
                    one, __shfl_xor_sync(kWholeWarp, one, kNextGroup));
            loss[0] = end(two, __shfl_xor_sync(kWholeWarp, two, kNextGroups));
        } else if constexpr (kPairs == 2) {
            const float two = ofTwo(own(0), own(1));
            loss[0] = end(two, __shfl_xor_sync(kWholeWarp, two, kNextGroups));
        } else {
#pragma unroll
            for (int i = 0; i < kOwn; ++i) {
                const float low = ofTwo(own(4 * i), own(4 * i + 1));
                const float high = ofTwo(own(4 * i + 2), own(4 * i + 3));
                loss[i] = end(
                        upper ? high : low,
                        __shfl_xor_sync(
                                kWholeWarp, upper ? low : high, kNextGroups));
            }
        }
    }
};

/// The width of a query's copy in shared memory, of which zeros are the end.
template <int Steps>
inline __host__ __device__ int scanWidth(int d) {
    constexpr int kBlock = Steps * kChains;
    return (d + kBlock - 1) / kBlock * kBlock;
}

/// Copies queries first, first + 1, ... to shared memory [Queries, width];
/// those that are not there are zero.
template <int Queries>
__device__ inline void copyQueries(
        const float* x, idx_t n, int d, idx_t first, int width, float* copy) {
    for (int i = threadIdx.x; i < Queries * width; i += blockDim.x) {
        const int q = i / width;
        const int c = i - q * width;
        copy[i] = c < d && first + q < n ? x[(first + q) * d + c] : 0.0f;
    }
}

/// Losses of tiles: of `Vectors` rows of this lane's vector and the queries
/// whose copies are at x. `Steps` loads of each row are on their way at once.
template <
        Metric metric,
        typename Stored,
        bool aligned,
        int Queries,
        int Vectors,
        int Steps>
struct ScanLoop {
    using Tile = ScanTile<metric, Queries, Vectors>;
    using Fours = StoredFour<Stored>[Steps][Vectors];

    const float* x;
    int width;
    int d;
    int group;

    __device__ void
    load(const Stored* const (&rows)[Vectors], int first, Fours& fours) const {
        // Two ways, so that the loads of a whole block depend on nothing, and
        // are all on their way before the first is waited for.
        const int from = first + 4 * group;
        if (aligned && first + Steps * kChains <= d) {
#pragma unroll
            for (int s = 0; s < Steps; ++s) {
#pragma unroll
                for (int v = 0; v < Vectors; ++v) {
                    loadOnce(rows[v] + from + s * kChains, fours[s][v]);
                }
            }
        } else {
#pragma unroll
            for (int s = 0; s < Steps; ++s) {
#pragma unroll
                for (int v = 0; v < Vectors; ++v) {
                    fours[s][v] =
                            loadStored<aligned>(rows[v], from + s * kChains, d);
                }
            }
        }
    }

    /// Calls rowsOf(t, rows) and end(t, losses) for t = first, first + step,
    /// ... below `last`.
    template <typename RowsOf, typename End>
    __device__ void run(
            uint32_t first,
            uint32_t step,
            uint32_t last,
            RowsOf&& rowsOf,
            End&& end) const {
        if (first >= last) {
            return;
        }
        const Stored* rows[Vectors];
        rowsOf(first, rows);
        for (uint32_t t = first; t < last; t += step) {
            Tile tile;
            tile.clear();
            for (int at = 0; at < d; at += Steps * kChains) {
                Fours fours;
                load(rows, at, fours);
#pragma unroll
                for (int s = 0; s < Steps; ++s) {
                    tile.add(x + at + s * kChains + 4 * group, width, fours[s]);
                }
            }
            if (t + step < last) {
                rowsOf(t + step, rows);
            }
            float losses[Tile::kOwn];
            tile.losses(group, losses);
            end(t, losses);
        }
    }
};

/// The loss of a query and a vector, by four lanes, all of which get it.
/// `aligned` is of the vector, `wholeLoads` of the query.
template <Metric metric, bool aligned, typename Stored>
__device__ inline float lossOfPair(
        const float* x, bool wholeLoads, const Stored* y, int d, int group) {
    // Loads that are on their way at once.
    constexpr int kLoads = aligned ? 8 : 4;
    ScanTile<metric, 1, 1> tile;
    tile.clear();
    for (int first = 4 * group; first - 4 * group < d;
         first += kLoads * kChains) {
        StoredFour<Stored> ys[kLoads][1];
        Four xs[kLoads];
        if (aligned && wholeLoads &&
            first - 4 * group + kLoads * kChains <= d) {
#pragma unroll
            for (int s = 0; s < kLoads; ++s) {
                loadOnce(y + first + s * kChains, ys[s][0]);
                xs[s] = loadFour<true>(x, first + s * kChains, d);
            }
        } else {
#pragma unroll
            for (int s = 0; s < kLoads; ++s) {
                const int i = first + s * kChains;
                ys[s][0] = loadStored<aligned>(y, i, d);
                xs[s] = aligned && wholeLoads ? loadFour<true>(x, i, d)
                                              : loadFour<false>(x, i, d);
            }
        }
#pragma unroll
        for (int s = 0; s < kLoads; ++s) {
            const float4 four = make_float4(
                    xs[s].at[0], xs[s].at[1], xs[s].at[2], xs[s].at[3]);
            tile.add(reinterpret_cast<const float*>(&four), 0, ys[s]);
        }
    }
    float loss[1];
    tile.losses(group, loss);
    return loss[0];
}

template <bool aligned, typename Stored>
__device__ inline float lossOfPair(
        Metric metric,
        const float* x,
        bool wholeLoads,
        const Stored* y,
        int d,
        int group) {
    return metric == Metric::L2
                   ? lossOfPair<Metric::L2, aligned>(x, wholeLoads, y, d, group)
                   : lossOfPair<Metric::InnerProduct, aligned>(
                             x, wholeLoads, y, d, group);
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
