// Injected failures: of a call, of an operation, of the device from then on.

#include "sim_test.h"

using namespace conformance;
using cuda_sim::addOne;

namespace {

using Faults = cuda_sim::SimTest;

TEST_F(Faults, the_nth_call_fails_once) {
    cuda_sim_fail_call("cudaMalloc", 2, cudaErrorMemoryAllocation);
    void *a = nullptr, *b = nullptr, *c = nullptr;
    CHECK_CUDA(cudaMalloc(&a, 100));
    EXPECT_EQ(cudaErrorMemoryAllocation, cudaMalloc(&b, 100));
    EXPECT_EQ(nullptr, b);
    EXPECT_EQ(cudaErrorMemoryAllocation, cudaGetLastError());
    CHECK_CUDA(cudaMalloc(&c, 100));
    CHECK_CUDA(cudaFree(a));
    CHECK_CUDA(cudaFree(c));
    EXPECT_EQ(3u, cuda_sim_calls("cudaMalloc"));
}

TEST_F(Faults, several_calls_fail_each_by_its_own_count) {
    for (int nth : {1, 2, 4}) {
        cuda_sim_fail_call("cudaStreamSynchronize", nth, cudaErrorUnknown);
    }
    Stream stream;
    std::vector<int> failed;
    for (int nth = 1; nth <= 6; ++nth) {
        if (cudaStreamSynchronize(stream) != cudaSuccess) {
            failed.push_back(nth);
        }
    }
    EXPECT_EQ((std::vector<int>{1, 2, 4}), failed);
    cudaGetLastError();
}

TEST_F(Faults, the_nth_of_any_call_fails) {
    cuda_sim_fail_call("*", 3, cudaErrorUnknown);
    cudaStream_t stream = nullptr;
    CHECK_CUDA(cudaStreamCreate(&stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(cudaErrorUnknown, cudaStreamSynchronize(stream));
    CHECK_CUDA(cudaStreamDestroy(stream));
    cudaGetLastError();
}

TEST_F(Faults, a_sweep_ends_where_no_call_failed) {
    std::vector<std::string> failed;
    for (int nth = 1;; ++nth) {
        cuda_sim_reset();
        cuda_sim_fail_call("cuda_sim_tests/*", nth, cudaErrorUnknown);
        cudaStream_t stream = nullptr;
        if (cudaStreamCreate(&stream) == cudaSuccess) {
            cudaStreamSynchronize(stream);
            if (cudaStreamDestroy(stream) != cudaSuccess) {
                cudaStreamDestroy(stream);
            }
        }
        std::string name = cuda_sim_last_fault();
        if (name.empty()) {
            break;
        }
        failed.push_back(name);
        cudaGetLastError();
    }
    EXPECT_EQ(
            (std::vector<std::string>{
                    "cudaStreamCreate",
                    "cudaStreamSynchronize",
                    "cudaStreamDestroy"}),
            failed);
    cuda_sim_clear_faults();
    EXPECT_EQ(3u, cuda_sim_calls("*"));
}

TEST_F(Faults, another_librarys_calls_are_left_alone) {
    cuda_sim_fail_call("libfaiss.so/*", 1, cudaErrorUnknown);
    Stream stream;
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_STREQ("", cuda_sim_last_fault());
}

TEST_F(Faults, a_kernel_launch_fails) {
    cuda_sim_fail_call("kernel:addOne", 1, cudaErrorLaunchOutOfResources);
    auto device = onDevice<int>(10);
    Stream stream;
    EXPECT_EQ(cudaErrorLaunchOutOfResources, addOne(device.get(), 10, stream));
    EXPECT_EQ(cudaErrorLaunchOutOfResources, cudaGetLastError());
    EXPECT_EQ(0u, cuda_sim_pending());
}

TEST_F(Faults, an_operation_fails_and_later_calls_say_so) {
    auto device = onDevice<int>(10);
    int zero = 0, value = 0;
    Stream stream;
    Event event;
    CHECK_CUDA(cudaMemset(device.get(), 0, 40));
    CHECK_CUDA(cudaDeviceSynchronize());
    cuda_sim_fail_operation(2, cudaErrorIllegalAddress);
    CHECK_CUDA(addOne(device.get(), 10, stream));
    CHECK_CUDA(addOne(device.get(), 10, stream));
    CHECK_CUDA(addOne(device.get(), 10, stream));
    CHECK_CUDA(cudaEventRecord(event, stream));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaEventSynchronize(event));
    // What ran before it did run.
    EXPECT_EQ(0, cuda_sim_read_device(device.get(), &value, 4));
    EXPECT_EQ(1, value);
    EXPECT_EQ(cudaErrorIllegalAddress, cudaEventQuery(event));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
    EXPECT_EQ(
            cudaErrorIllegalAddress,
            cudaMemcpyAsync(
                    device.get(), &zero, 4, cudaMemcpyHostToDevice, stream));
    void* memory = nullptr;
    EXPECT_EQ(cudaErrorIllegalAddress, cudaMalloc(&memory, 10));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaGetLastError());
    EXPECT_EQ(cudaErrorIllegalAddress, cudaPeekAtLastError());
    CHECK_CUDA(cudaDeviceReset());
    CHECK_CUDA(cudaStreamSynchronize(stream));
}

TEST_F(Faults, a_poisoned_device_still_gives_its_objects_back) {
    cuda_sim_poison_device_at_call(
            "cudaEventRecord", 1, cudaErrorLaunchFailure);
    void *device = nullptr, *host = nullptr;
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    CHECK_CUDA(cudaMalloc(&device, 100));
    CHECK_CUDA(cudaMallocHost(&host, 100));
    CHECK_CUDA(cudaStreamCreate(&stream));
    CHECK_CUDA(cudaEventCreate(&event));
    EXPECT_EQ(cudaErrorLaunchFailure, cudaEventRecord(event, stream));
    EXPECT_EQ(cudaErrorLaunchFailure, cudaFree(device));
    EXPECT_EQ(cudaErrorLaunchFailure, cudaFreeHost(host));
    EXPECT_EQ(cudaErrorLaunchFailure, cudaStreamDestroy(stream));
    EXPECT_EQ(cudaErrorLaunchFailure, cudaEventDestroy(event));
    EXPECT_EQ(0u, cuda_sim_report_leaks());
}

TEST_F(Faults, what_belongs_to_a_poisoned_device_fails_on_others_too) {
    cuda_sim_set_device_count(2);
    CHECK_CUDA(cudaSetDevice(1));
    void* device = nullptr;
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    CHECK_CUDA(cudaMalloc(&device, 100));
    CHECK_CUDA(cudaStreamCreate(&stream));
    CHECK_CUDA(cudaEventCreate(&event));
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    CHECK_CUDA(cudaMemsetAsync(device, 0, 100, stream));
    CHECK_CUDA(cudaSetDevice(0));
    Stream here;
    EXPECT_EQ(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaStreamQuery(stream));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaEventRecord(event, stream));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaEventQuery(event));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaStreamWaitEvent(here, event, 0));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaFree(device));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaStreamDestroy(stream));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaEventDestroy(event));
    // The other device goes on.
    cudaGetLastError();
    CHECK_CUDA(cudaStreamSynchronize(here));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaSetDevice(1));
    CHECK_CUDA(cudaDeviceReset());
    CHECK_CUDA(cudaSetDevice(0));
}

TEST_F(Faults, pending_work_of_a_poisoned_device_is_dropped) {
    auto device = onDevice<int>(10);
    auto host = pinned<int>(10);
    Stream stream;
    bool called = false;
    CHECK_CUDA(cudaMemset(device.get(), 0, 40));
    CHECK_CUDA(cudaDeviceSynchronize());
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    CHECK_CUDA(addOne(device.get(), 10, stream));
    CHECK_CUDA(cudaMemcpyAsync(
            host.get(), device.get(), 40, cudaMemcpyDeviceToHost, stream));
    CHECK_CUDA(cudaLaunchHostFunc(
            stream, [](void* p) { *static_cast<bool*>(p) = true; }, &called));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    EXPECT_TRUE(cuda_sim_is_poison(host.get(), 40));
    EXPECT_FALSE(called);
    CHECK_CUDA(cudaDeviceReset());
}

TEST_F(Faults, cleared_faults_do_not_happen) {
    cuda_sim_fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    cuda_sim_clear_faults();
    auto device = onDevice<int>(10);
    CHECK_CUDA(cudaMemset(device.get(), 0, 40));
    CHECK_CUDA(cudaDeviceSynchronize());
}

} // namespace
