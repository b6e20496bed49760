#include <faiss_ext/gpu/compute/ExactSearcher.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include <faiss_ext/gpu/compute/BlasStream.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/SearchChoice.h>
#include <faiss_ext/gpu/compute/kernels/FillMissing.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

namespace {

using exact::FilterPass;
using exact::Half;
using exact::Metric;
using exact::VectorRows;

/// A float16 store without padding is its own copy: it has neither centre nor
/// scale.
bool ownCopies(const VectorsView& vectors) {
    return vectors.float16 && exact::copyWidth(vectors.d) == vectors.d;
}

/// Whether docs/exact-search.md has a bound for the scores of so many
/// dimensions.
bool bounded(const exact::TensorArithmetic& arithmetic, int d) {
    constexpr int kMostDimensions = 65536;
    return d <= kMostDimensions &&
           std::isfinite(exact::accumulationError(arithmetic, d));
}

float distanceOfNone(Metric metric) {
    return exact::distanceOf(metric, exact::missingLoss());
}

/// The kernels of one tile of queries, in their order.
class TileSearch {
   public:
    TileSearch(
            const ExactSearch& search,
            const exact::IndexState& index,
            const ExactPlan& plan,
            char* scratch,
            InterruptClock& interrupts,
            cudaStream_t stream,
            const QueryRows& queries)
            : search_(search),
              index_(index),
              plan_(plan),
              interrupts_(interrupts),
              stream_(stream),
              width_(exact::copyWidth(search.vectors.d)),
              copies_(at<Half>(scratch, plan.at.vectorCopies)),
              scores_(at<float>(scratch, plan.at.scores)) {
        queries_.n = queries.n;
        queries_.d = search.vectors.d;
        queries_.k = queries.k;
        queries_.capacity = plan.survivors;
        queries_.x = static_cast<const float*>(queries.x);
        queries_.copies = at<Half>(scratch, plan.at.copies);
        queries_.terms = at<exact::QueryTerms>(scratch, plan.at.terms);
        queries_.cut = at<float>(scratch, plan.at.cut);
        queries_.leastCut = at<float>(scratch, plan.at.leastCut);
        queries_.best = at<uint64_t>(scratch, plan.at.best);
        queries_.survivors = at<uint32_t>(scratch, plan.at.survivors);
        queries_.counts = at<uint32_t>(scratch, plan.at.counts);
        queries_.paths = at<exact::QueryPath>(scratch, plan.at.paths);
        queries_.last = at<uint32_t>(scratch, plan.at.last);
        queries_.lastCount = at<uint32_t>(scratch, plan.at.lastCount);
    }

    /// `counts`: null where they cannot be counted.
    void enqueue(const SearchResults& results, exact::PathCounts* counts) {
        FAISS_EXT_CUDA_TRY(exact::launchPrepareQueries(
                index_, queries_, plan_.scanAll, stream_));
        if (!plan_.scanAll) {
            filter();
        }
        compareLast();
        FAISS_EXT_CUDA_TRY(exact::launchWriteResults(
                search_.metric,
                queries_,
                results.distances,
                results.labels,
                counts,
                stream_));
    }

   private:
    template <typename T>
    static T* at(char* scratch, size_t place) {
        return reinterpret_cast<T*>(scratch + place);
    }

    void filter() {
        for (idx_t number = 0; number < plan_.chunks; ++number) {
            interrupts_.ask();
            const VectorRows rows = plan_.chunk(number);
            score(rows);
            if (number == 0) {
                FAISS_EXT_CUDA_TRY(exact::launchSampleCut(
                        rows, index_, queries_, scores_, plan_.ld(), stream_));
            }
            for (FilterPass pass : {FilterPass::First, FilterPass::Again}) {
                FAISS_EXT_CUDA_TRY(exact::launchFilter(
                        pass,
                        rows,
                        index_,
                        queries_,
                        scores_,
                        plan_.ld(),
                        stream_));
                FAISS_EXT_CUDA_TRY(exact::launchSelect(
                        pass, search_.vectors, index_, queries_, stream_));
            }
        }
    }

    void score(const VectorRows& rows) {
        const Copies copies = copiesOf(rows);
        // Anew for each: others, whom an interrupt may call, leave it as they
        // like.
        const cublasHandle_t blas =
                blasOn(search_.resources, search_.device, stream_);
        checkBlas(
                exact::launchScores(
                        blas,
                        queries_.copies,
                        queries_.n,
                        copies.first,
                        copies.step * width_,
                        rows.count,
                        width_,
                        scores_,
                        plan_.ld()),
                "scores",
                stream_);
    }

