// Replaces the fused filter of the exact search: products and comparisons of
// one operation, without any scores in memory.

#include <faiss_ext/gpu/compute/kernels/ExactFusedFilter.h>

#include <vector>

#include "ExactFaults.h"
#include "ExactFiltering.h"
#include "ExactMemory.h"

namespace faiss_ext {
namespace gpu {
namespace exact {

using namespace stand_in;

cudaError_t fusedFilterRuns(bool& runs) {
    int device = 0;
    int major = 0;
    int minor = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(
                &major, cudaDevAttrComputeCapabilityMajor, device);
    }
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(
                &minor, cudaDevAttrComputeCapabilityMinor, device);
    }
    runs = error == cudaSuccess && major == 9 && minor == 0;
    return error;
}

cudaError_t launchFusedFilter(
        FilterPass pass,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const Half* copies,
        idx_t stride,
        cudaStream_t stream) {
    const idx_t n = queries.n;
    const int width = copyWidth(queries.d);
    if (stride % 8 != 0 || reinterpret_cast<uintptr_t>(copies) % 16 != 0) {
        return cudaErrorInvalidValue;
    }
    const bool again = pass == FilterPass::Again;
    cuda_sim_exact_faults wrong = faults();
    if (again && wrong.overflow == 1) {
        wrong.overflow = 0;
    }
    Ranges ranges{
            reads(copies, (rows.count - 1) * stride + width),
            readsTerms(state, rows),
            reads(state.terms, 1),
            reads(queries.copies, n * width),
            reads(queries.terms, n),
            reads(queries.cut, n),
            reads(queries.paths, n),
            writes(queries.leastCut, n),
            writes(queries.survivors, n * queries.capacity),
            writes(queries.counts, n)};
    if (again) {
        ranges.push_back(reads(queries.againCount, 1));
    }
    return cuda_sim::launch(
            again ? "exactFusedFilterAgain" : "exactFusedFilter",
            stream,
            ranges,
            [=] {
                if (again && *view(queries.againCount) == 0) {
                    return;
                }
                std::vector<float> scores(n * rows.count);
                multiply(
                        view(queries.copies),
                        n,
                        view(copies),
                        stride,
                        rows.count,
                        width,
                        scores.data(),
                        rows.count,
                        wrong.score_error);
                for (idx_t query = 0; query < n; ++query) {
                    const QueryPath path = view(queries.paths)[query];
                    if (again ? path == QueryPath::Widened
                              : path != QueryPath::Last) {
                        filterQuery(
                                rows,
                                state,
                                queries,
                                query,
                                scores.data() + query * rows.count,
                                wrong);
                    }
                }
            });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
