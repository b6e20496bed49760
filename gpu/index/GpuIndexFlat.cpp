#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <faiss/IndexFlat.h>

#include <faiss_ext/gpu/index/CheckedArguments.h>

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
        : StagedFlat(staged, provider, checked(index), checked(config)) {}

GpuIndexFlat::GpuIndexFlat(
        std::shared_ptr<GpuResources> resources,
        const faiss::IndexFlat* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, checked(index), checked(config)) {}

GpuIndexFlat::GpuIndexFlat(
        GpuResourcesProvider* provider,
        int dims,
        faiss::MetricType metric,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, dims, metric, checked(config)) {}

GpuIndexFlat::GpuIndexFlat(
        std::shared_ptr<GpuResources> resources,
        int dims,
        faiss::MetricType metric,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, dims, metric, checked(config)) {}

GpuIndexFlat::~GpuIndexFlat() = default;

void GpuIndexFlat::copyFrom(const faiss::IndexFlat* index) {
    copyFromGuarded(checked(index));
}

GpuIndexFlatL2::GpuIndexFlatL2(
        GpuResourcesProvider* provider,
        faiss::IndexFlatL2* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, checked(index), checked(config)) {}

GpuIndexFlatL2::GpuIndexFlatL2(
        std::shared_ptr<GpuResources> resources,
        faiss::IndexFlatL2* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, checked(index), checked(config)) {}

GpuIndexFlatL2::GpuIndexFlatL2(
        GpuResourcesProvider* provider,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, dims, checked(config)) {}

GpuIndexFlatL2::GpuIndexFlatL2(
        std::shared_ptr<GpuResources> resources,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, dims, checked(config)) {}

GpuIndexFlatL2::~GpuIndexFlatL2() = default;

void GpuIndexFlatL2::copyFrom(faiss::IndexFlat* index) {
    copyFromGuarded(checked(index));
}

GpuIndexFlatIP::GpuIndexFlatIP(
        GpuResourcesProvider* provider,
        faiss::IndexFlatIP* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, checked(index), checked(config)) {}

GpuIndexFlatIP::GpuIndexFlatIP(
        std::shared_ptr<GpuResources> resources,
        faiss::IndexFlatIP* index,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, checked(index), checked(config)) {}

GpuIndexFlatIP::GpuIndexFlatIP(
        GpuResourcesProvider* provider,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, provider, dims, checked(config)) {}

GpuIndexFlatIP::GpuIndexFlatIP(
        std::shared_ptr<GpuResources> resources,
        int dims,
        GpuIndexFlatConfig config,
        StagedConfig staged)
        : StagedFlat(staged, resources, dims, checked(config)) {}

GpuIndexFlatIP::~GpuIndexFlatIP() = default;

void GpuIndexFlatIP::copyFrom(faiss::IndexFlat* index) {
    copyFromGuarded(checked(index));
}

} // namespace gpu
} // namespace faiss_ext
