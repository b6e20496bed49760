#include <faiss_ext/gpu/index/StagedFlat.h>

#include <faiss/IndexFlat.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/ExactSearcher.h>
#include <faiss_ext/gpu/compute/ExactVectors.h>
#include <faiss_ext/gpu/compute/FaissSearcher.h>
#include <faiss_ext/gpu/compute/SearchChoice.h>
#include <faiss_ext/gpu/compute/TensorCoreSelfTest.h>
#include <faiss_ext/gpu/compute/kernels/ExactFusedFilter.h>
#include <faiss_ext/gpu/compute/kernels/FindLarge.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

namespace faiss_ext {
namespace gpu {

namespace {

exact::Metric metricOf(faiss::MetricType metric) {
    return metric == faiss::METRIC_L2 ? exact::Metric::L2
                                      : exact::Metric::InnerProduct;
}

/// What the exact engine knows of a GPU.
struct KnownGpu {
    /// How its tensor cores add; nothing: the engine does not search there.
    std::optional<exact::TensorArithmetic> arithmetic;
    bool exactIsFastest = false;
    /// It has launchFusedFilter().
    bool fusedFilter = false;
};

/// Of the current GPU.
KnownGpu knownOfGpu(int device) {
    int major = 0;
    int minor = 0;
    FAISS_EXT_CUDA_TRY(cudaDeviceGetAttribute(
            &major, cudaDevAttrComputeCapabilityMajor, device));
    FAISS_EXT_CUDA_TRY(cudaDeviceGetAttribute(
            &minor, cudaDevAttrComputeCapabilityMinor, device));
    KnownGpu gpu;
    gpu.arithmetic = tensorArithmeticOf(major, minor);
    gpu.exactIsFastest = exactIsFastest(major, minor);
    FAISS_EXT_CUDA_TRY(exact::fusedFilterRuns(gpu.fusedFilter));
    return gpu;
}

/// Enqueues what every key of an empty index, -1, gives: Faiss' kernels abort
/// the process where nothing is stored. out: `floats` float32 numbers.
void fillWithoutVectors(
        const ComputeContext& context, void* out, idx_t floats, int byte) {
    FAISS_EXT_CUDA_TRY(
            cudaMemsetAsync(out, byte, floats * sizeof(float), context.stream));
}

} // namespace

/// What the searches of one index are made with.
struct FlatSearch {
    FlatSearch(
            faiss::gpu::GpuResources& resources,
            int device,
            TransferCounters& counters)
            : lanes(resources, counters), exact(resources, device, counters) {}

