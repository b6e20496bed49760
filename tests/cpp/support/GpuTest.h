#pragma once

// The fixture of tests that run on the simulator and, unchanged, on a GPU.

#include <cuda_runtime_api.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <gtest/gtest.h>

namespace test {

inline int visibleDevices() {
    int count = 0;
    const bool known = cudaGetDeviceCount(&count) == cudaSuccess;
    cudaGetLastError();
    return known ? count : 0;
}

class GpuTest : public ::testing::Test {
   protected:
    void SetUp() override {
        if (visibleDevices() == 0) {
            GTEST_SKIP() << "no GPU here";
        }
    }

    static faiss::gpu::StandardGpuResources& resources() {
        // One for the process: it takes a tenth of a second to make on a GPU.
        // Never destroyed: at exit the CUDA runtime may be gone before it.
        static auto& shared = *new faiss::gpu::StandardGpuResources;
        return shared;
    }
};

/// The same for tests that need two GPUs. The test's thread has GPU 0 current.
class TwoGpusTest : public GpuTest {
   protected:
    void SetUp() override {
        GpuTest::SetUp();
        if (!IsSkipped() && visibleDevices() == 1) {
            GTEST_SKIP() << "one GPU here; two are needed";
        }
    }
};

} // namespace test
