#pragma once

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/ExactSearch.h>
#include <faiss_ext/gpu/compute/Searcher.h>

namespace faiss_ext {
namespace gpu {

/// Searches a flat index by the exact engine: the results are the k first by D
/// (compute/exact/Distance.h), ties by label, bit for bit, whatever the tiles
/// and whichever way they are found: by scores (ExactScoredSearch), or, for few
/// queries, by a scan (ExactScanSearch); docs/exact-search.md. Everything is
/// enqueued on the default stream, the fallbacks included; the host waits for
/// memory alone that Faiss' temporary memory lacks. Queries are float32.
class FAISS_EXT_API ExactSearcher : public Searcher {
   public:
    /// What `search` refers to outlives this.
    explicit ExactSearcher(const ExactSearch& search) : search_(search) {}

    ComputeNeeds needs(idx_t n, int k) const override;
    const char* searchedBy() const override;
    ComputeWork leastWork(idx_t n, int k) const override;
    void enqueue(
            const ComputeContext& context,
            const QueryRows& queries,
            const SearchResults& results) override;

   private:
    const ExactSearch search_;
};

} // namespace gpu
} // namespace faiss_ext
