#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include <faiss_ext/gpu/faiss/FaissVersion.h>
#include <faiss_ext/gpu/profile/ComputeWork.h>

namespace faiss_ext {
namespace gpu {

class StageRecorder;

/// Where a part of a call is computed, on the current GPU.
struct ComputeContext {
    /// What is enqueued is in the order of this stream.
    cudaStream_t stream;
    /// The number of the stream if the call computes on several side by side;
    /// -1: the default stream of the index's resources, whose temporary memory
    /// is the scratch memory then.
    int lane = -1;
    /// Free in the order of `stream`; aligned as cudaMalloc aligns.
    char* scratch = nullptr;
    size_t scratchBytes = 0;
    /// Of a call that is profiled, on the default stream: what is computed may
    /// tell its stages there (endPart). nullptr: of all others.
    StageRecorder* recorder = nullptr;
};

/// Rows first .. first + count - 1 of a call: device pointers to the first of
/// them, one for each array, in the order in which these were given.
struct ComputeRows {
    idx_t first;
    idx_t count;
    const void* const* inputs;
    void* const* outputs;
};

/// What a computation of n rows takes, and how it may be divided. Numbers that
/// CallPlan decides by.
struct ComputeNeeds {
    /// Floating-point operations for each row, about; 0: not known.
    double rowOperations = 0;
    /// It writes its outputs with kernels alone, and so can in pinned memory.
    bool storesToPinned = false;
    /// Scratch memory that some of the rows take on a stream of their own, in
    /// bytes; 0: all rows are computed on the default stream.
    size_t laneBytes = 0;
    /// On how many streams it is best computed side by side.
    int lanes = 1;
    /// Of a search that may be made in slices of the vectors: how many vectors
    /// there are, and results of each row.
    idx_t sliceableVectors = 0;
    idx_t rowResults = 0;
};

/// Slices of the vectors: `count` of them, each of `vectors` but the last,
/// which has what is left, one at least.
struct Slices {
    int count = 1;
    idx_t vectors = 0;
};

/// What a search in slices takes: scratch memory for each stream, memory for
/// what all slices find, and temporary memory of the default stream to merge
/// it; in bytes.
struct SliceNeeds {
    size_t laneBytes = 0;
    size_t foundBytes = 0;
    size_t mergeBytes = 0;
};

/// What a call computes for its rows. `needs` and `sliceNeeds` are pure
/// arithmetic. What enqueues does not wait, if it can help it, and throws
/// faiss::FaissException or CudaError; where memory ran out (isOutOfMemory) the
/// call begins anew with fewer rows at once.
class Computation {
   public:
    virtual ~Computation() = default;

    /// Of a call of n rows.
    virtual ComputeNeeds needs(idx_t n) const {
        (void)n;
        return {};
    }

    /// Of `rows` rows at a time.
    virtual SliceNeeds sliceNeeds(idx_t rows, const Slices& slices) const {
        (void)rows;
        (void)slices;
        return {};
    }

    /// By which kernels, in words that live for ever; "": nothing to tell.
    virtual const char* computedBy() const {
        return "";
    }

    /// What n rows take at the least, by the best way that there may be; for
    /// profiles. Pure arithmetic.
    virtual ComputeWork leastWork(idx_t n) const {
        (void)n;
        return {};
    }

    virtual void enqueue(
            const ComputeContext& context, const ComputeRows& rows) = 0;

    /// Only where needs().sliceableVectors > 0: what slice `slice` finds goes
    /// to `found`.
    virtual void enqueueSlice(
            const ComputeContext& context,
            const ComputeRows& rows,
            const Slices& slices,
            void* found,
            int slice) {
        (void)context;
        (void)rows;
        (void)slices;
        (void)found;
        (void)slice;
        FAISS_THROW_MSG("this cannot be searched in slices");
    }

    /// Makes the outputs of what all slices have found, on the default stream.
    virtual void mergeSlices(
            const ComputeContext& context,
            const ComputeRows& rows,
            const Slices& slices,
            void* found) {
        (void)context;
        (void)rows;
        (void)slices;
        (void)found;
        FAISS_THROW_MSG("this cannot be searched in slices");
    }
};

/// A computation that is one function of (context, rows), on the default stream
/// alone.
template <typename Function>
class RowFunction : public Computation {
   public:
    explicit RowFunction(Function function) : function_(std::move(function)) {}

    void enqueue(
            const ComputeContext& context, const ComputeRows& rows) override {
        function_(context, rows);
    }

   private:
    Function function_;
};

} // namespace gpu
} // namespace faiss_ext
