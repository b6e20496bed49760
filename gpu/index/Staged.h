#pragma once

#include <faiss/gpu/GpuIndex.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <faiss_ext/gpu/call/StagingPipeline.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/NvtxRange.h>
#include <faiss_ext/gpu/cuda/StreamOrder.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>
#include <faiss_ext/gpu/index/StagedConfig.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/SearchBatcher.h>

namespace faiss_ext {
namespace gpu {

/// A Faiss GPU index whose results come back in stream order through pinned
/// staging memory. `Base` is a subclass of faiss::gpu::GpuIndex; whatever takes
/// a `Base` takes this.
///
/// All arrays may lie in pageable, pinned or managed host memory or on any GPU,
/// each by itself. For every method below:
/// - Host outputs: the call returns when they are complete, after one wait for
///   one event; one that is estimated long (StagedConfig::secondsAhead) waits
///   for parts of its work before. Device outputs only: it returns when the
///   work is enqueued, in the order of the index's default stream (of its
///   resources).
/// - Outputs are written, never read. They may not overlap each other or an
///   input.
/// - Device inputs are read in the order of the default stream. Pageable inputs
///   have been read when the call returns. Pinned and managed ones have been
///   read when a call that waits returns; otherwise they must stay unchanged
///   until the default stream has passed the call.
/// - Any number of threads may call; calls on indexes that share a GpuResources
///   object run one after another. Searches of few pageable queries that wait
///   for each other become one (StagedConfig::batchedQueries).
/// - Work of an index cannot be captured into a CUDA graph: while its default
///   stream is being captured, its methods throw Unsupported, and the capture
///   goes on. Captures of other streams, in whatever thread and mode, and calls
///   of the index do not disturb each other.
/// - Faiss' InterruptCallback (Ctrl-C in Python, a time limit) ends a call: by
///   Interrupted where it waits, for other threads or in a long call for the
///   GPU, and by Faiss' own exception in Faiss' code. Nothing is tried again.
/// - Throws InvalidArray, Unsupported, CudaError, OutOfMemory, Interrupted, or
///   faiss::FaissException with Faiss' own text; then nothing in flight touches
///   the caller's arrays.
/// - Not from a signal's handler or a pool's callback in the midst of a call on
///   the same GpuResources: Unsupported.
///
/// Life: made with an index, frees its staging memory with it. The destructor
/// waits for work in flight that uses this memory.
template <class Base>
class Staged : protected LockedBothEnds, public Base {
   public:
    /// `config`, then the arguments of a constructor of Base, of which the
    /// first gives the resources.
    template <typename Resources, typename... Args>
    Staged(const StagedConfig& config,
           const Resources& resources,
           Args&&... args)
            : LockedBothEnds(resources),
              Base(resources, std::forward<Args>(args)...),
              pipeline_(std::make_unique<StagingPipeline>(
                      this->resources_, this->config_.device, config)),
              batcher_(this->d, withDefaults(config).batchedQueries) {
        this->endConstruction();
    }

    /// The pipeline ends before the resources that it uses, under their lock.
    ~Staged() override {
        this->beginDestruction();
    }

    /// The k nearest stored vectors of each query: x [n, d] float32,
    /// distances [n, k] float32, labels [n, k] int64, -1 where there are fewer
    /// than k vectors. k is 1 to the limit of Faiss' selection (2048).
    /// `params` with an IDSelector throws Unsupported: Faiss' GPU index would
    /// ignore it.
    void search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override {
        searchBatched(
                {n, x, k, distances, labels},
                resultsAt(labels, distances, k),
                params);
    }

    /// `search`, and where its time went (SearchProfile). Returns when the
    /// outputs are complete, wherever they lie; waits a few times more than
    /// `search`. Work in flight on the index's default stream is waited for
    /// first, and not counted. n = 0: an empty profile.
    SearchProfile profile_search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const {
        return profileStaged(
                n,
                {"x", x, this->d * sizeof(float)},
                k,
                resultsAt(labels, distances, k),
                params);
    }

    /// `search` into one block of memory: results is [n, k] int64 labels, then
    /// [n, k] float32 distances, n * k * 12 bytes of one allocation, aligned
    /// for int64. Where `search` makes a copy for each array that the GPU
    /// reaches by itself (pinned, managed, of another GPU), this makes one for
    /// both, if the call is one tile; the rows of a smaller tile lie in two
    /// places.
    void search_packed(
            idx_t n,
            const float* x,
            idx_t k,
            void* results,
            const faiss::SearchParameters* params = nullptr) const {
        searchBatched(
                packedSearch(n, x, k, results), packedAt(results, k), params);
    }

