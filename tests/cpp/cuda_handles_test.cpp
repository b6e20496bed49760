// What the owners of CUDA's handles are asked beside owning.

#include <faiss_ext/gpu/CudaHandles.h>

#include "support/FlatIndexTest.h"

namespace {

using faiss_ext::gpu::contextLost;
using faiss_ext::gpu::DeviceGuard;
using faiss_ext::gpu::waitForDevice;
using namespace test;

class Handles : public FlatIndexTest {
   protected:
    void SetUp() override {
        FlatIndexTest::SetUp();
        for (int device : {0, 1}) {
            memory_.push_back(onGpu<char>(device, 64));
        }
    }

    void TearDown() override {
        memory_.clear();
        FlatIndexTest::TearDown();
    }

    /// Work that stays in flight until somebody waits for its GPU.
    void leaveInFlight(int device) {
        check(cudaSetDevice(device));
        check(cudaMemsetAsync(
                memory_[device].data(), 1, 64, defaultStream(device)));
        check(cudaSetDevice(0));
    }

    std::vector<Array<char>> memory_;
};

TEST_F(Handles, a_context_at_work_is_not_lost_and_no_error_is_left) {
    leaveInFlight(0);
    EXPECT_FALSE(contextLost(defaultStream()));
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(Handles, a_failing_question_alone_is_no_loss) {
    cuda_sim_fail_call("cudaStreamQuery", 1, cudaErrorInvalidValue);
    EXPECT_FALSE(contextLost(defaultStream()));
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(Handles, waiting_for_a_gpu_waits_for_that_one) {
    for (int device : {0, 1}) {
        leaveInFlight(0);
        leaveInFlight(1);
        waitForDevice(device);
        EXPECT_EQ(cuda_sim_pending_on(defaultStream(device)), 0u);
        EXPECT_GT(cuda_sim_pending_on(defaultStream(1 - device)), 0u);
        expectCurrent(0);
        synchronize(1 - device);
    }
}

TEST_F(Handles, a_guard_goes_back_to_the_gpu_of_before) {
    {
        DeviceGuard other(1);
        expectCurrent(1);
        DeviceGuard same(1);
        expectCurrent(1);
    }
    expectCurrent(0);
}

TEST_F(Handles, a_gpu_that_is_lost_does_not_become_the_current_one) {
    leaveInFlight(1);
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    waitForDevice(1);
    expectCurrent(0);
    EXPECT_TRUE(contextLost(defaultStream(1)));
    EXPECT_FALSE(contextLost(defaultStream(0)));
    EXPECT_THROW(DeviceGuard other(1), faiss_ext::gpu::CudaError);
    expectCurrent(0);
    EXPECT_EQ(cudaSetDevice(1), cudaErrorIllegalAddress);
    check(cudaDeviceReset());
    check(cudaSetDevice(0));
}

} // namespace
