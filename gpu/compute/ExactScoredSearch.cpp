#include <faiss_ext/gpu/compute/ExactScoredSearch.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include <faiss_ext/gpu/compute/BlasStream.h>
#include <faiss_ext/gpu/compute/ExactPlan.h>
#include <faiss_ext/gpu/compute/ExactWork.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/kernels/ExactFusedFilter.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

namespace {

using exact::FilterPass;
using exact::Half;
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

VectorRows allOf(const VectorsView& vectors) {
    return {0, vectors.n, 1};
}

/// What the tiles of one search share.
struct Scored {
    const ExactSearch& search;
    const exact::IndexState& index;
    const ExactPlan& plan;
    char* scratch;
    InterruptClock& interrupts;
    cudaStream_t stream;
    StageRecorder* recorder;

    template <typename T>
    T* at(size_t place) const {
        return reinterpret_cast<T*>(scratch + place);
    }

    /// What was enqueued since the former one is a stage of this name.
    void ends(const ComputePart& stage) const {
        endPart(recorder, stage, stream);
    }
};

/// Half-precision copies of the vectors: the store, all of them in scratch
/// memory, or those of the rows that are asked for.
class VectorCopies {
   public:
    explicit VectorCopies(const Scored& scored)
            : scored_(scored),
              width_(exact::copyWidth(scored.search.vectors.d)),
              all_(ownCopies(scored.search.vectors)
                           ? static_cast<const Half*>(
                                     scored.search.vectors.data)
                           : nullptr),
              scratch_(scored.at<Half>(scored.plan.at.vectorCopies)) {
        if (scored.plan.wholeCopies) {
            copy(allOf(scored.search.vectors), nullptr);
            all_ = scratch_;
        }
    }

    struct Rows {
        const Half* first;
        /// Components from one to the next.
        idx_t stride;
    };

    /// Valid until the next call. `neededBy`: as launchCopyVectors.
    Rows of(const VectorRows& rows, const uint32_t* neededBy = nullptr) const {
        if (all_) {
            return {all_ + rows.first * width_, rows.step * width_};
        }
        copy(rows, neededBy);
        return {scratch_, width_};
    }

   private:
    void copy(const VectorRows& rows, const uint32_t* neededBy) const {
        FAISS_EXT_CUDA_TRY(exact::launchCopyVectors(
                scored_.search.vectors,
                rows,
                scored_.index,
                scratch_,
                neededBy,
                scored_.stream));
        // (What may copy nothing is a part of the filter that needs it.)
        if (!neededBy) {
            scored_.ends(
                    {"copy vectors",
                     exact::copyWork(scored_.search.vectors, rows.count)});
        }
    }

    const Scored& scored_;
    const int width_;
    const Half* all_;
    Half* const scratch_;
};

/// The kernels of one tile of queries, in their order.
class TileSearch {
   public:
    TileSearch(
            const Scored& scored,
            const VectorCopies& copies,
            const QueryRows& queries)
            : scored_(scored),
              search_(scored.search),
              plan_(scored.plan),
              stream_(scored.stream),
              copies_(copies),
              scores_(scored.at<float>(plan_.at.scores)) {
        queries_.n = queries.n;
        queries_.d = search_.vectors.d;
        queries_.k = queries.k;
        queries_.capacity = plan_.survivors;
        queries_.x = static_cast<const float*>(queries.x);
        queries_.copies = scored.at<Half>(plan_.at.copies);
        queries_.terms = scored.at<exact::QueryTerms>(plan_.at.terms);
        queries_.cut = scored.at<float>(plan_.at.cut);
        queries_.leastCut = scored.at<float>(plan_.at.leastCut);
        queries_.best = scored.at<uint64_t>(plan_.at.best);
        queries_.survivors = scored.at<uint32_t>(plan_.at.survivors);
        queries_.counts = scored.at<uint32_t>(plan_.at.counts);
        queries_.paths = scored.at<exact::QueryPath>(plan_.at.paths);
        queries_.last = scored.at<uint32_t>(plan_.at.last);
        queries_.lastCount = scored.at<uint32_t>(plan_.at.lastCount);
        queries_.againCount = scored.at<uint32_t>(plan_.at.againCount);
        queries_.widenedCount = scored.at<uint32_t>(plan_.at.widenedCount);
        queries_.rank = plan_.sampleRank;
    }

    /// `counts`: null where they cannot be counted.
    void enqueue(const SearchResults& results, exact::PathCounts* counts) {
        FAISS_EXT_CUDA_TRY(exact::launchPrepareQueries(
                scored_.index, queries_, plan_.scanAll, stream_));
        scored_.ends({"prepare queries", exact::prepareQueriesWork(queries_)});
        if (!plan_.scanAll) {
            guessCuts();
            filter();
        }
        if (!plan_.again.empty()) {
            filterAgain();
        }
        compareLast();
        FAISS_EXT_CUDA_TRY(exact::launchWriteResults(
                search_.metric,
                queries_,
                results.distances,
                results.labels,
                counts,
                stream_));
        scored_.ends(
                {"write results",
                 exact::writeResultsWork(queries_.n, queries_.k)});
    }

   private:
    void guessCuts() {
        score("sample scores", 0, plan_.sample);
        FAISS_EXT_CUDA_TRY(exact::launchSampleCut(
                plan_.sample,
                scored_.index,
                queries_,
                scores_,
                plan_.ld,
                stream_));
        scored_.ends({"first cut"});
    }

