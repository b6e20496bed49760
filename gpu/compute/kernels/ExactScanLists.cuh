#pragma once

#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScan.h>

// How the warps of a scan append to the lists of its queries.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Keys that a warp gathers in shared memory before it appends them, many with
/// one atomic operation.
struct GatheredKeys {
    static constexpr int kRoom = 96;

    uint64_t keys[kRoom];
    uint8_t queries[kRoom];
};

/// The keys of one warp, all of whose lanes call its functions together.
class WarpKeys {
   public:
    /// `query` counts from firstQuery.
    __device__ WarpKeys(
            const ScanState& scan, idx_t firstQuery, GatheredKeys& gathered)
            : counts_(scan.counts + firstQuery),
              lists_(scan.lists + firstQuery * scan.capacity),
              capacity_(static_cast<uint32_t>(scan.capacity)),
              gathered_(gathered) {}

    /// Those of lanes where `passes`.
    __device__ void add(bool passes, uint64_t key, int query) {
        const unsigned passing = __ballot_sync(kWholeWarp, passes);
        if (passing == 0) {
            return;
        }
        if (passes) {
            const unsigned before = passing & ((1u << threadIdx.x % 32) - 1);
            const int place = found_ + __popc(before);
            gathered_.keys[place] = key;
            gathered_.queries[place] = static_cast<uint8_t>(query);
        }
        found_ += __popc(passing);
        if (found_ > GatheredKeys::kRoom - 32) {
            append();
        }
    }

    /// At last.
    __device__ void append() {
        const int lane = threadIdx.x % 32;
        __syncwarp();
        for (int base = 0; base < found_; base += 32) {
            const int i = base + lane;
            const bool has = i < found_;
            const uint32_t query = has ? gathered_.queries[i] : 0xff;
            const unsigned same = __match_any_sync(kWholeWarp, query);
            const int leader = __ffs(same) - 1;
            uint32_t place = 0;
            if (has && lane == leader) {
                place = atomicAdd(counts_ + query, uint32_t(__popc(same)));
            }
            place = __shfl_sync(kWholeWarp, place, leader) +
                    __popc(same & ((1u << lane) - 1));
            if (has && place < capacity_) {
                lists_[size_t(query) * capacity_ + place] = gathered_.keys[i];
            }
        }
        __syncwarp();
        found_ = 0;
    }

   private:
    uint32_t* const counts_;
    uint64_t* const lists_;
    const uint32_t capacity_;
    GatheredKeys& gathered_;
    int found_ = 0;
};

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
