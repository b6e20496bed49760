// Replaces the scans of the exact search: plain loops over result keys.

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>

#include <algorithm>
#include <vector>

#include "ExactFaults.h"
#include "ExactMemory.h"

namespace faiss_ext {
namespace gpu {
namespace exact {

using namespace stand_in;

namespace {

bool takes(const ScanState& scan) {
    return scan.k <= kScanMostResults && scan.d <= kScanMostDimensions;
}

/// Only inside an operation: calls use(label, key) for a query and every
/// step-th vector.
template <typename Use>
void forEachKey(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        idx_t query,
        idx_t step,
        const Use& use) {
    const int d = vectors.d;
    const float* const x = row(scan.x, query, d);
    withStored(vectors, [&](const auto* y) {
        for (idx_t i = 0; i < vectors.n; i += step) {
            const auto label = static_cast<uint32_t>(i);
            use(i,
                resultKey(metric, distanceBy(metric, x, y + i * d, d), label));
        }
    });
}

/// Only inside an operation.
void scanQuery(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        idx_t query,
        bool overflow) {
    uint64_t* const list = row(scan.lists, query, scan.capacity);
    if (scan.listsAll(vectors.n)) {
        forEachKey(metric, vectors, scan, query, 1, [&](idx_t i, uint64_t key) {
            list[i] = key;
        });
        return;
    }
    const uint64_t cut = view(scan.cuts)[query];
    uint32_t& count = view(scan.counts)[query];
    const auto room = static_cast<uint32_t>(scan.capacity);
    forEachKey(metric, vectors, scan, query, 1, [&](idx_t, uint64_t key) {
        if (key <= cut) {
            const uint32_t place = count++;
            if (place < room) {
                list[place] = key;
            }
        }
    });
    if (overflow) {
        count = std::max(count, room + 1);
    }
}

cudaError_t scan(
        const char* name,
        Metric metric,
        const VectorsView& vectors,
        Ranges ranges,
        const ScanState& scan,
        cudaStream_t stream) {
    if (!takes(scan)) {
        return cudaErrorInvalidValue;
    }
    ranges.push_back(readsRows(vectors, {0, vectors.n, 1}));
    ranges.push_back(reads(scan.x, scan.n * scan.d));
    ranges.push_back(writes(scan.lists, scan.n * scan.capacity));
    if (!scan.listsAll(vectors.n)) {
        ranges.push_back(reads(scan.cuts, scan.n));
        ranges.push_back(writes(scan.counts, scan.n));
    }
    const bool overflow = faults().overflow != 0;
    return cuda_sim::launch(name, stream, ranges, [=] {
        for (idx_t query = 0; query < scan.n; ++query) {
            scanQuery(metric, vectors, scan, query, overflow);
        }
    });
}

} // namespace

cudaError_t launchScanCut(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        cudaStream_t stream) {
    if (!takes(scan)) {
        return cudaErrorInvalidValue;
    }
    if (scan.listsAll(vectors.n)) {
        return cudaSuccess;
    }
    return cuda_sim::launch(
            "exactScanCut",
            stream,
            {readsRows(vectors, {0, vectors.n, 1}),
             reads(scan.x, scan.n * scan.d),
             writes(scan.parts, scan.n * kScanParts),
             writes(scan.cuts, scan.n),
             writes(scan.counts, scan.n)},
            [=] {
                const idx_t step = (vectors.n + kScanParts - 1) / kScanParts;
                for (idx_t query = 0; query < scan.n; ++query) {
                    // Parts of one member each.
                    uint64_t* const parts = row(scan.parts, query, kScanParts);
                    std::fill_n(parts, kScanParts, kMissing);
                    forEachKey(
                            metric,
                            vectors,
                            scan,
                            query,
                            step,
                            [&](idx_t i, uint64_t key) {
                                parts[i / step] = key;
                            });
                    std::nth_element(
                            parts, parts + (scan.k - 1), parts + kScanParts);
                    view(scan.cuts)[query] = parts[scan.k - 1];
                    view(scan.counts)[query] = 0;
                }
            });
}

cudaError_t launchScan(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& state,
        cudaStream_t stream) {
    return scan("exactScan", metric, vectors, {}, state, stream);
}

cudaError_t launchTensorScan(
        Metric metric,
        const VectorsView& vectors,
        const Half* copies,
        const IndexState& index,
        const ScanState& state,
        cudaStream_t stream) {
    if (state.listsAll(vectors.n)) {
        return launchScan(metric, vectors, state, stream);
    }
    Ranges ranges{
            reads(index.terms, 1),
            reads(index.centre, vectors.d),
            readsTerms(index, {0, vectors.n, 1})};
    if (copies) {
        ranges.push_back(reads(copies, vectors.n * copyWidth(vectors.d)));
    }
    return scan("exactTensorScan", metric, vectors, ranges, state, stream);
}

cudaError_t launchScanResults(
        Metric metric,
        const VectorsView& vectors,
        const ScanState& scan,
        float* distances,
        idx_t* labels,
        PathCounts* counts,
        cudaStream_t stream) {
    const idx_t n = scan.n;
    const size_t results = n * scan.k;
    const bool all = scan.listsAll(vectors.n);
    Ranges ranges{
            readsRows(vectors, {0, vectors.n, 1}),
            reads(scan.x, n * scan.d),
            reads(scan.lists, n * scan.capacity),
            writes(distances, results),
            writes(labels, results)};
    if (!all) {
        ranges.push_back(reads(scan.counts, n));
    }
    if (counts) {
        ranges.push_back(writes(counts, 1));
    }
    return cuda_sim::launch("exactScanResults", stream, ranges, [=] {
        for (idx_t query = 0; query < n; ++query) {
            const idx_t listed = all ? vectors.n : view(scan.counts)[query];
            const bool ranOver = listed > scan.capacity;
            std::vector<uint64_t> keys;
            if (ranOver) {
                forEachKey(
                        metric,
                        vectors,
                        scan,
                        query,
                        1,
                        [&](idx_t, uint64_t key) { keys.push_back(key); });
            } else {
                const uint64_t* const list =
                        row(scan.lists, query, scan.capacity);
                keys.assign(list, list + listed);
            }
            const std::vector<uint64_t> none(scan.k, kMissing);
            keys = firstOf(none.data(), std::move(keys), scan.k);
            std::transform(
                    keys.begin(),
                    keys.end(),
                    row(distances, query, scan.k),
                    [&](uint64_t key) { return distanceOf(metric, key); });
            std::transform(
                    keys.begin(),
                    keys.end(),
                    row(labels, query, scan.k),
                    labelOf);
            if (counts) {
                ++(ranOver ? view(counts)->last : view(counts)->certified);
            }
        }
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