    void filter() {
        // The parts of chunks, which may be many, have one name.
        int number = 0;
        for (const ExactStage& stage : plan_.stages) {
            number += search_.fusedFilter ? 1 : 0;
            for (const VectorRows& rows : stage.rows) {
                scored_.interrupts.ask();
                if (search_.fusedFilter) {
                    filterFused(FilterPass::First, rows, number);
                    continue;
                }
                score("scores", number, rows);
                FAISS_EXT_CUDA_TRY(exact::launchFilter(
                        rows,
                        scored_.index,
                        queries_,
                        scores_,
                        plan_.ld,
                        stream_));
                scored_.ends(
                        {"filter",
                         exact::filterWork(queries_, rows.count),
                         number});
            }
            select("select", number, stage.rank);
        }
    }

    /// What has come to nothing by the stages' cuts. These kernels do nothing
    /// where there are no such queries.
    void filterAgain() {
        FAISS_EXT_CUDA_TRY(exact::launchCollectAgain(queries_, stream_));
        for (const VectorRows& rows : plan_.again) {
            scored_.interrupts.ask();
            filterFused(FilterPass::Again, rows, 0);
        }
        select("second select", 0, queries_.k);
    }

    void filterFused(FilterPass pass, const VectorRows& rows, int number) {
        const bool again = pass == FilterPass::Again;
        const VectorCopies::Rows copies =
                copies_.of(rows, again ? queries_.againCount : nullptr);
        FAISS_EXT_CUDA_TRY(exact::launchFusedFilter(
                pass,
                rows,
                scored_.index,
                queries_,
                copies.first,
                copies.stride,
                stream_));
        scored_.ends(
                {again ? "second filter" : "filter",
                 exact::fusedFilterWork(
                         queries_,
                         rows.count,
                         again ? ComputeWork::Of::Widened
                               : ComputeWork::Of::Filtered),
                 number});
    }

    void select(const char* name, int number, int rank) {
        queries_.rank = rank;
        FAISS_EXT_CUDA_TRY(exact::launchSelect(
                search_.vectors, scored_.index, queries_, stream_));
        scored_.ends({name, {}, number});
    }

    void score(const char* name, int number, const VectorRows& rows) {
        const VectorCopies::Rows copies = copies_.of(rows);
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
                        copies.stride,
                        rows.count,
                        exact::copyWidth(queries_.d),
                        scores_,
                        plan_.ld),
                "scores",
                stream_);
        scored_.ends({name, exact::scoresWork(queries_, rows.count), number});
    }

    /// Queries without a certificate; these kernels do nothing where there are
    /// none.
    void compareLast() {
        FAISS_EXT_CUDA_TRY(exact::launchCollectLast(queries_, stream_));
        for (const VectorRows& rows : plan_.chunks) {
            scored_.interrupts.ask();
            FAISS_EXT_CUDA_TRY(exact::launchLosses(
                    search_.vectors,
                    rows,
                    scored_.index,
                    queries_,
                    scores_,
                    plan_.ld,
                    stream_));
            FAISS_EXT_CUDA_TRY(exact::launchSelectLosses(
                    rows, queries_, scores_, plan_.ld, stream_));
        }
        scored_.ends(
                {"last path",
                 exact::lastPathWork(
                         search_.metric, queries_, search_.vectors.n)});
    }

    const Scored& scored_;
    const ExactSearch& search_;
    const ExactPlan& plan_;
    const cudaStream_t stream_;
    const VectorCopies& copies_;
    exact::QueryState queries_;
    float* const scores_;
};

/// Scratch memory as large as is best, or as there is.
void takeScratch(
        const ExactSearch& search,
        const ExactShape& shape,
        cudaStream_t stream,
        ExactPlan& plan,
        std::optional<ScratchMemory>& scratch) {
    const size_t free = search.resources.getTempMemoryAvailable(search.device);
    const auto planned = [&](size_t bytes) {
        return planExact(
                shape,
                search.most,
                bytes - std::min(bytes, ScratchMemory::bytesOf(0)));
    };
    size_t bytes = std::max(free, tuning::kExactLeastBytes);
    while (true) {
        plan = planned(bytes);
        try {
            scratch.emplace(
                    search.resources,
                    search.device,
                    plan.bytes,
                    search.counters);
            return;
        } catch (const faiss::FaissException& e) {
            rethrowUnlessOutOfMemory(e, stream);
            if (plan.bytes <= planned(0).bytes) {
                throw;
            }
        }
        // The GPU may be full, and a pool have less than it may be planned
        // with.
        const size_t less = bytes > tuning::kExactLeastBytes
                                    ? tuning::kExactLeastBytes
                                    : bytes / 4;
        bytes = less < free && free < bytes ? free : less;
    }
}

} // namespace

void enqueueScored(
        const ExactSearch& search,
        const QueryRows& queries,
        const SearchResults& results,
        exact::PathCounts* counts,
        const ComputeContext& context) {
    const VectorsView& vectors = search.vectors;
    std::optional<ScratchMemory> temporaryState;
    const exact::IndexState index = search.kept.stateOf(
            vectors,
            search.metric,
            search.arithmetic,
            search.changes,
            temporaryState,
            context.recorder);
    const ExactShape shape{
            queries.n,
            vectors.n,
            vectors.d,
            queries.k,
            ownCopies(vectors),
            bounded(search.arithmetic, vectors.d),
            search.fusedFilter};
    ExactPlan plan;
    std::optional<ScratchMemory> scratch;
    takeScratch(search, shape, context.stream, plan, scratch);
    if (context.recorder) {
        context.recorder->computedBy(plan.text(shape));
    }
    InterruptClock interrupts;
    const Scored scored{
            search,
            index,
            plan,
            scratch->data(),
            interrupts,
            context.stream,
            context.recorder};
    const VectorCopies copies(scored);
    for (idx_t first = 0; first < queries.n; first += plan.queries) {
        TileSearch(
                scored,
                copies,
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
