#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactKeys.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
/// A digit of a key, and bins of all its values.
constexpr int kDigitBits = 11;
constexpr int kBins = 1 << kDigitBits;

/// The losses of one query, as result keys.
struct Row {
    const float* losses;
    idx_t first;
    idx_t step;
    idx_t count;
    bool aligned;

    /// Calls take(keys) with four keys of each thread, all threads of a block
    /// together; beyond the end kMissing.
    template <typename Take>
    __device__ void forEachFour(Take&& take) const {
        for (idx_t base = 0; base < count; base += 4 * kThreads) {
            const idx_t column = base + 4 * threadIdx.x;
            float four[4];
            if (aligned && column + 4 <= count) {
                const float4 loaded =
                        *reinterpret_cast<const float4*>(losses + column);
                four[0] = loaded.x;
                four[1] = loaded.y;
                four[2] = loaded.z;
                four[3] = loaded.w;
            } else {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    four[c] = column + c < count ? losses[column + c]
                                                 : infinity();
                }
            }
            uint64_t keys[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const uint32_t label =
                        static_cast<uint32_t>(first + (column + c) * step);
                keys[c] = four[c] < missingLoss()
                                  ? uint64_t(lossKey(four[c])) << 32 | label
                                  : kMissing;
            }
            take(keys);
        }
    }
};

/// Appends the keys below `limit` to list [room], in no order, and counts them
/// in `found`, those without room too.
__device__ inline void collectKeys(
        const Row& row,
        uint64_t limit,
        uint64_t* list,
        uint32_t room,
        uint32_t& found) {
    const int lane = threadIdx.x % 32;
    row.forEachFour([&](const uint64_t(&keys)[4]) {
        uint32_t own = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            own += keys[c] < limit ? 1 : 0;
        }
        if (!__any_sync(kWholeWarp, own != 0)) {
            return;
        }
        uint32_t upTo = own;
        for (int step = 1; step < 32; step *= 2) {
            const uint32_t other = __shfl_up_sync(kWholeWarp, upTo, step);
            upTo += lane >= step ? other : 0;
        }
        uint32_t place = 0;
        if (lane == 31) {
            place = atomicAdd(&found, upTo);
        }
        place = __shfl_sync(kWholeWarp, place, 31) + upTo - own;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            if (keys[c] < limit) {
                if (place < room) {
                    list[place] = keys[c];
                }
                ++place;
            }
        }
    });
}

/// One more in a bin, for each lane that has one. Often all have the same.
__device__ inline void countKey(uint32_t* bins, uint32_t bin, bool has) {
    const unsigned lanes = __ballot_sync(kWholeWarp, has);
    if (lanes == 0) {
        return;
    }
    const int leader = __ffs(lanes) - 1;
    const uint32_t ofLeader = __shfl_sync(kWholeWarp, bin, leader);
    if (__all_sync(kWholeWarp, !has || bin == ofLeader)) {
        if (static_cast<int>(threadIdx.x % 32) == leader) {
            atomicAdd(&bins[bin], uint32_t(__popc(lanes)));
        }
    } else if (has) {
        atomicAdd(&bins[bin], 1u);
    }
}

/// A digit, and the keys before it and of it; all keys in the bins.
struct Digit {
    uint32_t value;
    uint32_t before;
    uint32_t of;
    uint32_t all;
};

/// The bin with the wanted key, counted from 1. If fewer are in the bins, `all`
/// alone means something.
__device__ inline Digit digitOf(const uint32_t* bins, uint32_t wanted) {
    constexpr int kOwn = kBins / kThreads;
    __shared__ uint32_t ofWarp[kWarps];
    __shared__ Digit result;
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    uint32_t own = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
        own += bins[threadIdx.x * kOwn + i];
    }
    uint32_t upTo = own;
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t other = __shfl_up_sync(kWholeWarp, upTo, step);
        upTo += lane >= step ? other : 0;
    }
    if (lane == 31) {
        ofWarp[warp] = upTo;
    }
    __syncthreads();
    for (int w = 0; w < warp; ++w) {
        upTo += ofWarp[w];
    }
    if (upTo >= wanted && upTo - own < wanted) {
        uint32_t value = threadIdx.x * kOwn;
        uint32_t before = upTo - own;
        while (before + bins[value] < wanted) {
            before += bins[value++];
        }
        result.value = value;
        result.before = before;
        result.of = bins[value];
    }
    if (threadIdx.x == kThreads - 1) {
        result.all = upTo;
    }
    __syncthreads();
    return result;
}

