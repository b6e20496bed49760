#include <faiss_ext/gpu/index/StagedIndex.h>

#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/cuda/NvtxRange.h>
#include <faiss_ext/gpu/cuda/StreamOrder.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/SearchBatcher.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Labels first: their elements are the larger ones.
std::vector<OutputRows> resultsAt(idx_t* labels, float* distances, idx_t k) {
    return {{"labels", labels, k * sizeof(idx_t)},
            {"distances", distances, k * sizeof(float)}};
}

} // namespace

struct StagedParts::Parts {
    explicit Parts(std::shared_ptr<faiss::gpu::GpuResources> given)
            : lock(lockOf(given.get())), atEnds(lockUnlessInterrupted(*lock)) {
        FAISS_THROW_IF_NOT_MSG(given, "no GpuResources given");
        relaxed.emplace();
        resources = std::move(given);
    }

    const std::shared_ptr<ResourcesLock> lock;
    /// Held while the index is made and destroyed, and not in between.
    std::unique_lock<ResourcesLock> atEnds;
    std::optional<RelaxedCapture> relaxed;
    /// Perhaps the last owner: these end under the lock, and in relaxed mode.
    std::shared_ptr<faiss::gpu::GpuResources> resources;

    // From endConstruction on.
    faiss::gpu::GpuIndex* index = nullptr;
    int device = 0;
    std::unique_ptr<CallRunner> runner;
    std::optional<SearchBatcher> batcher;

    /// What is being added: count, which may be 0, and array. Under the lock.
    using Rows = std::pair<idx_t, const void*>;
    static constexpr Rows kNoRows{-1, nullptr};
    Rows adding = kNoRows;
    /// Of the vectors. Under the lock.
    uint64_t changes = 0;
};

namespace {

/// For what works on the index's GPU: that is current, captures of others stay
/// unharmed, and one of the index's own stream is refused.
class OnGpu {
   public:
    OnGpu(faiss::gpu::GpuResources& resources, int device) : current_(device) {
        refuseCapture(resources.getDefaultStream(device), "the index");
    }

   private:
    const DeviceGuard current_;
    const RelaxedCapture relaxed_;
};

} // namespace

StagedParts::StagedParts(std::shared_ptr<faiss::gpu::GpuResources> resources)
        : parts_(std::make_unique<Parts>(std::move(resources))) {}

StagedParts::StagedParts(faiss::gpu::GpuResourcesProvider* provider)
        : StagedParts(provider ? provider->getResources() : nullptr) {}

StagedParts::~StagedParts() = default;

StagedIndex::StagedIndex(const StagedParts& parts)
        : parts_(parts.parts_.get()) {}

StagedIndex::~StagedIndex() = default;

void StagedIndex::endConstruction(
        faiss::gpu::GpuIndex& index, const StagedConfig& config) {
    parts_->index = &index;
    parts_->device = index.getDevice();
    parts_->runner = std::make_unique<CallRunner>(
            parts_->resources, parts_->device, config);
    parts_->batcher.emplace(complete(config).batchedQueries);
    parts_->relaxed.reset();
    parts_->atEnds.unlock();
}

bool StagedIndex::endCalls() noexcept {
    const LockForEnd lock(*parts_->lock);
    if (lock.held()) {
        parts_->runner.reset();
    } else if (parts_->runner) {
        keepForEver(std::shared_ptr<CallRunner>(std::move(parts_->runner)));
    }
    // Asked after the last CUDA call of ours; as in ~CallRunner.
    if (lock.held() &&
        !contextLost(parts_->resources->getAsyncCopyStream(parts_->device))) {
        return true;
    }
    keepForEver(parts_->resources);
    return false;
}

void StagedIndex::beginDestruction() noexcept {
    if (parts_->runner) {
        endCalls();
    }
    if (parts_->lock->lockForEnd()) {
        parts_->atEnds =
                std::unique_lock<ResourcesLock>(*parts_->lock, std::adopt_lock);
    }
    parts_->relaxed.emplace();
}

StagedIndex::Locked::Locked(const StagedIndex& index)
        : lock_(*index.parts_->lock) {
    lockUnlessInterrupted(lock_).release();
}

StagedIndex::Locked::Locked(const StagedIndex& index, int d) : Locked(index) {
    const int now = index.parts_->index->d;
    FAISS_THROW_IF_NOT_FMT(
            now == d,
            "d: the index had %d dimensions when the call began; copyFrom in "
            "another thread has given it %d since. Fix: let calls end before "
            "vectors of other dimensions come",
            d,
            now);
}

