#pragma once

#include <faiss/gpu/GpuIndex.h>

#include <memory>
#include <utility>

#include <faiss_ext/gpu/index/StagedIndex.h>

namespace faiss_ext {
namespace gpu {

/// A Faiss GPU index whose results come back in stream order through pinned
/// staging memory. `Base` is a subclass of faiss::gpu::GpuIndex; whatever takes
/// a `Base` takes this.
///
/// All arrays may lie in pageable, pinned or managed host memory or on any GPU,
/// each by itself. For every method below:
/// - Host outputs: the call returns when they are complete, after one wait for
///   one event; one that is estimated longer than 0.3 s waits for parts of its
///   work before. Device outputs only: it returns when the work is enqueued, in
///   the order of the index's default stream (of its resources).
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
class Staged : private StagedParts, public Base, public StagedIndex {
   public:
    /// `config`, then the arguments of a constructor of Base, of which the
    /// first gives the resources.
    template <typename Resources, typename... Args>
    Staged(const StagedConfig& config,
           const Resources& resources,
           Args&&... args)
            : StagedParts(resources),
              Base(resources, std::forward<Args>(args)...),
              StagedIndex(static_cast<const StagedParts&>(*this)) {
        this->endConstruction(*this, config);
    }

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
        this->searchRows(n, x, k, distances, labels, params);
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
        if (type == faiss::NumericType::Float32) {
            search(n,
                   static_cast<const float*>(x),
                   k,
                   distances,
                   labels,
                   params);
            return;
        }
        BaseSearcher searcher(*this, type, params);
        this->searchBy(
                searcher,
                n,
                x,
                faiss::get_numeric_type_size(type),
                k,
                distances,
                labels,
                params);
    }

    void add_ex(idx_t n, const void* x, faiss::NumericType type) override {
        this->addVectors(n, x, faiss::get_numeric_type_size(type), [&] {
            Base::add_ex(n, x, type);
        });
    }

    void add_with_ids_ex(
            idx_t n,
            const void* x,
            faiss::NumericType type,
            const idx_t* ids) override {
        this->addVectors(n, x, faiss::get_numeric_type_size(type), [&] {
            Base::add_with_ids_ex(n, x, type, ids);
        });
    }
#endif

    /// The labels of `search` alone: x [n, d], labels [n, k]. The distances
    /// stay on the GPU.
    void assign(idx_t n, const float* x, idx_t* labels, idx_t k = 1)
            const override {
        this->assignRows(n, x, labels, k);
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
        this->checkRows(n, recons, "recons");
        const StagedIndex::Locked lock(*this);
        search(n, x, k, distances, labels, params);
        this->reconstruct_batch(n * k, labels, recons);
    }

    /// Stores n vectors: x [n, d] float32. Waits for the searches in flight;
    /// returns when pageable and pinned x have been read. If it throws, the
    /// index has the vectors that it had; memory that it was given for more it
    /// keeps, unless it had none.
    void add(idx_t n, const float* x) override {
        this->addVectors(n, x, sizeof(float), [&] { Base::add(n, x); });
    }

    /// The same with the ids [n] int64 of the vectors, where Base takes them.
    void add_with_ids(idx_t n, const float* x, const idx_t* ids) override {
        this->addVectors(
                n, x, sizeof(float), [&] { Base::add_with_ids(n, x, ids); });
    }

    /// Forgets all vectors, once the searches in flight are done. Throws
    /// CudaError.
    void reset() override {
        this->changeVectors([this] { Base::reset(); });
    }

   protected:
    /// Finds neighbours by the searchImpl_ of Base. Its needs are those of a
    /// flat index: a class that looks at some of the vectors only, or writes
    /// results by other means than kernels, overrides them.
    class BaseSearcher : public Searcher {
       public:
        BaseSearcher(const Staged& index, const faiss::SearchParameters* params)
                : index_(index), params_(params) {}
#if FAISS_EXT_HAS_NUMERIC_TYPE
        BaseSearcher(
                const Staged& index,
                faiss::NumericType type,
                const faiss::SearchParameters* params)
                : index_(index), params_(params), type_(type) {}
#endif

        ComputeNeeds needs(idx_t, int) const override {
            ComputeNeeds needs;
            needs.rowOperations = 2.0 * index_.ntotal * index_.d;
            needs.storesToPinned = true;
            return needs;
        }

        const char* searchedBy() const override {
            return index_.whyFaissSearches();
        }

        void enqueue(
                const ComputeContext&,
                const QueryRows& queries,
                const SearchResults& results) override {
#if FAISS_EXT_HAS_NUMERIC_TYPE
            index_.searchImpl_ex_(
                    queries.n,
                    queries.x,
                    type_,
                    queries.k,
                    results.distances,
                    results.labels,
                    params_);
#else
            index_.searchImpl_(
                    static_cast<SearchImplCount>(queries.n),
                    static_cast<const float*>(queries.x),
                    queries.k,
                    results.distances,
                    results.labels,
                    params_);
#endif
        }

       private:
        const Staged& index_;
        const faiss::SearchParameters* const params_;
#if FAISS_EXT_HAS_NUMERIC_TYPE
        const faiss::NumericType type_ = faiss::NumericType::Float32;
#endif
    };

    std::unique_ptr<Searcher> makeSearcher(
            idx_t, int, const faiss::SearchParameters* params) const override {
        return std::make_unique<BaseSearcher>(*this, params);
    }
};

} // namespace gpu
} // namespace faiss_ext
