#pragma once

#include <faiss/gpu/GpuIndexFlat.h>

#include <type_traits>

#include <faiss_ext/gpu/compute/SlicedSearch.h>
#include <faiss_ext/gpu/compute/kernels/FillMissing.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/faiss/FlatStore.h>
#include <faiss_ext/gpu/index/Staged.h>

namespace faiss_ext {
namespace gpu {

/// What Faiss' three flat classes have in common beyond Staged: stored vectors
/// that can be read back. The same rules hold for arrays, waits and errors.
template <class Base>
class StagedFlat : public Staged<Base> {
   public:
    using Staged<Base>::Staged;

    ~StagedFlat() override {
        const LockForEnd lock(*this->lock_);
        if (lock.held()) {
            this->pipeline_.reset();
        } else {
            keepForEver(std::shared_ptr<StagingPipeline>(
                    std::move(this->pipeline_)));
        }
        // Asked after the last CUDA call of ours; as in ~StagingPipeline.
        if (!lock.held() || contextLost(this->resources_->getAsyncCopyStream(
                                    this->config_.device))) {
            // Faiss would abort the process on the failing cudaFree; the memory
            // went with the context.
            keepForEver({this->data_.release(), [](const void*) {}});
            keepForEver(this->resources_);
        }
    }

    /// Vector `key`: out [d] float32, host or device. 0 <= key < ntotal.
    void reconstruct(idx_t key, float* out) const override {
        reconstruct_n(key, 1, out);
    }

    /// Vectors i0 .. i0 + n - 1: out [n, d] float32, host or device.
    void reconstruct_n(idx_t i0, idx_t n, float* out) const override {
        this->checkRows(n, out, "out");
        if (n == 0) {
            return;
        }
        const auto guard = lockUnlessInterrupted(*this->lock_);
        checkBounds(i0, n);
        this->runStaged(
                n,
                {},
                {{"out", out, this->d * sizeof(float)}},
                {[this, i0](
                         faiss::gpu::GpuResources&,
                         idx_t first,
                         idx_t rows,
                         const void* const*,
                         void* const* outputs) {
                    Base::reconstruct_n(
                            i0 + first, rows, static_cast<float*>(outputs[0]));
                }});
    }

    /// Vectors keys[0] .. keys[n - 1]: keys [n] int64, out [n, d] float32. A
    /// key of -1 gives zeros, as in Faiss. Keys in host memory are checked, for
    /// which the host waits once more where they are pinned or managed, for
    /// what the default stream held; those on a GPU must be in bounds.
    void reconstruct_batch(
            idx_t n, const idx_t* keys, float* out) const override {
        this->checkRows(n, keys, "keys");
        this->checkRows(n, out, "out");
        if (n == 0) {
            return;
        }
        const auto guard = lockUnlessInterrupted(*this->lock_);
        checkKeys(n, keys);
        this->runStaged(
                n,
                {{"keys", keys, sizeof(idx_t)}},
                {{"out", out, this->d * sizeof(float)}},
                {[this](faiss::gpu::GpuResources&,
                        idx_t,
                        idx_t rows,
                        const void* const* inputs,
                        void* const* outputs) {
                    if (this->ntotal == 0) {
                        fillWithoutVectors(outputs[0], rows, 0);
                        return;
                    }
                    Base::reconstruct_batch(
                            rows,
                            static_cast<const idx_t*>(inputs[0]),
                            static_cast<float*>(outputs[0]));
                }});
    }

    /// residual [d] = x [d] - vector `key`, float32, host or device.
    void compute_residual(
            const float* x, float* residual, idx_t key) const override {
        compute_residual_n(1, x, residual, &key);
    }

