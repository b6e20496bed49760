#pragma once

// The fixture of tests that search flat indexes of any metric and storage, on
// the simulator and, unchanged, on a GPU.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <memory>
#include <vector>

#include "Calls.h"
#include "GpuTest.h"

namespace test {

class PortableFlat : public GpuTest {
   protected:
    static constexpr int kDims = 4;

    static std::unique_ptr<faiss_ext::gpu::GpuIndexFlat> makeIndex(
            const std::vector<float>& base,
            const TunedConfig& config,
            faiss::MetricType metric = faiss::METRIC_L2,
            bool float16 = false,
            faiss::gpu::GpuResourcesProvider* provider = &resources()) {
        faiss::gpu::GpuIndexFlatConfig storage;
        storage.useFloat16 = float16;
        auto index = std::make_unique<faiss_ext::gpu::GpuIndexFlat>(
                provider, kDims, metric, storage, config);
        index->add(base.size() / kDims, base.data());
        return index;
    }
};

} // namespace test
