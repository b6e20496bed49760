#include <faiss_ext/gpu/compute/CosineSearcher.h>

#include <algorithm>
#include <optional>
#include <utility>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/kernels/NormalizeRows.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>

namespace faiss_ext {
namespace gpu {

CosineSearcher::CosineSearcher(
        std::unique_ptr<Searcher> searcher,
        faiss::gpu::GpuResources& resources,
        int device,
        int d,
        TransferCounters& counters)
        : searcher_(std::move(searcher)),
          resources_(resources),
          device_(device),
          d_(d),
          counters_(counters) {}

ComputeNeeds CosineSearcher::needs(idx_t n, int k) const {
    ComputeNeeds needs = searcher_->needs(n, k);
    if (needs.laneBytes > 0) {
        needs.laneBytes += bytesOf(rowsOnLane(n));
    }
    return needs;
}

const char* CosineSearcher::searchedBy() const {
    return searcher_->searchedBy();
}

/// Beside which normalising is little.
ComputeWork CosineSearcher::leastWork(idx_t n, int k) const {
    return searcher_->leastWork(n, k);
}

SliceNeeds CosineSearcher::sliceNeeds(
        idx_t n, int k, const Slices& slices) const {
    SliceNeeds needs = searcher_->sliceNeeds(n, k, slices);
    needs.laneBytes += bytesOf(n);
    return needs;
}

void CosineSearcher::enqueue(
        const ComputeContext& context,
        const QueryRows& queries,
        const SearchResults& results) {
    const idx_t step =
            context.lane < 0 ? rowsAtOnce(queries.n) : rowsOnLane(queries.n);
    const size_t bytes = bytesOf(step);
    std::optional<ScratchMemory> memory;
    char* copies = context.scratch;
    ComputeContext inner = context;
    if (context.lane < 0) {
        memory.emplace(resources_, device_, bytes, counters_);
        copies = memory->data();
    } else {
        inner = behind(context, bytes);
    }
    for (idx_t first = 0; first < queries.n; first += step) {
        const idx_t rows = std::min(step, queries.n - first);
        const QueryRows normal =
                normalized(queries, first, rows, copies, context.stream);
        // Faiss' kernels tell no parts.
        if (context.recorder &&
            !searcher_->leastWork(rows, queries.k).unknown()) {
            constexpr int kReadAndWritten = 2;
            endPart(context.recorder,
                    {"normalise queries",
                     {0,
                      0,
                      double(kReadAndWritten * sizeof(float)) * rows * d_}},
                    context.stream);
        }
        searcher_->enqueue(
                inner,
                normal,
                {results.distances + first * queries.k,
                 results.labels + first * queries.k});
    }
    if (memory) {
        memory->waitUnlessInterrupted();
    }
}

void CosineSearcher::enqueueSlice(
        const ComputeContext& context,
        const QueryRows& queries,
        const Slices& slices,
        void* found,
        int slice) {
    // Each stream has its own copies, which it need not wait for.
    searcher_->enqueueSlice(
            behind(context, bytesOf(queries.n)),
            normalized(queries, 0, queries.n, context.scratch, context.stream),
            slices,
            found,
            slice);
}

void CosineSearcher::mergeSlices(
        const ComputeContext& context,
        const QueryRows& queries,
        const Slices& slices,
        void* found,
        const SearchResults& results) {
    searcher_->mergeSlices(context, queries, slices, found, results);
}

/// On the default stream. Each step is a search of its own for the searcher
/// behind, which in the exact engine copies all vectors: so steps are few, and
/// equal, none of them for a rest. (Without memory for 512 at once, all the
/// copies are allocated.)
idx_t CosineSearcher::rowsAtOnce(idx_t n) const {
    const size_t rowBytes = d_ * sizeof(float);
    idx_t most = std::min<idx_t>(
            {n,
             tuning::kExactFusedQueries,
             std::max<idx_t>(tuning::kCosineBytes / rowBytes, 1)});
    // What temporary memory lacks is allocated, for which the host waits, and
    // so does the engine for its own: it is left what it allocates otherwise.
    const size_t free = resources_.getTempMemoryAvailable(device_);
    const size_t kept = tuning::kExactLeastBytes + ScratchMemory::bytesOf(0);
    const size_t share =
            std::min(free / tuning::kCosineShare, free - std::min(free, kept));
    const auto fitting = static_cast<idx_t>(share / rowBytes);
    if (fitting >= std::min(most, tuning::kComputeRows)) {
        most = std::min(most, fitting);
    }
    // Else each step would wait: the fewer, the better.
    return divideUp(n, divideUp(n, most));
}

/// On one of several streams, each of which has scratch memory for as many.
idx_t CosineSearcher::rowsOnLane(idx_t n) const {
    return std::min(n, tuning::kComputeRows);
}

size_t CosineSearcher::bytesOf(idx_t rows) const {
    return roundUp(rows * d_ * sizeof(float), ScratchMemory::kAlignment);
}

/// What is left of the scratch memory of a stream behind so many bytes, which
/// `needs` or `sliceNeeds` asked for.
ComputeContext CosineSearcher::behind(
        const ComputeContext& context, size_t bytes) const {
    FAISS_THROW_IF_NOT(context.scratchBytes >= bytes);
    ComputeContext left = context;
    left.scratch += bytes;
    left.scratchBytes -= bytes;
    return left;
}

QueryRows CosineSearcher::normalized(
        const QueryRows& queries,
        idx_t first,
        idx_t rows,
        char* to,
        cudaStream_t stream) const {
    auto* const copies = reinterpret_cast<float*>(to);
    FAISS_EXT_CUDA_TRY(launchNormalizeRows(
            static_cast<const float*>(queries.x) + first * d_,
            rows,
            d_,
            copies,
            stream));
    return {rows, copies, queries.k};
}

} // namespace gpu
} // namespace faiss_ext
