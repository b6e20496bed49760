#pragma once

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuIndex.h>
#include <faiss/gpu/GpuResources.h>

#include <functional>
#include <memory>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/CallArrays.h>
#include <faiss_ext/gpu/compute/Searcher.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>
#include <faiss_ext/gpu/index/StagedConfig.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

struct CallConfig;
class KeptMemory;
class ResourcesLock;

/// Holds what the calls of an index are made with, and the lock of the
/// resources while the other base classes are made and destroyed, since these
/// allocate, copy and free then, also while somebody captures a stream. The
/// first base of a class; not polymorphic, so that the class of Faiss begins
/// where the object does.
class FAISS_EXT_API StagedParts {
   protected:
    /// Throws faiss::FaissException if there are no resources, and as
    /// lockUnlessInterrupted.
    explicit StagedParts(std::shared_ptr<faiss::gpu::GpuResources> resources);
    explicit StagedParts(faiss::gpu::GpuResourcesProvider* provider);
    ~StagedParts();
    StagedParts(const StagedParts&) = delete;
    StagedParts& operator=(const StagedParts&) = delete;

   private:
    friend class StagedIndex;
    struct Parts;
    const std::unique_ptr<Parts> parts_;
};

/// What all indexes of this library are, whatever class of Faiss each derives
/// from: `dynamic_cast<StagedIndex*>(index)` finds it. What they can beyond
/// faiss::Index, and how their calls run; Staged has the rules.
class FAISS_EXT_API StagedIndex {
   public:
    virtual ~StagedIndex();
    StagedIndex(const StagedIndex&) = delete;
    StagedIndex& operator=(const StagedIndex&) = delete;

    /// `search`, and where its time went: x [n, d] float32, distances [n, k]
    /// float32, labels [n, k] int64, in any memory. Returns when the outputs
    /// are complete, wherever they lie; waits a few times more than `search`.
    /// Work in flight on the index's default stream is waited for first, and
    /// not counted. n = 0: an empty profile. Throws as `search`.
    SearchProfile profile_search(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params = nullptr) const;

    /// Work of this index enqueued from now on comes after what `stream` holds
    /// now: for arrays that another library's stream is still writing. A stream
    /// of the GPU `device`; cudaStreamLegacy and cudaStreamPerThread are those
    /// of that GPU. The host does not wait for the GPU. Throws CudaError, and
    /// as lockUnlessInterrupted.
    void waitForStream(cudaStream_t stream, int device) const;

    /// The same for a stream of the index's GPU.
    void waitForStream(cudaStream_t stream) const;

    /// What `stream` of the GPU `device` is given from now on comes after the
    /// work that this index has enqueued so far: for device results that
    /// another stream will read. The host does not wait for the GPU. Throws
    /// CudaError, and as lockUnlessInterrupted.
    void makeStreamWait(cudaStream_t stream, int device) const;

    /// The same for a stream of the index's GPU.
    void makeStreamWait(cudaStream_t stream) const;

    /// What this index has moved and waited for; any thread, does not wait.
    TransferStats getTransferStats() const;

    /// Sets the counts back to zero.
    void resetTransferStats();

   protected:
    /// `parts` are the first base of the same object. The class derived from
    /// both calls `endConstruction` at the end of its constructor and
    /// `beginDestruction` in its destructor, on the same threads.
    explicit StagedIndex(const StagedParts& parts);
    void endConstruction(
            faiss::gpu::GpuIndex& index, const StagedConfig& config);
    void beginDestruction() noexcept;

    /// Waits for the calls in flight and frees their memory, if that is not
    /// done yet. False where the memory of the index is to be left alone too: a
    /// GPU that is lost, or a lock that is not given back any more; then the
    /// resources are kept for ever.
    bool endCalls() noexcept;