    /// residuals [n, d] = xs [n, d] - vectors `keys` [n]; a key of -1 gives
    /// NaN, as in Faiss. Keys are checked as by reconstruct_batch.
    void compute_residual_n(
            idx_t n,
            const float* xs,
            float* residuals,
            const idx_t* keys) const override {
        this->checkRows(n, xs, "xs");
        this->checkRows(n, residuals, "residuals");
        this->checkRows(n, keys, "keys");
        if (n == 0) {
            return;
        }
        const auto guard = lockUnlessInterrupted(*this->lock_);
        checkKeys(n, keys);
        const size_t rowBytes = this->d * sizeof(float);
        this->runStaged(
                n,
                {{"keys", keys, sizeof(idx_t)}, {"xs", xs, rowBytes}},
                {{"residuals", residuals, rowBytes}},
                {[this](faiss::gpu::GpuResources&,
                        idx_t,
                        idx_t rows,
                        const void* const* inputs,
                        void* const* outputs) {
                    if (this->ntotal == 0) {
                        fillWithoutVectors(outputs[0], rows, 0xff); // NaN
                        return;
                    }
                    Base::compute_residual_n(
                            rows,
                            static_cast<const float*>(inputs[1]),
                            static_cast<float*>(outputs[0]),
                            static_cast<const idx_t*>(inputs[0]));
                }});
    }

    /// Whether one of the vectors i0 .. i0 + n - 1 can never be found because
    /// of the float16 numbers that it is stored in: one of its components is
    /// infinite there (65520 or more in magnitude), or, with L2 distances, has
    /// a square that is (256 or more), since Faiss squares in float16. Always
    /// false for an index that stores float32. Takes the time of reading the
    /// vectors once on the GPU, and waits once.
    bool beyondFloat16(idx_t i0, idx_t n) const {
        if (!this->flatConfig_.useFloat16 || n == 0) {
            return false;
        }
        const auto guard = lockUnlessInterrupted(*this->lock_);
        checkBounds(i0, n);
        int32_t found = 0;
        this->runStaged(
                1,
                {},
                {{"found", &found, sizeof(found)}},
                {[this, i0, n](
                         faiss::gpu::GpuResources&,
                         idx_t,
                         idx_t,
                         const void* const*,
                         void* const* outputs) {
                    auto* const flag = static_cast<int32_t*>(outputs[0]);
                    FAISS_EXT_CUDA_TRY(cudaMemsetAsync(
                            flag, 0, sizeof(*flag), this->defaultStream()));
                    findTooLarge(
                            *this->data_,
                            i0,
                            n,
                            this->metric_type == faiss::METRIC_L2,
                            flag,
                            this->defaultStream());
                }});
        return found != 0;
    }

   protected:
    /// Faiss' own, but the host does not wait if searchStore finds memory.
    /// `params` select nothing: Staged refuses those that do.
    void searchImpl_(
            SearchImplCount n,
            const float* x,
            int k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params) const override {
        if (this->ntotal == 0) {
            // Faiss waits, and takes every metric for a distance.
            FAISS_EXT_CUDA_TRY(launchFillMissing(
                    distances,
                    labels,
                    static_cast<idx_t>(n) * k,
                    distanceOfMissing(this->metric_type),
                    this->defaultStream()));
            return;
        }
        const auto queries = queriesOf(n, x, k, distances, labels);
        if (!searchStore(*this->data_, *this->resources_, queries)) {
            Base::searchImpl_(n, x, k, distances, labels, params);
        }
    }

    void searchOn(
            faiss::gpu::GpuResources& on,
            idx_t n,
            const float* x,
            int k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params) const override {
        const auto queries = queriesOf(n, x, k, distances, labels);
        if (&on != this->resources_.get()) {
            searchStoreOnLane(*this->data_, on, queries);
        } else if (
                !this->pipeline_->sideBySide() ||
                this->ntotal <
                        2 * leastSliceOf(n, k, this->pipeline_->config()) ||
                !searchInSlices(
                        *this->data_,
                        on,
                        this->pipeline_->lanes(),
                        this->pipeline_->config(),
                        queries)) {
            Staged<Base>::searchOn(on, n, x, k, distances, labels, params);
        }
    }

