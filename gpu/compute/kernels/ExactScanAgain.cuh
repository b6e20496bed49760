#pragma once

#include <faiss_ext/gpu/compute/kernels/ExactLimit.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScan.cuh>
#include <faiss_ext/gpu/compute/kernels/ExactScanLists.cuh>

// How all blocks of a kernel make the lists again that ran over. No block waits
// for one that may not run yet: of what there is to do each takes pieces, and
// waits only for those that others have taken.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// What another block may just have written.
__device__ inline uint32_t readNow(const uint32_t* value) {
    return *static_cast<const volatile uint32_t*>(value);
}

/// What a block needs in shared memory to make lists again.
template <int Threads>
struct AgainScratch {
    GatheredKeys gathered[Threads / 32];
    uint32_t piece;
    uint32_t last;
};

/// Lists that ran over, as one block sees them; all its threads call these
/// functions together.
template <typename Stored, bool aligned, int Threads>
class ScanRounds {
   public:
    __device__ ScanRounds(
            Metric metric,
            const Stored* data,
            idx_t count,
            const ScanState& scan,
            bool wholeLoads,
            LimitScratch<Threads>& limits,
            AgainScratch<Threads>& scratch)
            : metric_(metric),
              data_(data),
              count_(count),
              scan_(scan),
              wholeLoads_(wholeLoads),
              limits_(limits),
              scratch_(scratch) {}

    /// Until all these queries are done: finish(query, listed) is called in one
    /// block for each, whose list then has all its keys, or ran over still.
    template <typename Finish>
    __device__ void run(Finish&& finish) {
        bool more = true;
        for (uint32_t round = 0; more; ++round) {
            more = false;
            for (idx_t i = 0; i < scan_.n; ++i) {
                // Each block begins with another query.
                const idx_t query = (blockIdx.x + i) % scan_.n;
                if (scan_.counts[query] > uint32_t(scan_.capacity)) {
                    more |= takePart(query, round, finish);
                }
            }
        }
    }

   private:
    /// Rows that a block compares at once, and those of a piece.
    static constexpr int kRows = Threads / 4;
    static constexpr int kPieceRows = 8 * kRows;

    /// In a round of a query; whether there was one.
    template <typename Finish>
    __device__ bool takePart(idx_t query, uint32_t round, Finish& finish) {
        ScanAgain& again = scan_.again[query];
        if (round == 0) {
            if (threadIdx.x == 0) {
                scratch_.last = atomicAdd(&again.taken, 1u) == 0;
            }
            __syncthreads();
            if (scratch_.last) {
                begin(query, 0);
            }
        }
        if (threadIdx.x == 0) {
            uint32_t begun = readNow(&again.begun);
            while (begun <= round) {
                pause();
                begun = readNow(&again.begun);
            }
            __threadfence();
            scratch_.piece =
                    begun == ScanAgain::kOver
                            ? ScanAgain::kOver
                            : atomicAdd(&again.rounds[round].taken, 1u);
        }
        __syncthreads();
        if (scratch_.piece == ScanAgain::kOver) {
            __syncthreads();
            return false;
        }
        comparePieces(query, round, finish);
        return true;
    }

    __device__ static void pause() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 700
        __nanosleep(100);
#endif
    }

    /// The k-th best of the sample that a list has is the next cut.
    __device__ void begin(idx_t query, uint32_t round) {
        const uint64_t* const list = scan_.lists + query * scan_.capacity;
        const auto forEach = [&](auto&& take) {
            for (int i = threadIdx.x; i < scan_.capacity; i += Threads) {
                take(__ldcg(list + i));
            }
        };
        const KeyRange range = rangeOfKeys(limits_, forEach);
        const uint32_t k = static_cast<uint32_t>(scan_.k);
        uint64_t cut = limitOfKeys(limits_, range, k, k, forEach);
        cut = cut < range.largest ? cut : range.largest;
        __syncthreads();
        if (threadIdx.x == 0) {
            ScanAgain& again = scan_.again[query];
            again.rounds[round].cut = cut;
            __threadfence();
            atomicExch(&again.begun, round + 1);
        }
    }

    /// As many pieces as there are left for this block, the first of which it
    /// has taken; and the end of the round, if it is the last to be done.
    template <typename Finish>
    __device__ void comparePieces(idx_t query, uint32_t round, Finish& finish) {
        ScanAgain& again = scan_.again[query];
        ScanAgain::Round& state = again.rounds[round];
        const uint64_t cut = __ldcg(&state.cut);
        const uint32_t pieces =
                static_cast<uint32_t>((count_ + kPieceRows - 1) / kPieceRows);
        WarpKeys keys = {
                &state.count,
                scan_.lists + query * scan_.capacity,
                scan_.capacity,
                0,
                scratch_.gathered[threadIdx.x / 32]};
        uint32_t compared = 0;
        for (;;) {
            const uint32_t piece = scratch_.piece;
            __syncthreads();
            if (piece >= pieces) {
                break;
            }
            if (threadIdx.x == 0) {
                scratch_.piece = atomicAdd(&state.taken, 1u);
            }
            comparePiece(query, piece, cut, keys);
            ++compared;
            __syncthreads();
        }
        keys.append();
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            scratch_.last =
                    compared > 0 &&
                    atomicAdd(&state.done, compared) + compared == pieces;
            __threadfence();
        }
        __syncthreads();
        if (!scratch_.last) {
            __syncthreads();
            return;
        }
        const uint32_t found = readNow(&state.count);
        if (found > uint32_t(scan_.capacity) && round + 1 < kScanRounds) {
            begin(query, round + 1);
            return;
        }
        finish(query, found);
        __syncthreads();
        if (threadIdx.x == 0) {
            atomicExch(&again.begun, ScanAgain::kOver);
        }
    }

    __device__ void comparePiece(
            idx_t query, uint32_t piece, uint64_t cut, WarpKeys& keys) {
        const ScanLane lane;
        const idx_t begin = idx_t(piece) * kPieceRows;
        const idx_t end =
                begin + kPieceRows < count_ ? begin + kPieceRows : count_;
        for (idx_t first = begin; first < end; first += kRows) {
            const idx_t row = first + threadIdx.x / 32 * 8 + lane.vector;
            const float loss = lossOfPair<aligned>(
                    metric_,
                    scan_.x + query * scan_.d,
                    wholeLoads_,
                    data_ + (row < end ? row : end - 1) * scan_.d,
                    scan_.d,
                    lane.group);
            const uint64_t key = keyOfLoss(loss, static_cast<uint32_t>(row));
            keys.add(
                    key <= cut && key != kMissing && row < end &&
                            lane.group == 0,
                    key,
                    0);
            keys.makeRoom<1>();
        }
    }

    const Metric metric_;
    const Stored* const data_;
    const idx_t count_;
    const ScanState& scan_;
    const bool wholeLoads_;
    LimitScratch<Threads>& limits_;
    AgainScratch<Threads>& scratch_;
};

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
