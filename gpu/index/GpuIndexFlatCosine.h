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
/// found. Similarities are inner products of what is stored and of the
/// normalised query, and may be beyond 1 by their rounding. A float16 store
/// (useFloat16) rounds the normalised vectors.
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
    /// `config`. Throws what the constructors of GpuIndexFlatIP and `add`
    /// throw.
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
    /// what was stored is dropped. If it fails once it has begun to, the
    /// index is empty.
    void copyFrom(const faiss::IndexFlat* index);

    /// Stores n vectors, normalised: x [n, d] float32, on the host or a GPU.
    void add(idx_t n, const float* x) override;

    /// `add` for ids == nullptr; other ids are refused, as by Faiss' flat
    /// indexes.
    void add_with_ids(idx_t n, const float* x, const idx_t* ids) override;

#if FAISS_EXT_HAS_NUMERIC_TYPE
    /// The same for NumericType::Float32; others are refused, as by Faiss.
    void add_ex(idx_t n, const void* x, faiss::NumericType type) override;
    void add_with_ids_ex(
            idx_t n,
            const void* x,
            faiss::NumericType type,
            const idx_t* ids) override;
#endif

    /// Stores vectors i0 .. i0 + n - 1 of `index` as they are stored there,
    /// where they are normalised already; through host memory, in blocks, and
    /// so it waits. Throws faiss::FaissException, before anything is stored,
    /// where `index` has other dimensions or not all of these vectors, and what
    /// `add` and `reconstruct_n` throw; then the blocks before stay.
    void addFrom(const GpuIndexFlatCosine& index, idx_t i0, idx_t n);

    /// Whether vectors are stored as float16.
    bool storesFloat16() const;

   protected:
    std::unique_ptr<Searcher> makeSearcher(
            idx_t n,
            int k,
            const faiss::SearchParameters* params) const override;

   private:
    void addRows(idx_t n, const float* x, bool normalized);
    void addHalves(idx_t n, const float* x, bool normalized);
};

} // namespace gpu
} // namespace faiss_ext
