#pragma once

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// faiss::IndexShards, with the answers that its vectors would give in one flat
/// index on the CPU. Faiss takes every metric but L2 for a similarity when it
/// merges, and in 1.7.3 gives a neighbour that is missing the distance of the
/// nearest one. Everything else, threads and errors too, is Faiss'.
class FAISS_EXT_API IndexShards : public faiss::IndexShards {
   public:
    using faiss::IndexShards::IndexShards;

    /// x [n, d] float32, distances [n, k] float32, labels [n, k], all in host
    /// memory. Returns when they are complete; pinned memory needs shards of
    /// faiss_ext, as Faiss' own do not wait for it. Throws what the shards
    /// throw.
    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override;
};

} // namespace gpu
} // namespace faiss_ext
