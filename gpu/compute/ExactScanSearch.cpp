#include <faiss_ext/gpu/compute/ExactScanSearch.h>

#include <algorithm>
#include <optional>
#include <string>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/compute/ArrayPlaces.h>
#include <faiss_ext/gpu/compute/ExactWork.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/kernels/ExactScan.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>

namespace faiss_ext {
namespace gpu {

namespace {

using exact::ScanState;
using exact::ScanWay;

ScanWay wayOf(const ExactSearch& search, const QueryRows& queries) {
    const idx_t n = queries.n;
    const int d = search.vectors.d;
    const int k = queries.k;
    const bool float16 = search.vectors.float16;
    switch (search.most.way) {
        case ExactWay::Best:
            return exact::scanBest(
                    search.metric, search.vectors.n, n, d, k, float16);
        case ExactWay::TensorScan:
            if (exact::tensorScanServes(n, d, k, float16)) {
                return ScanWay::Tensor;
            }
            [[fallthrough]];
        case ExactWay::Scan:
            return exact::scanServes(n, d, k) ? ScanWay::Plain : ScanWay::None;
        default:
            return ScanWay::None;
    }
}

/// Of a list: no more than all vectors, rounded up to be even.
int capacityOf(const ExactSearch& search, const QueryRows& queries) {
    const int usual = search.most.survivors > 0
                              ? search.most.survivors
                              : exact::scanCapacity(queries.k);
    const idx_t all = roundUp<idx_t>(search.vectors.n, 2);
    return static_cast<int>(std::max<idx_t>(
            std::min<idx_t>(usual, all), roundUp(queries.k, 2)));
}

/// Where the parts of a scan's scratch memory begin.
struct ScanPlaces {
    ScanPlaces(const ExactSearch& search, const QueryRows& queries)
            : capacity(capacityOf(search, queries)) {
        const size_t n = queries.n;
        // Where lists have room for all vectors there is no cut.
        const bool all = search.vectors.n <= capacity;
        parts = places_.take<uint64_t>(all ? 0 : n * exact::kScanParts);
        cuts = places_.take<uint64_t>(all ? 0 : n);
        counts = places_.take<uint32_t>(all ? 0 : n);
        again = places_.take<exact::ScanAgain>(all ? 0 : n);
        lists = places_.take<uint64_t>(n * capacity);
    }

    size_t bytes() const {
        return places_.bytes();
    }

    const int capacity;
    size_t parts;
    size_t cuts;
    size_t counts;
    size_t lists;
    size_t again;

   private:
    ArrayPlaces places_;
};

/// For people.
std::string textOf(
        const ExactSearch& search,
        const QueryRows& queries,
        bool byTensorCores,
        const ScanPlaces& at) {
    const auto number = [](auto value) { return std::to_string(value); };
    const bool all = search.vectors.n <= at.capacity;
    return number(queries.n) + " queries by a scan of " +
           number(search.vectors.n) + " vectors" +
           (byTensorCores ? " by tensor cores" : "") + ", lists of " +
           number(at.capacity) +
           (all ? ", which have room for all" : ", first cut by a sample") +
           "; " + number(at.bytes()) + " bytes of scratch memory";
}

ScanState stateIn(
        char* scratch,
        const ScanPlaces& at,
        const ExactSearch& search,
        const QueryRows& queries) {
    ScanState scan;
    scan.n = queries.n;
    scan.d = search.vectors.d;
    scan.k = queries.k;
    scan.capacity = at.capacity;
    scan.x = static_cast<const float*>(queries.x);
    scan.parts = reinterpret_cast<uint64_t*>(scratch + at.parts);
    scan.cuts = reinterpret_cast<uint64_t*>(scratch + at.cuts);
    scan.counts = reinterpret_cast<uint32_t*>(scratch + at.counts);
    scan.lists = reinterpret_cast<uint64_t*>(scratch + at.lists);
    scan.again = reinterpret_cast<exact::ScanAgain*>(scratch + at.again);
    return scan;
}

/// False where neither Faiss' temporary memory has as much, nor the least that
/// is allocated beside it is as much, or the GPU or pool is full.
bool takeScratch(
        const ExactSearch& search,
        size_t bytes,
        cudaStream_t stream,
        std::optional<ScratchMemory>& scratch) {
    const size_t free = search.resources.getTempMemoryAvailable(search.device);
    if (ScratchMemory::bytesOf(bytes) >
        std::max(free, tuning::kExactLeastBytes)) {
        return false;
    }
    try {
        scratch.emplace(
                search.resources, search.device, bytes, search.counters);
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, stream);
        return false;
    }
    return true;
}

} // namespace

bool scanIsBest(const ExactSearch& search, const QueryRows& queries) {
    return wayOf(search, queries) != ScanWay::None;
}

bool enqueueScan(
        const ExactSearch& search,
        const QueryRows& queries,
        const SearchResults& results,
        exact::PathCounts* counts,
        const ComputeContext& context) {
    const cudaStream_t stream = context.stream;
    StageRecorder* const recorder = context.recorder;
    const ScanPlaces places(search, queries);
    std::optional<ScratchMemory> scratch;
    if (!takeScratch(search, places.bytes(), stream, scratch)) {
        return false;
    }
    const ScanState scan = stateIn(scratch->data(), places, search, queries);
    const bool byTensorCores = wayOf(search, queries) == ScanWay::Tensor;
    if (recorder) {
        recorder->computedBy(textOf(search, queries, byTensorCores, places));
    }
    std::optional<ScratchMemory> temporaryState;
    exact::IndexState index{};
    if (byTensorCores) {
        index = search.kept.stateOf(
                search.vectors,
                search.metric,
                search.arithmetic,
                search.changes,
                temporaryState,
                recorder);
    }
    FAISS_EXT_CUDA_TRY(
            exact::launchScanCut(search.metric, search.vectors, scan, stream));
    endPart(recorder, {"scan cut"}, stream);
    if (byTensorCores) {
        FAISS_EXT_CUDA_TRY(exact::launchTensorScan(
                search.metric, search.vectors, nullptr, index, scan, stream));
        endPart(recorder,
                {"tensor scan", exact::tensorScanWork(search.vectors, scan.n)},
                stream);
    } else {
        FAISS_EXT_CUDA_TRY(
                exact::launchScan(search.metric, search.vectors, scan, stream));
        endPart(recorder,
                {"scan",
                 exact::scanWork(search.metric, search.vectors, scan.n)},
                stream);
    }
    FAISS_EXT_CUDA_TRY(exact::launchScanResults(
            search.metric,
            search.vectors,
            scan,
            results.distances,
            results.labels,
            counts,
            stream));
    endPart(recorder,
            {"scan results", exact::writeResultsWork(scan.n, scan.k)},
            stream);
    scratch->waitUnlessInterrupted();
    if (temporaryState) {
        temporaryState->waitUnlessInterrupted();
    }
    return true;
}

} // namespace gpu
} // namespace faiss_ext