/// A limit that at least k, but no more than `room`, of the keys are below;
/// more than `room` are below `limit`. k <= room. By digits, the first one
/// first, as far as need be; keys differ, by their labels.
__device__ inline uint64_t limitOfBest(
        const Row& row, uint64_t limit, int k, uint32_t room, uint32_t* bins) {
    uint64_t prefix = 0;
    int left = 64;
    uint32_t wanted = static_cast<uint32_t>(k);
    uint32_t before = 0;
    for (;;) {
        const int bits = left < kDigitBits ? left : kDigitBits;
        const int shift = left - bits;
        const uint32_t mask = (1u << bits) - 1;
        __syncthreads();
        for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
            bins[bin] = 0;
        }
        __syncthreads();
        row.forEachFour([&](const uint64_t(&keys)[4]) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const bool has = keys[c] < limit &&
                                 (left == 64 || keys[c] >> left == prefix);
                countKey(
                        bins,
                        static_cast<uint32_t>(keys[c] >> shift) & mask,
                        has);
            }
        });
        __syncthreads();
        const Digit digit = digitOf(bins, wanted);
        if (left == 64 && digit.all <= room) {
            return limit;
        }
        before += digit.before;
        wanted -= digit.before;
        prefix = prefix << bits | digit.value;
        left = shift;
        if (before + digit.of <= room) {
            // (No key of a loss begins with ones alone, so nothing overflows.)
            const uint64_t next = (prefix + 1) << left;
            return next < limit ? next : limit;
        }
    }
}

/// A block a query. Shared memory: keys [room], and best [k].
__global__ void __launch_bounds__(kThreads) selectLossesKernel(
        VectorRows rows,
        QueryState queries,
        const float* losses,
        idx_t ld,
        int room,
        bool aligned) {
    const uint32_t lastCount = *queries.lastCount;
    const int k = queries.k;
    extern __shared__ uint64_t keys[];
    uint64_t* const former = keys + room;
    __shared__ uint32_t found;
    for (uint32_t i = blockIdx.x; i < lastCount; i += gridDim.x) {
        const Row row = {
                losses + i * ld, rows.first, rows.step, rows.count, aligned};
        uint64_t* const best = queries.best + idx_t(queries.last[i]) * k;
        const uint64_t limit = best[k - 1];
        if (threadIdx.x == 0) {
            found = 0;
        }
        const int formerCount = copyBest(best, k, former);
        // copyBest waited for all threads.
        const uint32_t most = static_cast<uint32_t>(room);
        uint32_t count = most + 1;
        if (limit != kMissing || rows.count <= room) {
            collectKeys(row, limit, keys, most, found);
            __syncthreads();
            count = found;
        }
        if (count > most) {
            // A list of all of them would have no room; k are wanted.
            __syncthreads();
            if (threadIdx.x == 0) {
                found = 0;
            }
            uint32_t* bins = reinterpret_cast<uint32_t*>(keys);
            const uint64_t next = limitOfBest(row, limit, k, most, bins);
            __syncthreads();
            collectKeys(row, next, keys, most, found);
            __syncthreads();
            count = found;
        }
        if (count > 0) {
            sortKeys(keys, static_cast<int>(count));
            mergeKeys(
                    keys,
                    static_cast<int>(count),
                    former,
                    formerCount,
                    k,
                    [&](int place, uint64_t key) { best[place] = key; });
        }
        // The next query takes the same memory.
        __syncthreads();
    }
}

} // namespace

cudaError_t launchSelectLosses(
        const VectorRows& rows,
        const QueryState& queries,
        const float* losses,
        idx_t ld,
        cudaStream_t stream) {
    if (queries.n == 0 || rows.count == 0) {
        return cudaSuccess;
    }
    int processors = 0;
    cudaError_t error = multiprocessors(processors);
    if (error != cudaSuccess) {
        return error;
    }
    // Several times k, so that few passes over the losses find a limit, and no
    // less than the bins take.
    const int room = powerOfTwoFrom(queries.k > 512 ? 4 * queries.k : 2048);
    const size_t bytes = (size_t(room) + queries.k) * sizeof(uint64_t);
    error = allowShared(selectLossesKernel, bytes);
    if (error != cudaSuccess) {
        return error;
    }
    selectLossesKernel<<<
            blocksFor(queries.n, 1, 4 * int64_t(processors)),
            kThreads,
            bytes,
            stream>>>(rows, queries, losses, ld, room, rowsAligned(losses, ld));
    return cudaGetLastError();
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
