#pragma once

#include <faiss/gpu/GpuIndexFlat.h>

#include <memory>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/index/StagedConfig.h>
#include <faiss_ext/gpu/index/StagedFlat.h>

namespace faiss_ext {
namespace gpu {

/// faiss::gpu::GpuIndexFlat with staged results: exact search by any metric
/// that Faiss' class takes, vectors stored as float32 or float16. Each
/// constructor is Faiss' with an optional StagedConfig at its end; each throws
/// what Faiss' throws, InvalidArray for a bad StagedConfig, and InvalidDevice
/// for a GPU that is not there.
class FAISS_EXT_API GpuIndexFlat : public StagedFlat<faiss::gpu::GpuIndexFlat> {
   public:
    /// A copy of `index` on the GPU of `config`.
    GpuIndexFlat(
            faiss::gpu::GpuResourcesProvider* provider,
            const faiss::IndexFlat* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlat(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            const faiss::IndexFlat* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    /// An empty index of vectors with `dims` components.
    GpuIndexFlat(
            faiss::gpu::GpuResourcesProvider* provider,
            int dims,
            faiss::MetricType metric,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlat(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int dims,
            faiss::MetricType metric,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    ~GpuIndexFlat() override;

    /// Takes over the vectors and the metric of `index`; what was stored is
    /// dropped.
    void copyFrom(const faiss::IndexFlat* index);
};

/// faiss::gpu::GpuIndexFlatL2 with staged results (squared L2 distances).
class FAISS_EXT_API GpuIndexFlatL2
        : public StagedFlat<faiss::gpu::GpuIndexFlatL2> {
   public:
    GpuIndexFlatL2(
            faiss::gpu::GpuResourcesProvider* provider,
            faiss::IndexFlatL2* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatL2(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            faiss::IndexFlatL2* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatL2(
            faiss::gpu::GpuResourcesProvider* provider,
            int dims,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatL2(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int dims,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    ~GpuIndexFlatL2() override;

    /// As GpuIndexFlat::copyFrom; throws if the metric of `index` differs.
    void copyFrom(faiss::IndexFlat* index);
};

/// faiss::gpu::GpuIndexFlatIP with staged results (inner products).
class FAISS_EXT_API GpuIndexFlatIP
        : public StagedFlat<faiss::gpu::GpuIndexFlatIP> {
   public:
    GpuIndexFlatIP(
            faiss::gpu::GpuResourcesProvider* provider,
            faiss::IndexFlatIP* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatIP(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            faiss::IndexFlatIP* index,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatIP(
            faiss::gpu::GpuResourcesProvider* provider,
            int dims,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    GpuIndexFlatIP(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int dims,
            faiss::gpu::GpuIndexFlatConfig config =
                    faiss::gpu::GpuIndexFlatConfig(),
            StagedConfig staged = StagedConfig());

    ~GpuIndexFlatIP() override;

    /// As GpuIndexFlat::copyFrom; throws if the metric of `index` differs.
    void copyFrom(faiss::IndexFlat* index);
};

} // namespace gpu
} // namespace faiss_ext
