#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/exact/ExactArithmetic.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>

// A scan: few queries, and every vector is read once and compared by D, which
// needs neither scores in memory nor a certificate. launchScanCut, one of
// launchScan and launchTensorScan, launchScanResults, in this order.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Of a sample of the vectors each part gives its nearest one.
constexpr idx_t kScanParts = 8192;
constexpr int kScanMostResults = 2048;
/// What grids of blocks have room for.
constexpr idx_t kScanMostQueries = 65535;
/// So that copies of four queries fit into shared memory.
constexpr int kScanMostDimensions = 8192;
/// So that half-precision copies of 64 queries do.
constexpr int kTensorScanMostDimensions = 1024;

/// How often a list that ran over is made again.
constexpr uint32_t kScanRounds = 4;

/// How such a list is made again. Zeros at first.
struct ScanAgain {
    struct Round {
        /// Not above which keys must be.
        uint64_t cut;
        /// Pieces of the store that blocks have taken, and that they have done.
        uint32_t taken;
        uint32_t done;
        /// Keys found, above the capacity if the list ran over once more.
        uint32_t count;
    };
    Round rounds[kScanRounds];
    /// Rounds that have begun, or kOver.
    uint32_t begun;
    /// Whether a block has taken the beginning of the first.
    uint32_t taken;

    static constexpr uint32_t kOver = ~uint32_t(0);
};

/// What a scan of n queries works on.
struct ScanState {
    idx_t n;
    int d;
    int k;
    /// Of a list; k <= capacity.
    int capacity;
    const float* x;   // [n, d]
    uint64_t* parts;  // [n, kScanParts]: result keys of a sample
    uint64_t* cuts;   // [n]: the k-th result key is not above it
    uint32_t* counts; // [n]: keys found, above `capacity` if a list ran over
    uint64_t* lists;  // [n, capacity]: result keys, in no order
    ScanAgain* again; // [n]

    /// Where a list has room for all vectors it has all: no cut is needed.
    FAISS_EXT_HOST_DEVICE bool listsAll(idx_t vectors) const {
        return vectors <= capacity;
    }
};

/// Enough for what usually passes the cut, several times over; even, so that
/// lists are aligned. A list that ran over is made again from the k-th best of
/// so many: then it is 24 times shorter, or more.
FAISS_EXT_HOST_DEVICE constexpr int scanCapacity(int k) {
    return 24 * k + 8192 > 32768 ? 24 * k + 8192 : 32768;
}

/// Whether launchScanCut, launchScan and launchScanResults can search so.
FAISS_EXT_HOST_DEVICE constexpr bool scanServes(idx_t n, int d, int k) {
    return n >= 1 && n <= kScanMostQueries && d >= 1 &&
           d <= kScanMostDimensions && k >= 1 && k <= kScanMostResults;
}

/// Whether launchTensorScan can, in place of launchScan. `float16`: the store
/// is, and no copies are given: rows are read by whole loads. (And the
/// arithmetic of tensor cores must be known for d, which the caller knows.)
FAISS_EXT_HOST_DEVICE constexpr bool tensorScanServes(
        idx_t n, int d, int k, bool float16) {
    return scanServes(n, d, k) && d <= kTensorScanMostDimensions &&
           d % (float16 ? 8 : 4) == 0;
}

/// Ways to search.
enum class ScanWay {
    /// By filters, or however else.
    None,
    /// By launchScan.
    Plain,
    /// By launchTensorScan.
    Tensor,
};

/// The fastest of them, as far as measured, without copies; times are of whole
/// searches of 1M x 128 on an H200 for k 1, 10, 100 and 1000, in microseconds.
FAISS_EXT_HOST_DEVICE constexpr ScanWay scanBest(
        Metric metric, idx_t vectors, idx_t n, int d, int k, bool float16) {
    // Of many dimensions operations are a smaller part.
    constexpr int kManyDimensions = 256;
    // Lists that have all: 10,000 x 128, n 64: 90, 100, 102, 110.
    constexpr idx_t kMostOfAll = 64;
    // n 32: 206, 214, 234, 352 by tensor cores; filters: 409, 413, 423, 484.
    // n 64: 260, 305, 397, 578; filters of n 128: 393, 464, 481, 511.
    constexpr idx_t kMostTensor = 64;
    constexpr idx_t kMostTensorOfMany = 48;
    constexpr int kManyResults = 256;
    // n 4: 146, 147, 157, 182, by tensor cores 164, 169, 173, 207; n 5: 192,
    // 196, 203, 229, by tensor cores 160, 169, 180, 211.
    constexpr idx_t kMostPlain = 4;
    // Inner products are half the operations of L2: n 8: 173, 178, 184, 212; by
    // tensor cores 169, 172, 181, 213. 1M x 512, L2, n 8: 635, 640, 655, 708,
    // by tensor cores 595, 619, 653, 741.
    constexpr idx_t kMostPlainOfFew = 8;
    // float16: n 1, 92, 96, 102, 122; by tensor cores 84, 89, 95, 115.
    constexpr idx_t kMostPlainHalf = 0;

    if (!scanServes(n, d, k)) {
        return ScanWay::None;
    }
    if (vectors <= scanCapacity(k)) {
        return n <= kMostOfAll ? ScanWay::Plain : ScanWay::None;
    }
    const bool few = metric == Metric::InnerProduct || d >= kManyDimensions;
    const idx_t mostPlain = float16 ? kMostPlainHalf
                            : few   ? kMostPlainOfFew
                                    : kMostPlain;
    const idx_t mostTensor = k > kManyResults && d < kManyDimensions
                                     ? kMostTensorOfMany
                                     : kMostTensor;
    if (n > mostPlain && n <= mostTensor &&
        tensorScanServes(n, d, k, float16)) {
        return ScanWay::Tensor;
    }
    return n <= kMostPlainOfFew ? ScanWay::Plain : ScanWay::None;
}

/// Cuts that k vectors of a sample meet, and zeros in `counts` and `again`.
/// (Nothing where lists have all.)
FAISS_EXT_API cudaError_t launchScanCut(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        cudaStream_t stream);

/// Appends the result keys that are not above their query's cut, and counts
/// them. Of a list that runs over a fair sample remains. Where lists have all:
/// the key of vector i at place i. cudaErrorInvalidValue: see scanServes().
FAISS_EXT_API cudaError_t launchScan(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        cudaStream_t stream);

/// The same, by tensor cores: faster for more than a few queries. They rule out
/// most pairs, and D is computed of the others. `copies` [vectors.n,
/// copyWidth(d)] are read instead of the vectors, or nullptr. Of `state` the
/// terms, the centre and the vectors' terms are read. cudaErrorInvalidValue:
/// see tensorScanServes(); or the vectors do not begin at a multiple of 16
/// bytes.
FAISS_EXT_API cudaError_t launchTensorScan(
        Metric metric,
        const VectorsView& vectors,
        const Half* copies,
        const IndexState& state,
        const ScanState& scan,
        cudaStream_t stream);

/// Distances and labels [n, k] of the k least keys of each list, and adds to
/// `counts`, if there are any: certified. These three may be pinned host
/// memory.
///
/// Where lists ran over, all blocks compare these queries with every vector
/// once more, for keys not above the k-th of the sample that the list has, and
/// again while it still runs over: counted as widened. After several such
/// rounds, for which there must be hardly more room than for k, one block alone
/// makes the result, slowly: counted as last.
FAISS_EXT_API cudaError_t launchScanResults(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        float* distances,
        idx_t* labels,
        PathCounts* counts,
        cudaStream_t stream);

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
