#pragma once

#include <faiss_ext/gpu/compute/ExactSearch.h>
#include <faiss_ext/gpu/compute/Searcher.h>

namespace faiss_ext {
namespace gpu {

/// Whether a scan is the fastest way to search for these queries.
bool scanIsBest(const ExactSearch& search, const QueryRows& queries);

/// An exact search that reads every vector once, for few queries
/// (scanIsBest()): each is compared by D, or, by tensor cores, each that scores
/// in half precision do not rule out. False, and nothing is enqueued, where
/// there is no memory for it. Otherwise as enqueueScored().
bool enqueueScan(
        const ExactSearch& search,
        const QueryRows& queries,
        const SearchResults& results,
        exact::PathCounts* counts,
        const ComputeContext& context);

} // namespace gpu
} // namespace faiss_ext