    /// The lock of the resources (lockUnlessInterrupted) for one scope;
    /// recursive.
    class FAISS_EXT_API Locked {
       public:
        explicit Locked(const StagedIndex& index);
        /// For rows of `d` components, as the index had before: throws where
        /// another thread's copyFrom has changed it meanwhile.
        Locked(const StagedIndex& index, int d);
        ~Locked();
        Locked(const Locked&) = delete;
        Locked& operator=(const Locked&) = delete;

       private:
        // Which outlives the index where that ends without its lock.
        ResourcesLock& lock_;
    };

    /// How neighbours are found, for one search of n queries; `needs` may be
    /// asked for fewer. Under the lock.
    virtual std::unique_ptr<Searcher> makeSearcher(
            idx_t n, int k, const faiss::SearchParameters* params) const = 0;

    /// Adds what a search counts by itself, and sets that back to zero; any
    /// thread.
    virtual void addSearchCounts(TransferStats& stats) const;
    virtual void resetSearchCounts();

    /// `memory` is freed by endCalls, under the lock, or left alone where the
    /// memory of the index is.
    void keepUntilEnd(KeptMemory& memory);

    /// How often the vectors have been changed, or may have been. Under the
    /// lock.
    uint64_t changes() const;

    /// Called when an `add` of Base has thrown, with the number of vectors
    /// before: Base may have stored some, or a part of them. Nothing is in
    /// flight on the default stream, and the GPU is not lost.
    virtual void undoAdd(idx_t before) noexcept;

    /// A search, perhaps together with other threads' searches of few queries.
    void searchRows(
            idx_t n,
            const float* x,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params) const;

    /// How many threads wait for their turn in searchRows.
    size_t waitingSearches() const;

    /// The labels alone. The distances stay on the GPU.
    void assignRows(idx_t n, const float* x, idx_t* labels, idx_t k) const;

    /// A search by itself, of queries that `searcher` takes.
    void searchBy(
            Searcher& searcher,
            idx_t n,
            const void* x,
            size_t componentBytes,
            idx_t k,
            float* distances,
            idx_t* labels,
            const faiss::SearchParameters* params) const;

    /// Any computation of n >= 1 rows, as CallRunner::run has it.
    void runRows(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            Computation& computation) const;

    /// `work`, which may enqueue and wait, as a call of its own with the
    /// index's GPU current. Under the lock. Throws CudaError, Unsupported, and
    /// what `work` throws.
    void runAlone(const std::function<void()>& work) const;

    /// Waits, under the lock, for what the default stream holds.
    void waitForArguments() const;

    /// `change` under the lock, once the searches in flight are done, with the
    /// index's GPU current. Throws CudaError, and what `change` throws.
    void changeVectors(const std::function<void()>& change);

    /// The same for `add`, which Base calls back by its virtual functions: then
    /// it runs as it is. Faiss enqueues the copy of a pinned or managed x and
    /// returns; this waits, so that the caller may change x, as with pageable
    /// memory.
    void addVectors(
            idx_t n,
            const void* x,
            size_t componentBytes,
            const std::function<void()>& add);

    /// Throws unless n is a count that Faiss takes and `data` is there for n >
    /// 0 rows.
    static void checkRows(idx_t n, const void* data, const char* name);

    /// The default stream of the resources; for callers that hold the lock.
    cudaStream_t defaultStream() const;

    TransferCounters& counters() const;
    const CallConfig& config() const;

    /// Searcher::searchedBy of searches that only Faiss' kernels can make.
    const char* whyFaissSearches() const;

   private:
    /// Runs a search, and notes by what.
    void runSearch(
            Searcher& searcher,
            idx_t n,
            const InputRows& x,
            idx_t k,
            const std::vector<OutputRows>& outputs) const;

    void checkSearch(
            idx_t n,
            const InputRows& x,
            idx_t k,
            const std::vector<OutputRows>& outputs,
            const faiss::SearchParameters* params) const;

    StagedParts::Parts* const parts_;
};

} // namespace gpu
} // namespace faiss_ext
