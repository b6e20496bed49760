#include <faiss_ext/gpu/index/GpuIndexFlatCosine.h>

#include <faiss/IndexFlat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/CosineSearcher.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/kernels/NormalizeRows.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>
#include <faiss_ext/gpu/index/CheckedArguments.h>

namespace faiss_ext {
namespace gpu {

using faiss::gpu::GpuIndexFlatConfig;
using faiss::gpu::GpuResources;
using faiss::gpu::GpuResourcesProvider;
using Faiss = faiss::gpu::GpuIndexFlatIP;

namespace {

/// Vectors of so many components in so many bytes, one at least.
idx_t rowsIn(size_t bytes, idx_t d) {
    return std::max<idx_t>(bytes / (d * sizeof(float)), 1);
}

} // namespace

GpuIndexFlatCosine::GpuIndexFlatCosine(
        GpuResourcesProvider* provider,
        const faiss::IndexFlat* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : GpuIndexFlatCosine(
                  provider,
                  static_cast<int>(checked(index)->d),
                  config,
                  std::move(staged)) {
    add(index->ntotal, index->get_xb());
}

GpuIndexFlatCosine::GpuIndexFlatCosine(
        std::shared_ptr<GpuResources> resources,
        const faiss::IndexFlat* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : GpuIndexFlatCosine(
                  resources,
                  static_cast<int>(checked(index)->d),
                  config,
                  std::move(staged)) {
    add(index->ntotal, index->get_xb());
}

GpuIndexFlatCosine::GpuIndexFlatCosine(
        GpuResourcesProvider* provider,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, dims, checked(config)) {}

GpuIndexFlatCosine::GpuIndexFlatCosine(
        std::shared_ptr<GpuResources> resources,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, dims, checked(config)) {}

GpuIndexFlatCosine::~GpuIndexFlatCosine() = default;

void GpuIndexFlatCosine::copyFrom(const faiss::IndexFlat* index) {
    faiss::IndexFlatIP none(checked(index)->d);
    const StagedIndex::Locked lock(*this);
    copyFromGuarded(static_cast<faiss::IndexFlat*>(&none));
    add(index->ntotal, index->get_xb());
}

void GpuIndexFlatCosine::add(idx_t n, const float* x) {
    addRows(n, x, false);
}

void GpuIndexFlatCosine::add_with_ids(
        idx_t n, const float* x, const idx_t* ids) {
    FAISS_THROW_IF_NOT_MSG(
            !ids, "add_with_ids not supported; IndexIDMap keeps ids");
    add(n, x);
}

#if FAISS_EXT_HAS_NUMERIC_TYPE
void GpuIndexFlatCosine::add_ex(
        idx_t n, const void* x, faiss::NumericType type) {
    add_with_ids_ex(n, x, type, nullptr);
}

void GpuIndexFlatCosine::add_with_ids_ex(
        idx_t n, const void* x, faiss::NumericType type, const idx_t* ids) {
    FAISS_THROW_IF_NOT_MSG(
            type == faiss::NumericType::Float32,
            "unsupported numeric type; give float32");
    add_with_ids(n, static_cast<const float*>(x), ids);
}
#endif

void GpuIndexFlatCosine::addFrom(
        const GpuIndexFlatCosine& index, idx_t i0, idx_t n) {
    FAISS_THROW_IF_NOT_FMT(
            index.d == d,
            "index: vectors of %lld dimensions; %lld are needed",
            static_cast<long long>(index.d),
            static_cast<long long>(d));
    FAISS_THROW_IF_NOT_FMT(
            n >= 0 && i0 >= 0 && i0 <= index.ntotal - n,
            "i0, n: %lld vectors from %lld on; index has %lld: give n >= 0, "
            "i0 >= 0 and i0 + n <= index.ntotal",
            static_cast<long long>(n),
            static_cast<long long>(i0),
            static_cast<long long>(index.ntotal));
    const idx_t step = rowsIn(tuning::kCosineCopyBytes, d);
    std::vector<float> block;
    for (idx_t done = 0; done < n; done += step) {
        const idx_t rows = std::min(step, n - done);
        block.resize(rows * d);
        index.reconstruct_n(i0 + done, rows, block.data());
        addRows(rows, block.data(), true);
    }
}

/// x: on the host or any GPU, normalised already or not.
void GpuIndexFlatCosine::addRows(idx_t n, const float* x, bool normalized) {
    addVectors(n, x, sizeof(float), [&] {
        if (flatConfig_.useFloat16) {
            addHalves(n, x, normalized);
            return;
        }
        const idx_t before = ntotal;
        Faiss::add(n, x);
        if (n > 0 && !normalized) {
            // Where they are stored. (The norms that Faiss keeps beside are of
            // the vectors as given; only L2 distances are made of these.)
            auto* const stored = static_cast<float*>(const_cast<void*>(
                                         viewOf(*data_).data)) +
                                 before * d;
            FAISS_EXT_CUDA_TRY(launchNormalizeRows(
                    stored, n, static_cast<int>(d), stored, defaultStream()));
        }
    });
}

/// The same to a float16 store, which gets the vectors when they are
/// normalised. Not within Faiss' `add`: where the GPU is lost, that would end
/// the process over the memory that it has taken.
void GpuIndexFlatCosine::addHalves(idx_t n, const float* x, bool normalized) {
    if (n == 0) {
        return;
    }
    const cudaStream_t stream = defaultStream();
    const size_t rowBytes = d * sizeof(float);
    const bool inPlace =
            placementOf(x, n * rowBytes, "x").onDevice(config_.device);
    const size_t blockBytes = std::clamp(
            resources_->getTempMemoryAvailable(config_.device) /
                    tuning::kCosineAddShare,
            tuning::kCosineAddLeastBytes,
            tuning::kCosineAddBytes);
    const idx_t step = std::min(n, rowsIn(blockBytes, d));
    reserveStore(*data_, ntotal + n, stream);
    ScratchMemory copies(
            *resources_, config_.device, step * rowBytes, counters());
    auto* const rows = reinterpret_cast<float*>(copies.data());
    for (idx_t first = 0; first < n; first += step) {
        const idx_t count = std::min(step, n - first);
        const float* from = x + first * d;
        if (!inPlace) {
            FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                    rows, from, count * rowBytes, cudaMemcpyDefault, stream));
            from = rows;
        }
        if (!normalized) {
            FAISS_EXT_CUDA_TRY(launchNormalizeRows(
                    from, count, static_cast<int>(d), rows, stream));
            from = rows;
        }
        Faiss::addImpl_(static_cast<SearchImplCount>(count), from, nullptr);
    }
}

bool GpuIndexFlatCosine::storesFloat16() const {
    return flatConfig_.useFloat16;
}

std::unique_ptr<Searcher> GpuIndexFlatCosine::makeSearcher(
        idx_t n, int k, const faiss::SearchParameters* params) const {
    return std::make_unique<CosineSearcher>(
            StagedFlat::makeSearcher(n, k, params),
            *resources_,
            config_.device,
            static_cast<int>(d),
            counters());
}

} // namespace gpu
} // namespace faiss_ext
