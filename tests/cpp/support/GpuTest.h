#pragma once

// The fixture of tests that run on the simulator and, unchanged, on a GPU.

#include <cuda_runtime_api.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <gtest/gtest.h>

namespace test {

inline bool deviceVisible() {
    int count = 0;
    const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
    cudaGetLastError();
    return found;
}

class GpuTest : public ::testing::Test {
   protected:
    void SetUp() override {
        if (!deviceVisible()) {
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

} // namespace test
