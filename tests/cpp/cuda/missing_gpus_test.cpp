// What names a GPU that is not there, or nothing, is refused before Faiss ends
// the process over it or loses the vectors.

#include <faiss_ext/gpu/cuda/Devices.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuCloner.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <faiss/IndexFlat.h>

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "support/GpuTest.h"
#include "support/Neighbours.h"

namespace {

using namespace faiss_ext::gpu;
using namespace test;

constexpr int kDims = 8;

class MissingGpusTest : public GpuTest {
   protected:
    void SetUp() override {
        GpuTest::SetUp();
        cpu_.add(30, base_.data());
        ip_.add(30, base_.data());
    }

    static std::vector<int> missing() {
        return {-1,
                visibleDevices(),
                99,
                std::numeric_limits<int>::min(),
                std::numeric_limits<int>::max()};
    }

    static faiss::gpu::GpuIndexFlatConfig on(int device) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.device = device;
        return config;
    }

    /// That `make` throws InvalidDevice, with a text that begins with `name`
    /// and names the GPU, and leaves no error behind.
    static void expectRefused(
            const std::string& name,
            const std::string& gpu,
            const std::function<void()>& make) {
        try {
            make();
            ADD_FAILURE() << name << " " << gpu << " is taken";
        } catch (const InvalidDevice& e) {
            const std::string text = e.what();
            EXPECT_EQ(text.rfind(name + ":", 0), 0u) << text;
            EXPECT_NE(text.find(gpu), std::string::npos) << text;
        }
        EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    }

    const std::vector<float> base_ = randomVectors(30, kDims, 1);
    faiss::IndexFlatL2 cpu_{kDims};
    faiss::IndexFlatIP ip_{kDims};
};

TEST_F(MissingGpusTest, gpus_are_counted) {
    EXPECT_EQ(gpuCount(), visibleDevices());
    for (int device = 0; device < gpuCount(); ++device) {
        EXPECT_NO_THROW(checkDevice(device, "device"));
    }
}

TEST_F(MissingGpusTest, constructors_refuse_them) {
    auto* const given = &resources();
    const auto shared = given->getResources();
    for (int gpu : missing()) {
        const auto config = on(gpu);
        const std::vector<std::function<void()>> makers = {
                [&] { GpuIndexFlat(given, &cpu_, config); },
                [&] { GpuIndexFlat(shared, &cpu_, config); },
                [&] { GpuIndexFlat(given, kDims, faiss::METRIC_L2, config); },
                [&] { GpuIndexFlat(shared, kDims, faiss::METRIC_L1, config); },
                [&] { GpuIndexFlatL2(given, &cpu_, config); },
                [&] { GpuIndexFlatL2(shared, &cpu_, config); },
                [&] { GpuIndexFlatL2(given, kDims, config); },
                [&] { GpuIndexFlatL2(shared, kDims, config); },
                [&] { GpuIndexFlatIP(given, &ip_, config); },
                [&] { GpuIndexFlatIP(shared, &ip_, config); },
                [&] { GpuIndexFlatIP(given, kDims, config); },
                [&] { GpuIndexFlatIP(shared, kDims, config); }};
        for (const auto& make : makers) {
            expectRefused(
                    "config.device", "GPU " + std::to_string(gpu) + ";", make);
        }
    }
}

TEST_F(MissingGpusTest, cloners_refuse_them) {
    auto* const given = &resources();
    for (int gpu : missing()) {
        const std::string text = "GPU " + std::to_string(gpu) + ";";
        expectRefused("device", text, [&] {
            faiss_ext::gpu::index_cpu_to_gpu(given, gpu, &cpu_);
        });
        std::vector<faiss::gpu::GpuResourcesProvider*> both = {given, given};
        for (std::vector<int> devices : {std::vector{0, gpu}, {gpu, 0}}) {
            expectRefused("device", text, [&] {
                faiss_ext::gpu::index_cpu_to_gpu_multiple(both, devices, &cpu_);
            });
        }
    }
}

TEST_F(MissingGpusTest, lists_that_do_not_fit_are_refused) {
    std::vector<faiss::gpu::GpuResourcesProvider*> none, one = {&resources()};
    std::vector<int> noGpu, twoGpus = {0, 0};
    expectRefused("provider", "1 resources for 2 devices", [&] {
        faiss_ext::gpu::index_cpu_to_gpu_multiple(one, twoGpus, &cpu_);
    });
    expectRefused("provider", "1 resources for 0 devices", [&] {
        faiss_ext::gpu::index_cpu_to_gpu_multiple(one, noGpu, &cpu_);
    });
    expectRefused("devices", "none", [&] {
        faiss_ext::gpu::index_cpu_to_gpu_multiple(none, noGpu, &cpu_);
    });
}

TEST_F(MissingGpusTest, nothing_in_place_of_resources_or_an_index_is_refused) {
    auto* const given = &resources();
    faiss::gpu::GpuResourcesProvider* const noProvider = nullptr;
    const std::shared_ptr<faiss::gpu::GpuResources> noResources;
    faiss::IndexFlatL2* const noIndex = nullptr;
    EXPECT_THROW(GpuIndexFlatL2(noProvider, kDims), faiss::FaissException);
    EXPECT_THROW(GpuIndexFlatL2(noResources, kDims), faiss::FaissException);
    EXPECT_THROW(GpuIndexFlatL2(given, noIndex), faiss::FaissException);
    EXPECT_THROW(GpuIndexFlat(given, noIndex), faiss::FaissException);
    GpuIndexFlatL2 index(given, &cpu_);
    EXPECT_THROW(index.copyFrom(noIndex), faiss::FaissException);
    EXPECT_EQ(index.ntotal, 30);
    EXPECT_THROW(
            faiss_ext::gpu::index_cpu_to_gpu(noProvider, 0, &cpu_),
            faiss::FaissException);
    EXPECT_THROW(
            faiss_ext::gpu::index_cpu_to_gpu(given, 0, nullptr),
            faiss::FaissException);
    std::vector<faiss::gpu::GpuResourcesProvider*> providers = {given, nullptr};
    std::vector<int> devices = {0, 0};
    EXPECT_THROW(
            faiss_ext::gpu::index_cpu_to_gpu_multiple(
                    providers, devices, &cpu_),
            faiss::FaissException);
}

/// Never asked.
class NoPool : public DeviceAllocator {
   public:
    void* allocate(size_t, int, cudaStream_t) override {
        return nullptr;
    }
    void deallocate(void*, size_t, int, cudaStream_t) noexcept override {}
};

TEST_F(MissingGpusTest, resources_on_a_pool_refuse_them) {
    PooledGpuResources pooled(std::make_shared<NoPool>());
    for (int gpu : missing()) {
        const std::string text = "GPU " + std::to_string(gpu) + ";";
        expectRefused("device", text, [&] { pooled.getDefaultStream(gpu); });
        expectRefused(
                "device", text, [&] { pooled.setDefaultStream(gpu, nullptr); });
        expectRefused("device", text, [&] { pooled.revertDefaultStream(gpu); });
        expectRefused(
                "device", text, [&] { pooled.getTempMemoryAvailable(gpu); });
        expectRefused("device", text, [&] {
            pooled.getResources()->initializeForDevice(gpu);
        });
    }
}

} // namespace
