#include <faiss_ext/gpu/index/GpuIndexFlatCosine.h>

#include <faiss/IndexFlat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/compute/CosineSearcher.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/kernels/NormalizeRows.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>
#include <faiss_ext/gpu/index/CheckedArguments.h>

namespace faiss_ext {
namespace gpu {

using faiss::gpu::GpuIndexFlatConfig;
using faiss::gpu::GpuResources;
using faiss::gpu::GpuResourcesProvider;

namespace {

/// Vectors of another index go over in blocks of about so many bytes.
constexpr size_t kBytesOfBlock = size_t(256) << 20;

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

void GpuIndexFlatCosine::addFrom(
        const GpuIndexFlatCosine& index, idx_t i0, idx_t n) {
    FAISS_THROW_IF_NOT_FMT(
            index.d == d,
            "index: vectors of %lld dimensions; %lld are needed",
            static_cast<long long>(index.d),
            static_cast<long long>(d));
    const auto step = std::max<idx_t>(kBytesOfBlock / (d * sizeof(float)), 1);
    std::vector<float> block;
    for (idx_t done = 0; done < n; done += step) {
        const idx_t rows = std::min(step, n - done);
        block.resize(rows * d);
        index.reconstruct_n(i0 + done, rows, block.data());
        const StagedIndex::Locked lock(*this);
        struct AsGiven {
            explicit AsGiven(bool& asGiven) : asGiven_(asGiven) {
                asGiven_ = true;
            }
            ~AsGiven() {
                asGiven_ = false;
            }
            bool& asGiven_;
        };
        const AsGiven asGiven(addsAsGiven_);
        add(rows, block.data());
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

void GpuIndexFlatCosine::addImpl_(
        SearchImplCount n, const float* x, const idx_t* ids) {
    using Base = faiss::gpu::GpuIndexFlatIP;
    const int dims = static_cast<int>(d);
    if (addsAsGiven_ || ids) {
        Base::addImpl_(n, x, ids);
    } else if (flatConfig_.useFloat16) {
        // Before they are rounded. x is on this GPU, and perhaps the caller's.
        ScratchMemory copies(
                *resources_,
                config_.device,
                size_t(n) * dims * sizeof(float),
                counters());
        auto* const normalized = reinterpret_cast<float*>(copies.data());
        FAISS_EXT_CUDA_TRY(
                launchNormalizeRows(x, n, dims, normalized, defaultStream()));
        Base::addImpl_(n, normalized, ids);
    } else {
        // Where they are stored: x may be in host memory. (The norms that Faiss
        // keeps beside are of the vectors as given; only L2 distances are made
        // of these.)
        const idx_t before = ntotal;
        Base::addImpl_(n, x, ids);
        auto* const stored =
                static_cast<float*>(const_cast<void*>(viewOf(*data_).data)) +
                before * dims;
        FAISS_EXT_CUDA_TRY(
                launchNormalizeRows(stored, n, dims, stored, defaultStream()));
    }
}

} // namespace gpu
} // namespace faiss_ext