    /// `search_packed`, and where its time went, as profile_search.
    SearchProfile profile_search_packed(
            idx_t n,
            const float* x,
            idx_t k,
            void* results,
            const faiss::SearchParameters* params = nullptr) const {
        return profileStaged(
                n,
                {"x", x, this->d * sizeof(float)},
                k,
                packedAt(results, k),
                params);
    }

#if FAISS_EXT_HAS_NUMERIC_TYPE
    /// `search` for queries of another type, where Base takes it.
    void search_ex(
            idx_t n,
            const void* x,
            faiss::NumericType type,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const override {
        searchStaged(
                n,
                {"x", x, this->d * faiss::get_numeric_type_size(type)},
                k,
                resultsAt(labels, distances, k),
                params,
                [&] {
                    TileWork work;
                    work.rowOperations = searchOperations();
                    work.enqueue = [this, k, type, params](
                                           faiss::gpu::GpuResources&,
                                           idx_t,
                                           idx_t rows,
                                           const void* const* in,
                                           void* const* out) {
                        this->searchImpl_ex_(
                                rows,
                                in[0],
                                type,
                                static_cast<int>(k),
                                static_cast<float*>(out[1]),
                                static_cast<idx_t*>(out[0]),
                                params);
                    };
                    return work;
                });
    }

    void add_ex(idx_t n, const void* x, faiss::NumericType type) override {
        addGuarded(n, x, this->d * faiss::get_numeric_type_size(type), [&] {
            Base::add_ex(n, x, type);
        });
    }

    void add_with_ids_ex(
            idx_t n,
            const void* x,
            faiss::NumericType type,
            const idx_t* ids) override {
        addGuarded(n, x, this->d * faiss::get_numeric_type_size(type), [&] {
            Base::add_with_ids_ex(n, x, type, ids);
        });
    }
#endif

    /// The labels of `search` alone: x [n, d], labels [n, k]. The distances
    /// stay on the GPU.
    void assign(idx_t n, const float* x, idx_t* labels, idx_t k = 1)
            const override {
        searchStaged(
                n,
                {"x", x, this->d * sizeof(float)},
                k,
                {{"labels", labels, k * sizeof(idx_t), kByKernels},
                 {nullptr, nullptr, k * sizeof(float), kByKernels}},
                nullptr,
                [&] { return searchWork(n, k, nullptr); });
    }

    /// `search`, then the found vectors: recons [n, k, d] float32, zeros where
    /// the label is -1. Two calls, so two waits with host outputs.
    void search_and_reconstruct(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            float* recons,
            const faiss::SearchParameters* params = nullptr) const override {
        checkRows(n, recons, "recons");
        const auto guard = lockUnlessInterrupted(*lock_);
        search(n, x, k, distances, labels, params);
        this->reconstruct_batch(n * k, labels, recons);
    }

    /// Stores n vectors: x [n, d] float32. Waits for the searches in flight;
    /// returns when pageable and pinned x have been read. If it throws, the
    /// index has the vectors that it had; memory that it was given for more it
    /// keeps, unless it had none.
    void add(idx_t n, const float* x) override {
        addGuarded(n, x, this->d * sizeof(float), [&] { Base::add(n, x); });
    }

    /// The same with the ids [n] int64 of the vectors, where Base takes them.
    void add_with_ids(idx_t n, const float* x, const idx_t* ids) override {
        addGuarded(n, x, this->d * sizeof(float), [&] {
            Base::add_with_ids(n, x, ids);
        });
    }

    /// Forgets all vectors, once the searches in flight are done. Throws
    /// CudaError.
    void reset() override {
        const auto guard = lockUnlessInterrupted(*lock_);
        DeviceGuard device(this->config_.device);
        const RelaxedCapture relaxed;
        refuseCapture(defaultStream(), kOfIndex);
        const StagingPipeline::Change change(*pipeline_);
        Base::reset();
    }

    /// Work of this index enqueued from now on comes after what `stream` holds
    /// now: for arrays that another library's stream is still writing. A stream
    /// of the GPU `device`; cudaStreamLegacy and cudaStreamPerThread are those
    /// of that GPU. The host does not wait for the GPU. Throws CudaError, and
    /// as lockUnlessInterrupted.
    void waitForStream(cudaStream_t stream, int device) const {
        const auto guard = lockUnlessInterrupted(*lock_);
        orderStreams(stream, device, defaultStream(), this->config_.device);
    }

    /// The same for a stream of the index's GPU.
    void waitForStream(cudaStream_t stream) const {
        waitForStream(stream, this->config_.device);
    }

    /// What `stream` of the GPU `device` is given from now on comes after the
    /// work that this index has enqueued so far: for device results that
    /// another stream will read. The host does not wait for the GPU. Throws
    /// CudaError, and as lockUnlessInterrupted.
    void makeStreamWait(cudaStream_t stream, int device) const {
        const auto guard = lockUnlessInterrupted(*lock_);
        orderStreams(defaultStream(), this->config_.device, stream, device);
    }

    /// The same for a stream of the index's GPU.
    void makeStreamWait(cudaStream_t stream) const {
        makeStreamWait(stream, this->config_.device);
    }

    /// What this index has moved and waited for; any thread, does not wait.
    TransferStats getTransferStats() const {
        return pipeline_->counters().snapshot();
    }

    /// Sets the counts back to zero.
    void resetTransferStats() {
        pipeline_->counters().reset();
    }

   protected:
    /// Runs `work` through the pipeline, the index's device current; for
    /// callers that hold the lock. n >= 1.
    void runStaged(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            const TileWork& work) const {
        DeviceGuard device(this->config_.device);
        const RelaxedCapture relaxed;
        refuseCapture(defaultStream(), kOfIndex);
        pipeline_->run(n, inputs, outputs, work);
    }

    /// Enqueues what searchImpl_ of Base does, on the default stream of `on`:
    /// the resources of the index, or a lane if planLanes allows any.
    virtual void searchOn(
            faiss::gpu::GpuResources& on,
            idx_t n,
            const float* x,
            int k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params) const {
        (void)on;
        this->searchImpl_(
                static_cast<SearchImplCount>(n),
                x,
                k,
                distances,
                labels,
                params);
    }

    /// Sets the scratch memory that a search of n queries takes on a lane, if
    /// it can run on any, and on how many it should. For callers that hold the
    /// lock.
    virtual void planLanes(TileWork&, idx_t, int) const {}

    /// Throws unless n is a count that Faiss takes and `data` is there for n >
    /// 0 rows.
    static void checkRows(idx_t n, const void* data, const char* name) {
        validateCount(n);
        if (n > 0 && !data) {
            throw InvalidArray(std::string(name) + " is null");
        }
    }

    /// The default stream of the resources; for callers that hold the lock.
    cudaStream_t defaultStream() const {
        return this->resources_->getDefaultStream(this->config_.device);
    }

    /// Called when an `add` of Base has thrown, with the number of vectors
    /// before: Base may have stored some, or a part of them. Nothing is in
    /// flight on the default stream, and the GPU is not lost.
    virtual void undoAdd(idx_t) noexcept {}

    std::unique_ptr<StagingPipeline> pipeline_;
    mutable SearchBatcher batcher_;

    /// What errors call the default stream.
    static constexpr const char* kOfIndex = "the index";

   private:
    using Rows = std::pair<idx_t, const void*>;
    static constexpr Rows kNoRows{-1, nullptr};
    /// What is being added: count, which may be 0, and array. Under the lock.
    Rows adding_ = kNoRows;

    /// How Faiss' searchImpl_ writes: OutputRows::byKernels.
    static constexpr bool kByKernels = true;

    static std::vector<OutputRows> resultsAt(
            idx_t* labels, float* distances, idx_t k) {
        return {{"labels", labels, k * sizeof(idx_t), kByKernels},
                {"distances", distances, k * sizeof(float), kByKernels}};
    }

    /// Labels, and the distances behind them in the same block.
    static std::vector<OutputRows> packedAt(void* block, idx_t k) {
        return {{"results", block, k * sizeof(idx_t), kByKernels},
                {"results", nullptr, k * sizeof(float), kByKernels, true}};
    }

    static SmallSearch packedSearch(
            idx_t n, const float* x, idx_t k, void* block) {
        auto* labels = static_cast<idx_t*>(block);
        return {n,
                x,
                k,
                block ? reinterpret_cast<float*>(labels + n * k) : nullptr,
                labels};
    }

    /// Of one query: a product and a sum for each component of each vector.
    double searchOperations() const {
        return 2.0 * this->ntotal * this->d;
    }

    /// outputs[0] are labels, outputs[1] distances: the larger elements first.
    /// For callers that hold the lock.
    TileWork searchWork(
            idx_t n, idx_t k, const faiss::SearchParameters* params) const {
        TileWork work;
        work.enqueue = [this, k, params](
                               faiss::gpu::GpuResources& on,
                               idx_t,
                               idx_t rows,
                               const void* const* in,
                               void* const* out) {
            searchOn(
                    on,
                    rows,
                    static_cast<const float*>(in[0]),
                    static_cast<int>(k),
                    static_cast<float*>(out[1]),
                    static_cast<idx_t*>(out[0]),
                    params);
        };
        work.rowOperations = searchOperations();
        planLanes(work, n, static_cast<int>(k));
        return work;
    }

    /// Throws unless it is a search that this index can answer. An output
    /// without a name is not asked for.
    void checkSearch(
            idx_t n,
            const InputRows& x,
            idx_t k,
            const std::vector<OutputRows>& outputs,
            const faiss::SearchParameters* params) const {
        FAISS_THROW_IF_NOT_MSG(this->is_trained, "Index not trained");
        validateK(k);
        checkRows(n, x.data, x.name);
        for (const OutputRows& output : outputs) {
            if (output.name && !output.behindLast) {
                checkRows(n, output.data, output.name);
            }
        }
        if (params && params->sel) {
            throw Unsupported(
                    "search among selected ids (SearchParameters::sel) is not "
                    "supported by this GPU index");
        }
    }

    /// Perhaps together with other threads' searches. `outputs` are where
    /// `mine` says.
    void searchBatched(
            const SmallSearch& mine,
            const std::vector<OutputRows>& outputs,
            const faiss::SearchParameters* params) const {
        NvtxRange range("search", mine.n);
        const InputRows x{"x", mine.x, this->d * sizeof(float)};
        checkSearch(mine.n, x, mine.k, outputs, params);
        if (mine.n == 0) {
            return;
        }
        // Not with others, who may have asked for something else; nor behind
        // one who waits for the lock that this thread holds.
        if (params || lock_->heldByThisThread()) {
            const auto guard = lockUnlessInterrupted(*lock_);
            runSearch(mine.n, x, mine.k, outputs, params);
            return;
        }
        SearchBatcher::Turn turn(batcher_, mine);
        if (turn.answered()) {
            return;
        }
        const auto guard = lockUnlessInterrupted(*lock_);
        if (!turn.takeAlong()) {
            runSearch(mine.n, x, mine.k, outputs, params);
            return;
        }
        const SmallSearch all = turn.together();
        runSearch(
                all.n,
                {"x", all.x, x.rowBytes},
                all.k,
                resultsAt(all.labels, all.distances, all.k),
                params);
        turn.share();
    }

    /// By itself. `makeWork` is called under the lock.
    template <typename MakeWork>
    void searchStaged(
            idx_t n,
            const InputRows& x,
            idx_t k,
            const std::vector<OutputRows>& outputs,
            const faiss::SearchParameters* params,
            const MakeWork& makeWork) const {
        NvtxRange range("search", n);
        checkSearch(n, x, k, outputs, params);
        if (n > 0) {
            const auto guard = lockUnlessInterrupted(*lock_);
            runStaged(n, {x}, outputs, makeWork());
        }
    }

    /// For callers that hold the lock.
    void runSearch(
            idx_t n,
            const InputRows& x,
            idx_t k,
            const std::vector<OutputRows>& outputs,
            const faiss::SearchParameters* params) const {
        runStaged(n, {x}, outputs, searchWork(n, k, params));
    }

    SearchProfile profileStaged(
            idx_t n,
            const InputRows& x,
            idx_t k,
            const std::vector<OutputRows>& outputs,
            const faiss::SearchParameters* params) const {
        NvtxRange range("search", n);
        checkSearch(n, x, k, outputs, params);
        if (n == 0) {
            return {};
        }
        const auto guard = lockUnlessInterrupted(*lock_);
        DeviceGuard device(this->config_.device);
        const RelaxedCapture relaxed;
        refuseCapture(defaultStream(), kOfIndex);
        return pipeline_->profile(n, {x}, outputs, searchWork(n, k, params));
    }

    /// Faiss enqueues the copy of a pinned or managed x and returns; we wait,
    /// so that the caller may change x, as with pageable memory.
    template <typename Add>
    void addGuarded(
            idx_t n, const void* x, size_t rowBytes, const Add& addToBase) {
        NvtxRange range("add", n);
        checkRows(n, x, "x");
        const auto guard = lockUnlessInterrupted(*lock_);
        if (adding_ == Rows(n, x)) {
            // The add of Base comes back here by its virtual functions.
            addToBase();
            return;
        }
        DeviceGuard device(this->config_.device);
        const RelaxedCapture relaxed;
        refuseCapture(defaultStream(), kOfIndex);
        const MemoryKind kind = n > 0 ? placementOf(x, n * rowBytes, "x").kind
                                      : MemoryKind::Pageable;
        const StagingPipeline::Change change(*pipeline_);
        // Not before: a signal's handler may have changed it.
        const idx_t before = this->ntotal;
        struct Adding {
            explicit Adding(Staged& index) : index_(index) {}
            ~Adding() {
                index_.adding_ = kNoRows;
            }
            Staged& index_;
        };
        const Adding adding(*this);
        adding_ = {n, x};
        try {
            addToBase();
        } catch (...) {
            const cudaStream_t stream = defaultStream();
            // Of x, which is the caller's again.
            FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(stream));
            if (!contextLost(stream)) {
                this->undoAdd(before);
            }
            throw;
        }
        if (kind == MemoryKind::Pinned || kind == MemoryKind::Managed) {
            pipeline_->waitForDefaultStream();
        }
    }
};

} // namespace gpu
} // namespace faiss_ext
