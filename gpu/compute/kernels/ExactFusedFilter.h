#pragma once

#include <cuda_runtime_api.h>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>

namespace faiss_ext {
namespace gpu {
namespace exact {

/// Whether launchFusedFilter() runs on the current GPU.
FAISS_EXT_API cudaError_t fusedFilterRuns(bool& runs);

/// Which queries a filter is for: all (but those of QueryPath::Last), or those
/// alone that are Widened, counted in `againCount`.
enum class FilterPass {
    First,
    Again,
};

/// What launchScores() and launchFilter() do, without any scores in memory: for
/// GPUs of compute capability 9.0. `copies` [rows.count, copyWidth(d)] are of
/// `rows`, in their order, and begin `stride` components apart, a multiple of
/// 8, from an address that is a multiple of 16 on.
///
/// A little more may pass than launchFilter() lets through, and of a list that
/// has run over only that is counted. The scores have no fixed bits, but they
/// are within accumulationError() as those are.
///
/// Lists of several launches, of other rows, add up until launchSelect(). Rows
/// that are few for so many multiprocessors cost about what many do: chunks of
/// an eighth of the store or more are best. Again ends after one load in each
/// block where there are no such queries.
FAISS_EXT_API cudaError_t launchFusedFilter(
        FilterPass pass,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const Half* copies,
        idx_t stride,
        cudaStream_t stream);

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
