#pragma once

#include <faiss_ext/gpu/compute/ExactSearch.h>
#include <faiss_ext/gpu/compute/Searcher.h>

namespace faiss_ext {
namespace gpu {

/// An exact search by scores in half precision: vectors that these rule out are
/// not compared; where that cannot be proven, all are. For vectors.n >= 1, and
/// best for many queries. Results to arrays of the GPU or pinned memory, and
/// the queries' paths to `counts`, if not null. In the order of the context's
/// stream, the default stream, whose recorder is told of it; throws
/// faiss::FaissException, CudaError, Interrupted.
void enqueueScored(
        const ExactSearch& search,
        const QueryRows& queries,
        const SearchResults& results,
        exact::PathCounts* counts,
        const ComputeContext& context);

} // namespace gpu
} // namespace faiss_ext
