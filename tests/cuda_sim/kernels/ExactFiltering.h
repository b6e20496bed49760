// How the stand-ins for the kernels of the exact search make scores and compare
// them. All only inside an operation.

#pragma once

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>

#include "ExactFaults.h"

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace stand_in {

/// Scores [n, ld] of rows x [n, width] and y, which begin every `stride`
/// halves, off by a part of the largest error that is known.
void multiply(
        const Half* x,
        idx_t n,
        const Half* y,
        idx_t stride,
        idx_t count,
        int width,
        float* scores,
        idx_t ld,
        double errorPart);

/// Appends what passes to one query's list, with the mistakes asked for; any
/// `overflow` makes it run over.
void filterQuery(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        idx_t query,
        const float* scores,
        const cuda_sim_exact_faults& wrong);

} // namespace stand_in
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
