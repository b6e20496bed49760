#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

// How the fused filter's survivors come to the queries' lists.

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace fused {

struct Survivor {
    uint32_t label;
    /// Of the tile of queries.
    uint32_t row;
};

/// Survivors of a warp that wait, at most: fewer than 32, and 32 more.
constexpr int kWaiting = 2 * 32;

/// Scores that 32 bits tell of, from one row.
constexpr int kColumnsOfWord = 128;

/// The column that bit 31 - c is about, of a thread's scores.
__device__ inline int columnOf(int c, int lane) {
    return 8 * (c / 2) + 2 * (lane % 4) + c % 2;
}

/// Labels of a warp's survivors on their way to the queries' lists, 32 at a
/// time; a place in its list is asked for each and used when the next 32 come.
struct Survivors {
    const QueryState& queries;
    /// In shared memory: kWaiting of this warp; and of each row 0 where nothing
    /// passes, else all bits.
    Survivor* waiting;
    uint32_t* active;
    idx_t firstQuery = 0;
    int count = 0;
    bool asked = false;
    Survivor placed = {0, 0};
    uint32_t place = 0;

    __device__ Survivors(
            const QueryState& ofQueries, Survivor* ofWarp, uint32_t* ofRows)
            : queries(ofQueries), waiting(ofWarp), active(ofRows) {}

    /// Those of rows `row` and row + 8 that the bits tell of.
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
                waiting[count + __popc(who & below)] = {
                        static_cast<uint32_t>(
                                firstLabel + columnOf(c, lane) * step),
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
        count -= these;
        if (lane < these) {
            asked = true;
            placed = waiting[count + lane];
            place = atomicAdd(queries.counts + firstQuery + placed.row, 1u);
        }
        __syncwarp();
    }

    __device__ void settle() {
        // Others may be reading `active`.
        __syncwarp();
        if (asked) {
            asked = false;
            if (place < static_cast<uint32_t>(queries.capacity)) {
                queries.survivors
                        [(firstQuery + placed.row) * queries.capacity + place] =
                        placed.label;
            } else {
                // It ran over: one more or less is all the same.
                active[placed.row] = 0;
            }
        }
        __syncwarp();
    }
};

} // namespace fused
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