    /// Every step-th row from the first one on.
    struct Copies {
        const Half* first;
        idx_t step;
    };

    Copies copiesOf(const VectorRows& rows) {
        if (ownCopies(search_.vectors)) {
            return {static_cast<const Half*>(search_.vectors.data) +
                            rows.first * width_,
                    rows.step};
        }
        FAISS_EXT_CUDA_TRY(exact::launchCopyVectors(
                search_.vectors, rows, index_, copies_, stream_));
        return {copies_, 1};
    }

    /// Queries without a certificate; these kernels do nothing where there are
    /// none.
    void compareLast() {
        FAISS_EXT_CUDA_TRY(exact::launchCollectLast(queries_, stream_));
        for (idx_t number = 0; number < plan_.chunks; ++number) {
            interrupts_.ask();
            const VectorRows rows = plan_.chunk(number);
            FAISS_EXT_CUDA_TRY(exact::launchLosses(
                    search_.vectors,
                    rows,
                    index_,
                    queries_,
                    scores_,
                    plan_.ld(),
                    stream_));
            FAISS_EXT_CUDA_TRY(exact::launchSelectLosses(
                    rows, queries_, scores_, plan_.ld(), stream_));
        }
    }

    const ExactSearch& search_;
    const exact::IndexState& index_;
    const ExactPlan& plan_;
    InterruptClock& interrupts_;
    const cudaStream_t stream_;
    const int width_;
    exact::QueryState queries_;
    Half* const copies_;
    float* const scores_;
};

} // namespace

ComputeNeeds ExactSearcher::needs(idx_t, int) const {
    ComputeNeeds needs;
    needs.rowOperations =
            search_.vectors.n * (tuning::kExactOperations * search_.vectors.d +
                                 tuning::kExactVectorOperations);
    // One kernel writes them, each value in full.
    needs.storesToPinned = true;
    return needs;
}

const char* ExactSearcher::searchedBy() const {
    return searched_by::kExact;
}

void ExactSearcher::enqueue(
        const ComputeContext& context,
        const QueryRows& queries,
        const SearchResults& results) {
    const VectorsView& vectors = search_.vectors;
    if (vectors.n == 0) {
        FAISS_EXT_CUDA_TRY(launchFillMissing(
                results.distances,
                results.labels,
                queries.n * queries.k,
                distanceOfNone(search_.metric),
                context.stream));
        return;
    }
    faiss::gpu::GpuResources& resources = search_.resources;
    // First, since to pin memory may wait for what is enqueued.
    exact::PathCounts* const counts = search_.kept.paths().forKernels();
    std::optional<ScratchMemory> temporaryState;
    const exact::IndexState index = search_.kept.stateOf(
            vectors,
            search_.metric,
            search_.arithmetic,
            search_.changes,
            temporaryState);
    const ExactShape shape{
            queries.n,
            vectors.n,
            vectors.d,
            queries.k,
            ownCopies(vectors),
            bounded(search_.arithmetic, vectors.d)};
    ExactPlan plan;
    std::optional<ScratchMemory> scratch;
    const auto takeWithin = [&](size_t bytes) {
        plan = planExact(
                shape,
                search_.most,
                bytes - std::min(bytes, ScratchMemory::bytesOf(0)));
        scratch.emplace(
                resources, search_.device, plan.bytes, search_.counters);
    };
    const size_t free = resources.getTempMemoryAvailable(search_.device);
    try {
        takeWithin(std::max(free, tuning::kExactLeastBytes));
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, context.stream);
        // A pool may have less than it may be planned with.
        const size_t less = std::min(free, tuning::kExactLeastBytes);
        if (plan.bytes <= less) {
            throw;
        }
        takeWithin(less);
    }
    InterruptClock interrupts;
    for (idx_t first = 0; first < queries.n; first += plan.queries) {
        TileSearch(
                search_,
                index,
                plan,
                scratch->data(),
                interrupts,
                context.stream,
                {std::min(plan.queries, queries.n - first),
                 static_cast<const float*>(queries.x) + first * vectors.d,
                 queries.k})
                .enqueue(
                        {results.distances + first * queries.k,
                         results.labels + first * queries.k},
                        counts);
    }
    scratch->waitUnlessInterrupted();
    if (temporaryState) {
        temporaryState->waitUnlessInterrupted();
    }
}

} // namespace gpu
} // namespace faiss_ext
