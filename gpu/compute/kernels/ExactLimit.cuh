#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include <faiss_ext/gpu/compute/exact/Order.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

// The k least of many result keys, without a sort of them: by counting keys in
// bins between the least and the largest one, then in bins of the bin that has
// the k-th, and so on. One block, all of whose threads call these together.

namespace faiss_ext {
namespace gpu {
namespace exact {

constexpr int kLimitBinBits = 11;
constexpr int kLimitBins = 1 << kLimitBinBits;

/// What of some keys is not kMissing: the least and the largest, and how many.
struct KeyRange {
    uint64_t least;
    uint64_t largest;
    uint32_t count;
};

/// Shared memory of limitOfKeys() and rangeOfKeys().
template <int Threads>
struct LimitScratch {
    static constexpr int kWarps = Threads / 32;
    uint32_t bins[kLimitBins];
    KeyRange ranges[kWarps];
    uint32_t ofWarp[kWarps];
    uint32_t bin;
    uint32_t before;
    uint32_t of;
};

/// `forEach(take)` calls take(key) with every key, each in one thread.
template <int Threads, typename ForEach>
__device__ inline KeyRange rangeOfKeys(
        LimitScratch<Threads>& scratch, ForEach&& forEach) {
    KeyRange own = {kMissing, 0, 0};
    forEach([&](uint64_t key) {
        if (key != kMissing) {
            own.least = key < own.least ? key : own.least;
            own.largest = key > own.largest ? key : own.largest;
            ++own.count;
        }
    });
    const auto join = [](KeyRange& a, const KeyRange& b) {
        a.least = b.least < a.least ? b.least : a.least;
        a.largest = b.largest > a.largest ? b.largest : a.largest;
        a.count += b.count;
    };
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) {
        KeyRange other;
        other.least = __shfl_xor_sync(kWholeWarp, own.least, apart);
        other.largest = __shfl_xor_sync(kWholeWarp, own.largest, apart);
        other.count = __shfl_xor_sync(kWholeWarp, own.count, apart);
        join(own, other);
    }
    if (threadIdx.x % 32 == 0) {
        scratch.ranges[threadIdx.x / 32] = own;
    }
    __syncthreads();
    own = scratch.ranges[0];
    for (int warp = 1; warp < Threads / 32; ++warp) {
        join(own, scratch.ranges[warp]);
    }
    return own;
}

/// A key that at least k of the keys of a range are not above, and no more than
/// `room` (>= k); kMissing if that is true of all of them. Keys differ, by
/// their labels, so that bins of one key are the end.
template <int Threads, typename ForEach>
__device__ inline uint64_t limitOfKeys(
        LimitScratch<Threads>& scratch,
        const KeyRange& range,
        uint32_t k,
        uint32_t room,
        ForEach&& forEach) {
    if (range.count <= room) {
        return kMissing;
    }
    constexpr int kOwn = kLimitBins / Threads;
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    uint64_t low = range.least;
    uint64_t high = range.largest;
    uint32_t wanted = k;
    uint32_t before = 0;
    for (;;) {
        const int bits = 64 - __clzll(static_cast<long long>(high - low));
        const int shift = bits > kLimitBinBits ? bits - kLimitBinBits : 0;
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
            scratch.bins[i * Threads + threadIdx.x] = 0;
        }
        __syncthreads();
        forEach([&](uint64_t key) {
            if (key >= low && key <= high) {
                atomicAdd(
                        &scratch.bins[static_cast<uint32_t>(
                                (key - low) >> shift)],
                        1u);
            }
        });
        __syncthreads();
        uint32_t counts[kOwn];
        uint32_t own = 0;
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
            counts[i] = scratch.bins[threadIdx.x * kOwn + i];
            own += counts[i];
        }
        uint32_t upTo = own;
        for (int step = 1; step < 32; step *= 2) {
            const uint32_t other = __shfl_up_sync(kWholeWarp, upTo, step);
            upTo += lane >= step ? other : 0;
        }
        if (lane == 31) {
            scratch.ofWarp[warp] = upTo;
        }
        __syncthreads();
        for (int w = 0; w < warp; ++w) {
            upTo += scratch.ofWarp[w];
        }
        uint32_t passed = upTo - own;
        if (upTo >= wanted && passed < wanted) {
#pragma unroll
            for (int i = 0; i < kOwn; ++i) {
                if (passed < wanted && passed + counts[i] >= wanted) {
                    scratch.bin = threadIdx.x * kOwn + i;
                    scratch.before = passed;
                    scratch.of = counts[i];
                    passed += counts[i];
                } else if (passed < wanted) {
                    passed += counts[i];
                }
            }
        }
        __syncthreads();
        before += scratch.before;
        wanted -= scratch.before;
        low += uint64_t(scratch.bin) << shift;
        const uint64_t end = low + ((uint64_t(1) << shift) - 1);
        high = end < high ? end : high;
        if (before + scratch.of <= room) {
            return high;
        }
        // (Who is first to write is past the next two waits.)
    }
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
