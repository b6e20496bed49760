#include <faiss_ext/gpu/GpuIndexFlat.h>

#include <faiss/IndexFlat.h>

namespace faiss_ext {
namespace gpu {

using faiss::gpu::GpuIndexFlatConfig;
using faiss::gpu::GpuResources;
using faiss::gpu::GpuResourcesProvider;

GpuIndexFlat::GpuIndexFlat(
        GpuResourcesProvider* provider,
        const faiss::IndexFlat* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, index, config) {}

GpuIndexFlat::GpuIndexFlat(
        std::shared_ptr<GpuResources> resources,
        const faiss::IndexFlat* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, index, config) {}

GpuIndexFlat::GpuIndexFlat(
        GpuResourcesProvider* provider,
        int dims,
        faiss::MetricType metric,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, dims, metric, config) {}

GpuIndexFlat::GpuIndexFlat(
        std::shared_ptr<GpuResources> resources,
        int dims,
        faiss::MetricType metric,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, dims, metric, config) {}

GpuIndexFlat::~GpuIndexFlat() = default;

void GpuIndexFlat::copyFrom(const faiss::IndexFlat* index) {
    copyFromGuarded(index);
}

GpuIndexFlatL2::GpuIndexFlatL2(
        GpuResourcesProvider* provider,
        faiss::IndexFlatL2* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, index, config) {}

GpuIndexFlatL2::GpuIndexFlatL2(
        std::shared_ptr<GpuResources> resources,
        faiss::IndexFlatL2* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, index, config) {}

GpuIndexFlatL2::GpuIndexFlatL2(
        GpuResourcesProvider* provider,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, dims, config) {}

GpuIndexFlatL2::GpuIndexFlatL2(
        std::shared_ptr<GpuResources> resources,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, dims, config) {}

GpuIndexFlatL2::~GpuIndexFlatL2() = default;

void GpuIndexFlatL2::copyFrom(faiss::IndexFlat* index) {
    copyFromGuarded(index);
}

GpuIndexFlatIP::GpuIndexFlatIP(
        GpuResourcesProvider* provider,
        faiss::IndexFlatIP* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, index, config) {}

GpuIndexFlatIP::GpuIndexFlatIP(
        std::shared_ptr<GpuResources> resources,
        faiss::IndexFlatIP* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, index, config) {}

GpuIndexFlatIP::GpuIndexFlatIP(
        GpuResourcesProvider* provider,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, dims, config) {}

GpuIndexFlatIP::GpuIndexFlatIP(
        std::shared_ptr<GpuResources> resources,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, dims, config) {}

GpuIndexFlatIP::~GpuIndexFlatIP() = default;

void GpuIndexFlatIP::copyFrom(faiss::IndexFlat* index) {
    copyFromGuarded(index);
}

} // namespace gpu
} // namespace faiss_ext
