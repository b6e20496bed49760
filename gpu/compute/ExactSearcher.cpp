#include <faiss_ext/gpu/compute/ExactSearcher.h>

#include <faiss_ext/gpu/compute/ExactScanSearch.h>
#include <faiss_ext/gpu/compute/ExactScoredSearch.h>
#include <faiss_ext/gpu/compute/ExactWork.h>
#include <faiss_ext/gpu/compute/SearchChoice.h>
#include <faiss_ext/gpu/compute/kernels/FillMissing.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>

namespace faiss_ext {
namespace gpu {

namespace {

float distanceOfNone(exact::Metric metric) {
    return exact::distanceOf(metric, exact::missingLoss());
}

} // namespace

ComputeNeeds ExactSearcher::needs(idx_t, int) const {
    ComputeNeeds needs;
    needs.rowOperations =
            search_.vectors.n *
            (search_.fusedFilter
                     ? tuning::kExactFusedOperations * search_.vectors.d +
                               tuning::kExactFusedVectorOperations
                     : tuning::kExactOperations * search_.vectors.d +
                               tuning::kExactVectorOperations);
    // One kernel writes them, each value in full.
    needs.storesToPinned = true;
    return needs;
}

const char* ExactSearcher::searchedBy() const {
    return searched_by::kExact;
}

ComputeWork ExactSearcher::leastWork(idx_t n, int k) const {
    return exact::searchWork(search_.vectors, n, k);
}

void ExactSearcher::enqueue(
        const ComputeContext& context,
        const QueryRows& queries,
        const SearchResults& results) {
    if (search_.vectors.n == 0) {
        FAISS_EXT_CUDA_TRY(launchFillMissing(
                results.distances,
                results.labels,
                queries.n * queries.k,
                distanceOfNone(search_.metric),
                context.stream));
        return;
    }
    // First, since to pin memory may wait for what is enqueued.
    exact::PathCounts* const counts = search_.kept.paths().forKernels();
    if (context.recorder && counts) {
        context.recorder->countBy(
                [&paths = search_.kept.paths()] { return paths.counted(); });
    }
    if (!scanIsBest(search_, queries) ||
        !enqueueScan(search_, queries, results, counts, context)) {
        enqueueScored(search_, queries, results, counts, context);
    }
}

} // namespace gpu
} // namespace faiss_ext