    ComputeLanes lanes;
    ExactVectors exact;
    /// Whether the rest is known.
    bool gpuIsKnown = false;
    KnownGpu gpu;
    /// Why the exact engine does not search there, or null.
    const char* whyNotExact = nullptr;
};

template <class Base>
StagedFlat<Base>::~StagedFlat() {
    if (!this->endCalls()) {
        // Faiss would abort the process on the failing cudaFree; the memory
        // went with the context.
        keepForEver({this->data_.release(), [](const void*) {}});
        // Kernels in flight, which nobody waits for, may count there.
        keepForEver({search_.release(), [](const void*) {}});
    }
}

template <class Base>
void StagedFlat<Base>::SearchDeleter::operator()(FlatSearch* search) const {
    delete search;
}

template <class Base>
typename StagedFlat<Base>::Search StagedFlat<Base>::makeSearch() const {
    return Search(new FlatSearch(
            *this->resources_, this->config_.device, this->counters()));
}

template <class Base>
KeptMemory& StagedFlat<Base>::keptMemory() const {
    return search_->exact;
}

/// Which kernels the next search uses, in the words of searched_by.
template <class Base>
const char* StagedFlat<Base>::chooseKernels() const {
    if (this->config().search == SearchKernels::Faiss) {
        return searched_by::kFaiss;
    }
    if (this->metric_type != faiss::METRIC_L2 &&
        this->metric_type != faiss::METRIC_INNER_PRODUCT) {
        return searched_by::kOtherMetric;
    }
    if (!searchedByFaiss(*this->data_)) {
        return searched_by::kOtherStore;
    }
    if (viewOf(*this->data_).n > std::numeric_limits<uint32_t>::max()) {
        return searched_by::kTooManyVectors;
    }
    FlatSearch& search = *search_;
    if (!search.gpuIsKnown) {
        this->runAlone([&] {
            const int device = this->config_.device;
            search.gpu = knownOfGpu(device);
            const bool chosen = search.gpu.exactIsFastest ||
                                this->config().search == SearchKernels::Exact;
            if (!search.gpu.arithmetic || !chosen) {
                search.whyNotExact = search.gpu.arithmetic
                                             ? searched_by::kNotMeasured
                                             : searched_by::kUnknownGpu;
                search.gpuIsKnown = true;
                return;
            }
            try {
                const std::optional<bool> passed = tensorCoresPass(
                        *this->resources_,
                        device,
                        *search.gpu.arithmetic,
                        this->counters());
                search.gpuIsKnown = passed.has_value();
                search.whyNotExact = !passed   ? searched_by::kNoSelfTest
                                     : *passed ? nullptr
                                               : searched_by::kFailedSelfTest;
            } catch (const faiss::FaissException& e) {
                rethrowUnlessOutOfMemory(e, this->defaultStream());
                // Tried again by the next search.
                search.whyNotExact = searched_by::kNoMemoryForSelfTest;
            }
        });
    }
    return search.whyNotExact ? search.whyNotExact : searched_by::kExact;
}

template <class Base>
std::unique_ptr<Searcher> StagedFlat<Base>::makeSearcher(
        idx_t, int, const faiss::SearchParameters*) const {
    const char* const searchedBy = chooseKernels();
    if (searchedBy != searched_by::kExact) {
        return std::make_unique<FaissSearcher>(
                search_->lanes,
                *this->data_,
                this->metric_type,
                this->metric_arg,
                searchedBy);
    }
    return std::make_unique<ExactSearcher>(ExactSearch{
            *this->resources_,
            this->config_.device,
            search_->exact,
            viewOf(*this->data_),
            metricOf(this->metric_type),
            *search_->gpu.arithmetic,
            search_->gpu.fusedFilter &&
                    this->config().exact.way != ExactWay::Scores,
            this->changes(),
            this->config().exact,
            this->counters()});
}

template <class Base>
void StagedFlat<Base>::addSearchCounts(TransferStats& stats) const {
    search_->exact.paths().addTo(stats);
}

template <class Base>
void StagedFlat<Base>::resetSearchCounts() {
    search_->exact.paths().reset();
}

template <class Base>
void StagedFlat<Base>::undoAdd(idx_t before) noexcept {
    narrowStore(*this->data_, before);
    this->ntotal = before;
}

template <class Base>
void StagedFlat<Base>::reconstruct(idx_t key, float* out) const {
    reconstruct_n(key, 1, out);
}

template <class Base>
void StagedFlat<Base>::reconstruct_n(idx_t i0, idx_t n, float* out) const {
    this->checkRows(n, out, "out");
    if (n == 0) {
        return;
    }
    const StagedIndex::Locked lock(*this, this->d);
    checkBounds(i0, n);
    RowFunction read([&](const ComputeContext&, const ComputeRows& rows) {
        Base::reconstruct_n(
                i0 + rows.first,
                rows.count,
                static_cast<float*>(rows.outputs[0]));
    });
    this->runRows(n, {}, {{"out", out, this->d * sizeof(float)}}, read);
}

template <class Base>
void StagedFlat<Base>::reconstruct_batch(
        idx_t n, const idx_t* keys, float* out) const {
    this->checkRows(n, keys, "keys");
    this->checkRows(n, out, "out");
    if (n == 0) {
        return;
    }
    const StagedIndex::Locked lock(*this, this->d);
    checkKeys(n, keys);
    RowFunction read(
            [&](const ComputeContext& context, const ComputeRows& rows) {
                if (this->ntotal == 0) {
                    fillWithoutVectors(
                            context, rows.outputs[0], rows.count * this->d, 0);
                    return;
                }
                Base::reconstruct_batch(
                        rows.count,
                        static_cast<const idx_t*>(rows.inputs[0]),
                        static_cast<float*>(rows.outputs[0]));
            });
    this->runRows(
            n,
            {{"keys", keys, sizeof(idx_t)}},
            {{"out", out, this->d * sizeof(float)}},
            read);
}

template <class Base>
void StagedFlat<Base>::compute_residual(
        const float* x, float* residual, idx_t key) const {
    compute_residual_n(1, x, residual, &key);
}

template <class Base>
void StagedFlat<Base>::compute_residual_n(
        idx_t n, const float* xs, float* residuals, const idx_t* keys) const {
    this->checkRows(n, xs, "xs");
    this->checkRows(n, residuals, "residuals");
    this->checkRows(n, keys, "keys");
    if (n == 0) {
        return;
    }
    const StagedIndex::Locked lock(*this, this->d);
    checkKeys(n, keys);
    RowFunction subtract([&](const ComputeContext& context,
                             const ComputeRows& rows) {
        if (this->ntotal == 0) {
            constexpr int kNan = 0xff;
            fillWithoutVectors(
                    context, rows.outputs[0], rows.count * this->d, kNan);
            return;
        }
        Base::compute_residual_n(
                rows.count,
                static_cast<const float*>(rows.inputs[1]),
                static_cast<float*>(rows.outputs[0]),
                static_cast<const idx_t*>(rows.inputs[0]));
    });
    const size_t rowBytes = this->d * sizeof(float);
    this->runRows(
            n,
            {{"keys", keys, sizeof(idx_t)}, {"xs", xs, rowBytes}},
            {{"residuals", residuals, rowBytes}},
            subtract);
}

template <class Base>
bool StagedFlat<Base>::beyondFloat16(idx_t i0, idx_t n) const {
    if (!this->flatConfig_.useFloat16 || n == 0) {
        return false;
    }
    const StagedIndex::Locked lock(*this);
    checkBounds(i0, n);
    constexpr uint16_t kInfinity = 0x7c00;
    // 256: Faiss' norms are sums of squares that are float16 numbers.
    constexpr uint16_t kLeastOfInfiniteSquare = 0x5c00;
    const uint16_t tooLarge = this->metric_type == faiss::METRIC_L2
                                      ? kLeastOfInfiniteSquare
                                      : kInfinity;
    RowFunction look([&](const ComputeContext& context,
                         const ComputeRows& rows) {
        auto* const found = static_cast<int32_t*>(rows.outputs[0]);
        FAISS_EXT_CUDA_TRY(
                cudaMemsetAsync(found, 0, sizeof(*found), context.stream));
        const VectorsView vectors = viewOf(*this->data_);
        FAISS_EXT_CUDA_TRY(launchFindLarge(
                static_cast<const uint16_t*>(vectors.data) + i0 * vectors.d,
                n * vectors.d,
                tooLarge,
                found,
                context.stream));
    });
    int32_t found = 0;
    this->runRows(1, {}, {{"found", &found, sizeof(found)}}, look);
    return found != 0;
}

template <class Base>
void StagedFlat<Base>::checkBounds(idx_t i0, idx_t n) const {
    FAISS_THROW_IF_NOT_FMT(
            i0 >= 0 && n >= 0 && n <= this->ntotal && i0 <= this->ntotal - n,
            "vectors %lld to %lld out of bounds (ntotal %lld)",
            static_cast<long long>(i0),
            static_cast<long long>(i0) + n - 1,
            static_cast<long long>(this->ntotal));
}

/// Faiss' kernels read whatever a key points at. Keys in host memory that the
/// GPU can write are checked after what the default stream held, which may
/// write them: one host wait.
template <class Base>
void StagedFlat<Base>::checkKeys(idx_t n, const idx_t* keys) const {
    const auto place = placementOf(keys, n * sizeof(idx_t), "keys");
    if (!place.onHost()) {
        return;
    }
    if (place.kind != MemoryKind::Pageable) {
        this->waitForArguments();
    }
    for (idx_t i = 0; i < n; ++i) {
        FAISS_THROW_IF_NOT_FMT(
                keys[i] >= -1 && keys[i] < this->ntotal,
                "key %lld out of bounds (ntotal %lld)",
                static_cast<long long>(keys[i]),
                static_cast<long long>(this->ntotal));
    }
}

template <class Base>
template <typename Cpu>
void StagedFlat<Base>::copyFromGuarded(Cpu* index) {
    this->changeVectors([&] {
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
    });
}

template class StagedFlat<faiss::gpu::GpuIndexFlat>;
template class StagedFlat<faiss::gpu::GpuIndexFlatL2>;
template class StagedFlat<faiss::gpu::GpuIndexFlatIP>;
template void StagedFlat<faiss::gpu::GpuIndexFlat>::copyFromGuarded(
        const faiss::IndexFlat*);
template void StagedFlat<faiss::gpu::GpuIndexFlatL2>::copyFromGuarded(
        faiss::IndexFlat*);
template void StagedFlat<faiss::gpu::GpuIndexFlatIP>::copyFromGuarded(
        faiss::IndexFlat*);

} // namespace gpu
} // namespace faiss_ext