    void planLanes(TileWork& work, idx_t n, int k) const override {
        if (this->ntotal == 0 || !searchedByFaiss(*this->data_)) {
            return;
        }
        work.laneBytes = laneBytesOf(*this->data_, n, k, this->ntotal);
        if (this->ntotal >= tuning::kLaneVectors) {
            work.lanes = k > tuning::kManyNeighbours ? tuning::kLanesForMany
                                                     : tuning::kComputeLanes;
        }
    }

    StoreQueries queriesOf(
            idx_t n,
            const float* x,
            int k,
            float* distances,
            idx_t* labels) const {
        return {this->metric_type,
                this->metric_arg,
                n,
                x,
                k,
                distances,
                labels};
    }

    /// Where memory runs out between the vectors and their norms, Faiss' store
    /// holds vectors that the index does not count, and norms of fewer; between
    /// parts of what is added, some of them are there.
    void undoAdd(idx_t before) noexcept override {
        narrowStore(*this->data_, before);
        this->ntotal = before;
    }

    void checkBounds(idx_t i0, idx_t n) const {
        FAISS_THROW_IF_NOT_FMT(
                i0 >= 0 && n >= 0 && n <= this->ntotal &&
                        i0 <= this->ntotal - n,
                "vectors %lld to %lld out of bounds (ntotal %lld)",
                static_cast<long long>(i0),
                static_cast<long long>(i0) + n - 1,
                static_cast<long long>(this->ntotal));
    }

    /// Faiss' kernels read whatever a key points at. Keys in host memory that
    /// the GPU can write are checked after what the default stream held, which
    /// may write them: one host wait.
    void checkKeys(idx_t n, const idx_t* keys) const {
        const auto place = placementOf(keys, n * sizeof(idx_t), "keys");
        if (!place.onHost()) {
            return;
        }
        if (place.kind != MemoryKind::Pageable) {
            DeviceGuard device(this->config_.device);
            refuseCapture(this->defaultStream(), this->kOfIndex);
            this->pipeline_->waitForArguments();
        }
        for (idx_t i = 0; i < n; ++i) {
            FAISS_THROW_IF_NOT_FMT(
                    keys[i] >= -1 && keys[i] < this->ntotal,
                    "key %lld out of bounds (ntotal %lld)",
                    static_cast<long long>(keys[i]),
                    static_cast<long long>(this->ntotal));
        }
    }

    /// Enqueues what every key of an empty index, -1, gives: Faiss' kernels
    /// abort the process where nothing is stored. out [rows, d] float32.
    void fillWithoutVectors(void* out, idx_t rows, int byte) const {
        FAISS_EXT_CUDA_TRY(cudaMemsetAsync(
                out,
                byte,
                rows * this->d * sizeof(float),
                this->defaultStream()));
    }

    /// For the copyFrom of the classes below, which is not virtual in Faiss.
    /// (Its copyTo reads the vectors by reconstruct_n.)
    template <typename Cpu>
    void copyFromGuarded(Cpu* index) {
        const auto guard = lockUnlessInterrupted(*this->lock_);
        DeviceGuard device(this->config_.device);
        const RelaxedCapture relaxed;
        refuseCapture(this->defaultStream(), this->kOfIndex);
        const StagingPipeline::Change change(*this->pipeline_);
        const bool metricFits =
                std::is_same_v<Base, faiss::gpu::GpuIndexFlat> ||
                index->metric_type == this->metric_type;
        try {
            Base::copyFrom(index);
        } catch (...) {
            // Of a stream that is surely of this GPU.
            if (metricFits && !contextLost(this->resources_->getAsyncCopyStream(
                                      this->config_.device))) {
                // Faiss has dropped the old vectors and counts the new ones
                // already, though they are not there.
                Base::reset();
            }
            throw;
        }
    }
};

} // namespace gpu
} // namespace faiss_ext
