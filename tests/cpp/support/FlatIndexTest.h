#pragma once

// The fixture of tests that search a flat index and look into the simulator.

#include "FlatIndexFixture.h"
#include "SimTest.h"

namespace test {

/// Two simulated GPUs, of which the test's thread has GPU 0 current.
class TwoSimulatedGpus : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        cuda_sim_set_device_count(2);
        check(cudaSetDevice(0));
        resources_ = std::make_unique<faiss::gpu::StandardGpuResources>();
    }

    void TearDown() override {
        resources_.reset();
        SimTest::TearDown();
    }

    faiss::gpu::StandardGpuResources& resources() {
        return *resources_;
    }

    std::unique_ptr<faiss::gpu::StandardGpuResources> resources_;
};

using FlatIndexTest = FlatIndexFixture<TwoSimulatedGpus>;

} // namespace test