StagedIndex::Locked::~Locked() {
    lock_.unlock();
}

void StagedIndex::waitForStream(cudaStream_t stream, int device) const {
    const Locked lock(*this);
    orderStreams(stream, device, defaultStream(), parts_->device);
}

void StagedIndex::waitForStream(cudaStream_t stream) const {
    waitForStream(stream, parts_->device);
}

void StagedIndex::makeStreamWait(cudaStream_t stream, int device) const {
    const Locked lock(*this);
    orderStreams(defaultStream(), parts_->device, stream, device);
}

void StagedIndex::makeStreamWait(cudaStream_t stream) const {
    makeStreamWait(stream, parts_->device);
}

TransferStats StagedIndex::getTransferStats() const {
    TransferStats stats = counters().snapshot();
    addSearchCounts(stats);
    return stats;
}

void StagedIndex::resetTransferStats() {
    counters().reset();
    resetSearchCounts();
}

void StagedIndex::addSearchCounts(TransferStats&) const {}

void StagedIndex::resetSearchCounts() {}

void StagedIndex::keepUntilEnd(KeptMemory& memory) {
    parts_->runner->keep(memory);
}

uint64_t StagedIndex::changes() const {
    return parts_->changes;
}

const CallConfig& StagedIndex::config() const {
    return parts_->runner->config();
}

const char* StagedIndex::whyFaissSearches() const {
    return config().search == SearchKernels::Exact ? searched_by::kOtherIndex
                                                   : searched_by::kFaiss;
}

TransferCounters& StagedIndex::counters() const {
    return parts_->runner->counters();
}

cudaStream_t StagedIndex::defaultStream() const {
    return parts_->resources->getDefaultStream(parts_->device);
}

void StagedIndex::checkRows(idx_t n, const void* data, const char* name) {
    validateCount(n);
    if (n > 0 && !data) {
        throw InvalidArray(std::string(name) + " is null");
    }
}

/// Throws unless it is a search that this index can answer. An output without a
/// name is not asked for.
void StagedIndex::checkSearch(
        idx_t n,
        const InputRows& x,
        idx_t k,
        const std::vector<OutputRows>& outputs,
        const faiss::SearchParameters* params) const {
    FAISS_THROW_IF_NOT_MSG(parts_->index->is_trained, "Index not trained");
    validateK(k);
    checkRows(n, x.data, x.name);
    for (const OutputRows& output : outputs) {
        if (output.name) {
            checkRows(n, output.data, output.name);
        }
    }
    if (params && params->sel) {
        throw Unsupported(
                "search among selected ids (SearchParameters::sel) is not "
                "supported by this GPU index");
    }
}

void StagedIndex::searchRows(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    NvtxRange range("search", n);
    const int d = parts_->index->d;
    const size_t rowBytes = d * sizeof(float);
    const auto outputs = resultsAt(labels, distances, k);
    checkSearch(n, {"x", x, rowBytes}, k, outputs, params);
    if (n == 0) {
        return;
    }
    const auto run = [&](const SmallSearch& search) {
        const int neighbours = static_cast<int>(search.k);
        runSearch(
                *makeSearcher(search.n, neighbours, params),
                search.n,
                {"x", search.x, rowBytes},
                search.k,
                resultsAt(search.labels, search.distances, search.k));
    };
    const SmallSearch mine{n, d, x, k, distances, labels};
    // Not with others, who may have asked for something else; nor behind one
    // who waits for the lock that this thread holds.
    if (params || parts_->lock->heldByThisThread()) {
        const Locked lock(*this, d);
        run(mine);
        return;
    }
    SearchBatcher::Turn turn(*parts_->batcher, mine);
    if (turn.answered()) {
        return;
    }
    const Locked lock(*this, d);
    if (!turn.takeAlong()) {
        run(mine);
        return;
    }
    run(turn.together());
    turn.share();
}

size_t StagedIndex::waitingSearches() const {
    return parts_->batcher->waiting();
}

