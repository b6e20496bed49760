#include <faiss_ext/gpu/index/StagedFlat.h>

#include <faiss/IndexFlat.h>

#include <type_traits>

#include <faiss_ext/gpu/compute/FaissSearcher.h>
#include <faiss_ext/gpu/compute/kernels/FindLarge.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Enqueues what every key of an empty index, -1, gives: Faiss' kernels abort
/// the process where nothing is stored. out: `floats` float32 numbers.
void fillWithoutVectors(
        const ComputeContext& context, void* out, idx_t floats, int byte) {
    FAISS_EXT_CUDA_TRY(
            cudaMemsetAsync(out, byte, floats * sizeof(float), context.stream));
}

} // namespace

template <class Base>
StagedFlat<Base>::~StagedFlat() {
    if (!this->endCalls()) {
        // Faiss would abort the process on the failing cudaFree; the memory
        // went with the context.
        keepForEver({this->data_.release(), [](const void*) {}});
    }
}

template <class Base>
void StagedFlat<Base>::LanesDeleter::operator()(ComputeLanes* lanes) const {
    delete lanes;
}

template <class Base>
typename StagedFlat<Base>::Lanes StagedFlat<Base>::makeLanes() const {
    return Lanes(new ComputeLanes(*this->resources_, this->counters()));
}

template <class Base>
std::unique_ptr<Searcher> StagedFlat<Base>::makeSearcher(
        idx_t, int, const faiss::SearchParameters*) const {
    return std::make_unique<FaissSearcher>(
            *lanes_, *this->data_, this->metric_type, this->metric_arg);
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
    const StagedIndex::Locked lock(*this);
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
    const StagedIndex::Locked lock(*this);
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
    const StagedIndex::Locked lock(*this);
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
