#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include <faiss_ext/gpu/compute/exact/Order.h>

// Result keys in the shared memory of one block, all of whose threads call
// these functions together.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// The least power of two that is not below a number of at least 1.
inline __host__ __device__ int powerOfTwoFrom(int number) {
    int power = 1;
    while (power < number) {
        power *= 2;
    }
    return power;
}

/// Sorts `count` keys, ascending. Ends with all threads at one place.
__device__ inline void sortKeys(uint64_t* keys, int count) {
    // A bitonic sort whose runs all ascend, for which each begins with pairs
    // that mirror each other: keys beyond `count` would never move, and need
    // not be there. What a warp compares within 64 keys of its own needs to
    // wait for nobody else.
    constexpr int kNear = 64;
    const int size = powerOfTwoFrom(count);
    const auto compare = [&](int low, int high) {
        if (high < count) {
            const uint64_t a = keys[low];
            const uint64_t b = keys[high];
            if (a > b) {
                keys[low] = b;
                keys[high] = a;
            }
        }
    };
    // `span`: of what the step that ends and the next one compare.
    const auto wait = [](int span) {
        if (span > kNear) {
            __syncthreads();
        } else {
            __syncwarp();
        }
    };
    __syncthreads();
    for (int run = 2; run <= size; run *= 2) {
        for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
            const int place = pair & (run / 2 - 1);
            const int first = 2 * (pair - place);
            compare(first + place, first + run - 1 - place);
        }
        wait(run);
        for (int apart = run / 4; apart > 0; apart /= 2) {
            for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                const int low = 2 * pair - (pair & (apart - 1));
                compare(low, low + apart);
            }
            wait(apart > 1 ? 2 * apart : 2 * run);
        }
    }
    __syncthreads();
}

/// How many of `count` ascending keys are below one.
__device__ inline int keysBelow(const uint64_t* keys, int count, uint64_t key) {
    int low = 0;
    while (count > 0) {
        const int half = count / 2;
        if (keys[low + half] < key) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

/// Copies the keys before the missing ones of best [k], which is ascending, and
/// returns how many these are. `copy` can be read when it returns.
__device__ inline int copyBest(const uint64_t* best, int k, uint64_t* copy) {
    int count = 0;
    for (int base = 0; base < k; base += blockDim.x) {
        const int i = base + threadIdx.x;
        const uint64_t key = i < k ? best[i] : kMissing;
        if (key != kMissing) {
            copy[i] = key;
        }
        const int found = __syncthreads_count(key != kMissing);
        count += found;
        if (found < static_cast<int>(blockDim.x)) {
            break;
        }
    }
    return count;
}

/// Calls keep(place, key) for the k least of two lists, both ascending and
/// without a key in common, each by one thread.
template <typename Keep>
__device__ inline void mergeKeys(
        const uint64_t* a,
        int aCount,
        const uint64_t* b,
        int bCount,
        int k,
        Keep&& keep) {
    for (int i = threadIdx.x; i < aCount && i < k; i += blockDim.x) {
        const int place = i + keysBelow(b, bCount, a[i]);
        if (place < k) {
            keep(place, a[i]);
        }
    }
    for (int i = threadIdx.x; i < bCount && i < k; i += blockDim.x) {
        const int place = i + keysBelow(a, aCount, b[i]);
        if (place < k) {
            keep(place, b[i]);
        }
    }
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