void StagedIndex::assignRows(
        idx_t n, const float* x, idx_t* labels, idx_t k) const {
    NvtxRange range("search", n);
    const int d = parts_->index->d;
    const InputRows queries{"x", x, d * sizeof(float)};
    const std::vector<OutputRows> outputs{
            {"labels", labels, k * sizeof(idx_t)},
            {nullptr, nullptr, k * sizeof(float)}};
    checkSearch(n, queries, k, outputs, nullptr);
    if (n > 0) {
        const Locked lock(*this, d);
        const auto searcher = makeSearcher(n, static_cast<int>(k), nullptr);
        runSearch(*searcher, n, queries, k, outputs);
    }
}

void StagedIndex::searchBy(
        Searcher& searcher,
        idx_t n,
        const void* x,
        size_t componentBytes,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    NvtxRange range("search", n);
    const int d = parts_->index->d;
    const InputRows queries{"x", x, d * componentBytes};
    const auto outputs = resultsAt(labels, distances, k);
    checkSearch(n, queries, k, outputs, params);
    if (n > 0) {
        const Locked lock(*this, d);
        runSearch(searcher, n, queries, k, outputs);
    }
}

void StagedIndex::runSearch(
        Searcher& searcher,
        idx_t n,
        const InputRows& x,
        idx_t k,
        const std::vector<OutputRows>& outputs) const {
    counters().searchedBy = searcher.searchedBy();
    SearchComputation computation(searcher, static_cast<int>(k));
    runRows(n, {x}, outputs, computation);
}

SearchProfile StagedIndex::profile_search(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    NvtxRange range("search", n);
    const int d = parts_->index->d;
    const InputRows queries{"x", x, d * sizeof(float)};
    const auto outputs = resultsAt(labels, distances, k);
    checkSearch(n, queries, k, outputs, params);
    if (n == 0) {
        return {};
    }
    const Locked lock(*this, d);
    const int neighbours = static_cast<int>(k);
    const auto searcher = makeSearcher(n, neighbours, params);
    counters().searchedBy = searcher->searchedBy();
    SearchComputation computation(*searcher, neighbours);
    const OnGpu onGpu(*parts_->resources, parts_->device);
    return parts_->runner->profile(n, {queries}, outputs, computation);
}

void StagedIndex::runRows(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        Computation& computation) const {
    const Locked lock(*this);
    const OnGpu onGpu(*parts_->resources, parts_->device);
    parts_->runner->run(n, inputs, outputs, computation);
}

void StagedIndex::waitForArguments() const {
    const Locked lock(*this);
    const OnGpu onGpu(*parts_->resources, parts_->device);
    parts_->runner->waitForArguments();
}

void StagedIndex::runAlone(const std::function<void()>& work) const {
    const OnGpu onGpu(*parts_->resources, parts_->device);
    const CallRunner::UnderWay underWay(*parts_->runner);
    work();
}

void StagedIndex::changeVectors(const std::function<void()>& change) {
    const Locked lock(*this);
    const OnGpu onGpu(*parts_->resources, parts_->device);
    const CallRunner::Change changing(*parts_->runner);
    ++parts_->changes;
    change();
}

void StagedIndex::undoAdd(idx_t) noexcept {}

void StagedIndex::addVectors(
        idx_t n,
        const void* x,
        size_t componentBytes,
        const std::function<void()>& add) {
    NvtxRange range("add", n);
    checkRows(n, x, "x");
    const int d = parts_->index->d;
    const Locked lock(*this, d);
    if (parts_->adding == StagedParts::Parts::Rows(n, x)) {
        add();
        return;
    }
    const OnGpu onGpu(*parts_->resources, parts_->device);
    const MemoryKind kind =
            n > 0 ? placementOf(x, n * d * componentBytes, "x").kind
                  : MemoryKind::Pageable;
    const CallRunner::Change changing(*parts_->runner);
    ++parts_->changes;
    // Not before: a signal's handler may have changed it.
    const idx_t before = parts_->index->ntotal;
    struct Adding {
        explicit Adding(StagedParts::Parts& parts) : parts_(parts) {}
        ~Adding() {
            parts_.adding = StagedParts::Parts::kNoRows;
        }
        StagedParts::Parts& parts_;
    };
    const Adding adding(*parts_);
    parts_->adding = {n, x};
    try {
        add();
    } catch (...) {
        const cudaStream_t stream = defaultStream();
        // Of x, which is the caller's again.
        FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(stream));
        if (!contextLost(stream)) {
            undoAdd(before);
        }
        throw;
    }
    if (kind == MemoryKind::Pinned || kind == MemoryKind::Managed) {
        parts_->runner->waitForDefaultStream();
    }
}

} // namespace gpu
} // namespace faiss_ext
