#pragma once

#include <faiss_ext/gpu/compute/kernels/ExactScan.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

// How the warps of a scan append to the lists of its queries.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Keys that a warp gathers in shared memory before it appends them, many with
/// one atomic operation.
struct GatheredKeys {
    static constexpr int kRoom = 160;

    uint64_t keys[kRoom];
    uint8_t queries[kRoom];
};

/// Where in a full list the key goes that is found after `before` others, as a
/// random number of 0 to `before`: not at all where that is beyond the list.
/// What remains of all that were found is a fair sample, whatever their order.
__device__ inline uint32_t placeInFullList(uint32_t before) {
    uint32_t hash = before * 0x9e3779b1u;
    hash ^= hash >> 15;
    hash *= 0x85ebca77u;
    return __umulhi(hash, before + 1);
}

/// The keys of one warp, all of whose lanes call its functions together.
class WarpKeys {
   public:
    /// counts [..] and lists [.., capacity]; queries of add() count from
    /// firstQuery. (As they are given, these take no registers of a kernel
    /// whose parameters they are.)
    __device__ WarpKeys(
            uint32_t* counts,
            uint64_t* lists,
            int capacity,
            uint32_t firstQuery,
            GatheredKeys& gathered)
            : counts_(counts),
              lists_(lists),
              capacity_(static_cast<uint32_t>(capacity)),
              firstQuery_(firstQuery),
              gathered_(gathered) {}

    /// Appends what there is, unless there is room for so many calls of add().
    template <int Calls>
    __device__ void makeRoom() {
        static_assert(32 * Calls < GatheredKeys::kRoom, "or they never have");
        if (found_ > GatheredKeys::kRoom - 32 * Calls) {
            append();
        }
    }

    /// Those of lanes where `passes`. There must be room.
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
                place = atomicAdd(
                        counts_ + firstQuery_ + query, uint32_t(__popc(same)));
            }
            place = __shfl_sync(kWholeWarp, place, leader) +
                    __popc(same & ((1u << lane) - 1));
            if (has && place >= capacity_) {
                place = placeInFullList(place);
            }
            if (has && place < capacity_) {
                lists_[size_t(firstQuery_ + query) * capacity_ + place] =
                        gathered_.keys[i];
            }
        }
        __syncwarp();
        found_ = 0;
    }

   private:
    uint32_t* const counts_;
    uint64_t* const lists_;
    const uint32_t capacity_;
    const uint32_t firstQuery_;
    GatheredKeys& gathered_;
    int found_ = 0;
};

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
