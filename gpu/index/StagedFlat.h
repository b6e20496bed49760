#pragma once

#include <faiss/gpu/GpuIndexFlat.h>

#include <memory>
#include <utility>

#include <faiss_ext/gpu/index/Staged.h>

namespace faiss_ext {
namespace gpu {

struct FlatSearch;

/// What Faiss' three flat classes have in common beyond Staged: stored vectors
/// that can be read back. The same rules hold for arrays, waits and errors.
/// Instantiated for those three (StagedFlat.cpp).
template <class Base>
class StagedFlat : public Staged<Base> {
   public:
    /// As Staged.
    template <typename Resources, typename... Args>
    StagedFlat(
            const StagedConfig& config,
            const Resources& resources,
            Args&&... args)
            : Staged<Base>(config, resources, std::forward<Args>(args)...),
              search_(makeSearch()) {
        this->keepUntilEnd(keptMemory());
    }

    ~StagedFlat() override;

    /// Vector `key`: out [d] float32, host or device. 0 <= key < ntotal.
    void reconstruct(idx_t key, float* out) const override;

    /// Vectors i0 .. i0 + n - 1: out [n, d] float32, host or device.
    void reconstruct_n(idx_t i0, idx_t n, float* out) const override;

    /// Vectors keys[0] .. keys[n - 1]: keys [n] int64, out [n, d] float32. A
    /// key of -1 gives zeros, as in Faiss. Keys in host memory are checked, for
    /// which the host waits once more where they are pinned or managed, for
    /// what the default stream held; those on a GPU must be in bounds.
    void reconstruct_batch(
            idx_t n, const idx_t* keys, float* out) const override;

    /// residual [d] = x [d] - vector `key`, float32, host or device.
    void compute_residual(
            const float* x, float* residual, idx_t key) const override;

    /// residuals [n, d] = xs [n, d] - vectors `keys` [n]; a key of -1 gives
    /// NaN, as in Faiss. Keys are checked as by reconstruct_batch.
    void compute_residual_n(
            idx_t n,
            const float* xs,
            float* residuals,
            const idx_t* keys) const override;

    /// Whether one of the vectors i0 .. i0 + n - 1 can never be found because
    /// of the float16 numbers that it is stored in: one of its components is
    /// infinite there (65520 or more in magnitude), or, with L2 distances, has
    /// a square that is (256 or more), since Faiss squares in float16. Always
    /// false for an index that stores float32. Takes the time of reading the
    /// vectors once on the GPU, and waits once.
    bool beyondFloat16(idx_t i0, idx_t n) const;

   protected:
    std::unique_ptr<Searcher> makeSearcher(
            idx_t n,
            int k,
            const faiss::SearchParameters* params) const override;
    void addSearchCounts(TransferStats& stats) const override;
    void resetSearchCounts() override;

    /// Where memory runs out between the vectors and their norms, Faiss' store
    /// holds vectors that the index does not count, and norms of fewer; between
    /// parts of what is added, some of them are there.
    void undoAdd(idx_t before) noexcept override;

    /// For the copyFrom of the classes below, which is not virtual in Faiss.
    /// (Its copyTo reads the vectors by reconstruct_n.)
    template <typename Cpu>
    void copyFromGuarded(Cpu* index);

   private:
    struct SearchDeleter {
        void operator()(FlatSearch* search) const;
    };
    using Search = std::unique_ptr<FlatSearch, SearchDeleter>;

    Search makeSearch() const;
    KeptMemory& keptMemory() const;
    const char* chooseKernels() const;
    void checkBounds(idx_t i0, idx_t n) const;
    void checkKeys(idx_t n, const idx_t* keys) const;

    Search search_;
};

extern template class FAISS_EXT_API StagedFlat<faiss::gpu::GpuIndexFlat>;
extern template class FAISS_EXT_API StagedFlat<faiss::gpu::GpuIndexFlatL2>;
extern template class FAISS_EXT_API StagedFlat<faiss::gpu::GpuIndexFlatIP>;

} // namespace gpu
} // namespace faiss_ext
