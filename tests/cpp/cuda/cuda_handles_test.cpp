// What the owners of CUDA's handles are asked beside owning.

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Devices.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>

#include <future>
#include <thread>

#include "support/FlatIndexTest.h"

namespace {

using faiss_ext::gpu::contextLost;
using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::DeviceGuard;
using faiss_ext::gpu::gpuCount;
using faiss_ext::gpu::RelaxedCapture;
using faiss_ext::gpu::throwIfContextLost;
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

TEST_F(Handles, a_question_that_keeps_failing_is_a_loss) {
    for (int nth : {1, 2}) {
        cuda_sim_fail_call("cudaStreamQuery", nth, cudaErrorIllegalAddress);
    }
    EXPECT_TRUE(contextLost(defaultStream()));
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

TEST_F(Handles, waiting_for_a_gpu_without_memory_waits_too) {
    leaveInFlight(0);
    cuda_sim_fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
    waitForDevice(0);
    EXPECT_EQ(cuda_sim_pending_on(defaultStream(0)), 0u);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(Handles, questions_that_fail_leave_no_error) {
    cuda_sim_fail_call(
            "cudaThreadExchangeStreamCaptureMode", 1, cudaErrorInvalidValue);
    { const RelaxedCapture relaxed; }
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    cuda_sim_fail_call("cudaGetDeviceCount", 1, cudaErrorUnknown);
    EXPECT_THROW(gpuCount(), CudaError);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(gpuCount(), 2);
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

TEST_F(Handles, why_a_gpu_is_lost_is_told_while_another_thread_captures) {
    leaveInFlight(1);
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    waitForDevice(1);
    std::promise<void> begun, over;
    std::thread capturing([&] {
        faiss_ext::gpu::Stream stream;
        check(cudaStreamBeginCapture(
                stream.get(), cudaStreamCaptureModeGlobal));
        begun.set_value();
        over.get_future().wait();
        cudaGraph_t graph = nullptr;
        check(cudaStreamEndCapture(stream.get(), &graph));
        check(cudaGraphDestroy(graph));
    });
    begun.get_future().wait();
    try {
        throwIfContextLost(defaultStream(1));
        ADD_FAILURE() << "not lost";
    } catch (const CudaError& e) {
        EXPECT_EQ(e.code(), cudaErrorIllegalAddress) << e.what();
    }
    over.set_value();
    capturing.join();
    check(cudaSetDevice(0));
    EXPECT_EQ(cudaSetDevice(1), cudaErrorIllegalAddress);
    check(cudaDeviceReset());
    check(cudaSetDevice(0));
}

} // namespace
