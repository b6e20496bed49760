#pragma once

#include <faiss/gpu/GpuIndexFlat.h>

#include <memory>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/index/StagedConfig.h>
#include <faiss_ext/gpu/index/StagedFlat.h>

namespace faiss_ext {
namespace gpu {

/// Cosine similarity: a flat inner-product index that normalises, on the GPU
/// and in stream order, the vectors that are added and the queries that are
/// searched; the caller's arrays stay as they are. To Faiss it is a
/// GpuIndexFlatIP, of metric METRIC_INNER_PRODUCT.
///
/// The normalised form of a vector is one formula in double whose every bit is
/// fixed (compute/exact/Normalize.h): norms of any size are right, from those
/// of denormal numbers to 1e38; zeros stay zeros, and their similarity is 0
/// with everything; a vector that is normalised already stays as it is, to the
/// bit; one with a component that is NaN or infinite is all NaN, and never
/// found. Similarities are inner products
/// of what is stored and of the normalised query, and may be beyond 1 by their
/// rounding. A float16 store (useFloat16) rounds the normalised vectors.
///
/// Reading back (reconstruct and the like, compute_residual, copyTo,
/// index_gpu_to_cpu) is of the normalised vectors. Rules for arrays, waits,
/// threads and errors are those of Staged.
///
///     faiss::gpu::StandardGpuResources resources;
///     faiss_ext::gpu::GpuIndexFlatCosine index(&resources, 128);
///     index.add(n, vectors);
///     index.search(nq, queries, k, similarities, labels);
class FAISS_EXT_API GpuIndexFlatCosine
        : public StagedFlat<faiss::gpu::GpuIndexFlatIP> {
   public:
    /// The vectors of `index`, whatever its metric, normalised, on the GPU of
    /// `config`. Throws what the constructors of GpuIndexFlatIP throw.
    GpuIndexFlatCosine(
            faiss::gpu::GpuResourcesProvider* provider,
            const faiss::IndexFlat* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatCosine(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            const faiss::IndexFlat* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    /// An empty index of vectors with `dims` components.
    GpuIndexFlatCosine(
            faiss::gpu::GpuResourcesProvider* provider,
            int dims,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatCosine(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int dims,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    ~GpuIndexFlatCosine() override;

    /// Takes over the vectors of `index`, whatever its metric, normalised;
    /// what was stored is dropped. If it throws, the index is empty.
    void copyFrom(const faiss::IndexFlat* index);

    /// The same of vectors i0 .. i0 + n - 1 of `index`, which stay as they are
    /// stored there, behind those that are here; through host memory, in
    /// blocks. Waits. Throws as `add` and `reconstruct_n`, which name what is
    /// out of bounds; vectors of the blocks before stay.
    void addFrom(const GpuIndexFlatCosine& index, idx_t i0, idx_t n);

    /// Whether vectors are stored as float16.
    bool storesFloat16() const;

   protected:
    std::unique_ptr<Searcher> makeSearcher(
            idx_t n,
            int k,
            const faiss::SearchParameters* params) const override;

    /// Where all that is added passes.
    void addImpl_(SearchImplCount n, const float* x, const idx_t* ids) override;

   private:
    /// What is being added is normalised already. Under the lock.
    bool addsAsGiven_ = false;
};

} // namespace gpu
} // namespace faiss_ext
