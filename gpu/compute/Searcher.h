#pragma once

#include <faiss_ext/gpu/compute/Computation.h>

namespace faiss_ext {
namespace gpu {

/// Queries x [n, d] on the GPU, float32 where the searcher does not say
/// otherwise, and how many neighbours of each are wanted.
struct QueryRows {
    idx_t n;
    const void* x;
    int k;
};

/// Where they go: distances [n, k] float32, labels [n, k] int64, nearest first,
/// -1 where there are fewer than k vectors; on the GPU, or in pinned memory
/// where ComputeNeeds::storesToPinned says so.
struct SearchResults {
    float* distances;
    idx_t* labels;
};

/// How an index finds neighbours: the seam between a call, which moves arrays
/// and orders streams, and kernels: Faiss' (FaissSearcher) or those of the
/// exact engine (ExactSearcher). Lives for one call; the caller holds the lock
/// of the resources. Rules as for Computation, of which this is one for given
/// k.
class Searcher {
   public:
    virtual ~Searcher() = default;

    virtual ComputeNeeds needs(idx_t n, int k) const = 0;

    /// By which kernels, and why not by others, in words that live for ever:
    /// for profiles and TransferStats.
    virtual const char* searchedBy() const {
        return "";
    }

    /// Computation::leastWork of n queries.
    virtual ComputeWork leastWork(idx_t n, int k) const {
        (void)n;
        (void)k;
        return {};
    }

    virtual SliceNeeds sliceNeeds(idx_t n, int k, const Slices& slices) const {
        (void)n;
        (void)k;
        (void)slices;
        return {};
    }

    virtual void enqueue(
            const ComputeContext& context,
            const QueryRows& queries,
            const SearchResults& results) = 0;

    virtual void enqueueSlice(
            const ComputeContext& context,
            const QueryRows& queries,
            const Slices& slices,
            void* found,
            int slice) {
        (void)context;
        (void)queries;
        (void)slices;
        (void)found;
        (void)slice;
        FAISS_THROW_MSG("this cannot be searched in slices");
    }

    virtual void mergeSlices(
            const ComputeContext& context,
            const QueryRows& queries,
            const Slices& slices,
            void* found,
            const SearchResults& results) {
        (void)context;
        (void)queries;
        (void)slices;
        (void)found;
        (void)results;
        FAISS_THROW_MSG("this cannot be searched in slices");
    }
};

/// A search as the computation of a call: inputs[0] are queries of `rowBytes`
/// each, outputs[0] labels, outputs[1] distances.
class SearchComputation : public Computation {
   public:
    SearchComputation(Searcher& searcher, int k) : searcher_(searcher), k_(k) {}

    ComputeNeeds needs(idx_t n) const override {
        return searcher_.needs(n, k_);
    }
    const char* computedBy() const override {
        return searcher_.searchedBy();
    }
    ComputeWork leastWork(idx_t n) const override {
        return searcher_.leastWork(n, k_);
    }
    SliceNeeds sliceNeeds(idx_t rows, const Slices& slices) const override {
        return searcher_.sliceNeeds(rows, k_, slices);
    }
    void enqueue(
            const ComputeContext& context, const ComputeRows& rows) override {
        searcher_.enqueue(context, queriesOf(rows), resultsOf(rows));
    }
    void enqueueSlice(
            const ComputeContext& context,
            const ComputeRows& rows,
            const Slices& slices,
            void* found,
            int slice) override {
        searcher_.enqueueSlice(context, queriesOf(rows), slices, found, slice);
    }
    void mergeSlices(
            const ComputeContext& context,
            const ComputeRows& rows,
            const Slices& slices,
            void* found) override {
        searcher_.mergeSlices(
                context, queriesOf(rows), slices, found, resultsOf(rows));
    }

   private:
    QueryRows queriesOf(const ComputeRows& rows) const {
        return {rows.count, rows.inputs[0], k_};
    }
    static SearchResults resultsOf(const ComputeRows& rows) {
        return {static_cast<float*>(rows.outputs[1]),
                static_cast<idx_t*>(rows.outputs[0])};
    }

    Searcher& searcher_;
    const int k_;
};

} // namespace gpu
} // namespace faiss_ext
