// Poison, bounds, lifetimes, and the reports about them.

#include <cstring>

#include "sim_test.h"

using namespace conformance;
using cuda_sim::addOne;
using cuda_sim::contains;

namespace {

using MemoryTest = cuda_sim::SimTest;
using MemoryDeathTest = cuda_sim::SimTest;

TEST_F(MemoryTest, fresh_memory_is_poison) {
    auto device = onDevice<float>(100000);
    auto host = pinned<float>(100000);
    auto large = pinned<float>(3 << 20);
    EXPECT_TRUE(cuda_sim_is_poison(device.get(), device.bytes()));
    EXPECT_TRUE(cuda_sim_is_poison(host.get(), host.bytes()));
    EXPECT_TRUE(cuda_sim_is_poison(large.get(), large.bytes()));
    float value = 0;
    CHECK_CUDA(
            cudaMemcpy(&value, device.get() + 77, 4, cudaMemcpyDeviceToHost));
    EXPECT_NE(value, value); // not a number
}

TEST_F(MemoryTest, the_back_door_goes_both_ways) {
    auto device = onDevice<int>(100);
    int in = 42, out = 0;
    EXPECT_EQ(0, cuda_sim_write_device(device.get() + 3, &in, 4));
    EXPECT_EQ(0, cuda_sim_read_device(device.get() + 3, &out, 4));
    EXPECT_EQ(42, out);
    EXPECT_TRUE(cuda_sim_is_poison(device.get(), 12));
    EXPECT_FALSE(cuda_sim_is_poison(device.get(), 16));
    EXPECT_EQ(-1, cuda_sim_read_device(device.get() + 99, &out, 8));
}

TEST_F(MemoryTest, a_pinned_destination_is_poison_until_its_copy_ran) {
    auto device = onDevice<int>(1000);
    auto host = pinned<int>(1000);
    Stream stream;
    CHECK_CUDA(cudaMemset(device.get(), 0, device.bytes()));
    memset(host.get(), 0, host.bytes()); // a stale result that looks right
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaMemcpyAsync(
            host.get(),
            device.get(),
            device.bytes(),
            cudaMemcpyDeviceToHost,
            stream));
    EXPECT_TRUE(cuda_sim_is_poison(host.get(), host.bytes()));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0, host[999]);
}

TEST_F(MemoryTest, a_pinned_buffer_still_to_be_read_is_not_poisoned) {
    auto device = onDevice<int>(1000), other = onDevice<int>(1000);
    auto host = pinned<int>(1000);
    Stream stream;
    CHECK_CUDA(cudaMemset(other.get(), 0, other.bytes()));
    CHECK_CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < 1000; ++i) {
        host[i] = i;
    }
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(), host.get(), 4000, cudaMemcpyHostToDevice, stream));
    CHECK_CUDA(cudaMemcpyAsync(
            host.get(), other.get(), 4000, cudaMemcpyDeviceToHost, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0, host[999]);
    int value = 0;
    EXPECT_EQ(0, cuda_sim_read_device(device.get() + 999, &value, 4));
    EXPECT_EQ(999, value);
}

TEST_F(MemoryTest, a_copy_past_the_end) {
    auto device = onDevice<int>(100);
    std::vector<int> host(200);
    EXPECT_EQ(
            cudaErrorInvalidValue,
            cudaMemcpy(
                    device.get() + 50,
                    host.data(),
                    51 * 4,
                    cudaMemcpyHostToDevice));
    auto text = takeReport(CUDA_SIM_REPORT_OUT_OF_BOUNDS);
    EXPECT_TRUE(contains(text, "end 4 bytes after")) << text;
    EXPECT_TRUE(contains(text, "allocation of 400 bytes")) << text;
    cudaGetLastError();
}

TEST_F(MemoryTest, a_kernel_that_writes_past_the_end_poisons_the_device) {
    auto device = onDevice<int>(100);
    Stream stream;
    CHECK_CUDA(addOne(device.get(), 101, stream));
    takeReport(CUDA_SIM_REPORT_OUT_OF_BOUNDS);
    EXPECT_EQ(cudaErrorIllegalAddress, cudaStreamSynchronize(stream));
    EXPECT_EQ(cudaErrorIllegalAddress, cudaGetLastError());
    EXPECT_EQ(cudaErrorIllegalAddress, cudaGetLastError());
    CHECK_CUDA(cudaDeviceReset());
}

TEST_F(MemoryTest, a_kernel_cannot_touch_pageable_memory) {
    std::vector<int> host(100);
    Stream stream;
    CHECK_CUDA(addOne(host.data(), 100, stream));
    takeReport(CUDA_SIM_REPORT_BAD_ARGUMENT);
    CHECK_CUDA(cudaDeviceReset());
}

TEST_F(MemoryTest, use_after_free) {
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, 400));
    CHECK_CUDA(cudaFree(memory));
    EXPECT_EQ(cudaErrorInvalidValue, cudaMemset(memory, 0, 400));
    auto text = takeReport(CUDA_SIM_REPORT_USE_AFTER_FREE);
    EXPECT_TRUE(contains(text, "freed by cudaFree")) << text;
    cudaGetLastError();
}

TEST_F(MemoryTest, use_after_a_free_in_stream_order) {
    Stream stream;
    void* memory = nullptr;
    CHECK_CUDA(cudaMallocAsync(&memory, 400, stream));
    CHECK_CUDA(cudaFreeAsync(memory, stream));
    EXPECT_EQ(cudaErrorInvalidValue, cudaMemsetAsync(memory, 0, 400, stream));
    takeReport(CUDA_SIM_REPORT_USE_AFTER_FREE);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0u, cuda_sim_counter("live_device"));
    cudaGetLastError();
}

TEST_F(MemoryTest, double_free) {
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, 400));
    CHECK_CUDA(cudaFree(memory));
    EXPECT_EQ(cudaErrorInvalidValue, cudaFree(memory));
    EXPECT_TRUE(
            contains(takeReport(CUDA_SIM_REPORT_BAD_FREE), "double free of"));
    cudaGetLastError();
}

TEST_F(MemoryTest, free_by_the_wrong_function_or_of_the_middle) {
    auto host = pinned<int>(100);
    auto device = onDevice<int>(100);
    EXPECT_EQ(cudaErrorInvalidValue, cudaFree(host.get()));
    takeReport(CUDA_SIM_REPORT_BAD_FREE);
    EXPECT_EQ(cudaErrorInvalidValue, cudaFree(device.get() + 1));
    takeReport(CUDA_SIM_REPORT_BAD_FREE);
    cudaGetLastError();
}

TEST_F(MemoryTest, free_with_work_pending) {
    Stream stream;
    int* memory = nullptr;
    CHECK_CUDA(cudaMalloc(reinterpret_cast<void**>(&memory), 400));
    CHECK_CUDA(addOne(memory, 100, stream));
    CHECK_CUDA(cudaFree(memory));
    auto text = takeReport(CUDA_SIM_REPORT_FREE_IN_USE);
    EXPECT_TRUE(contains(text, "kernel:addOne")) << text;
}

TEST_F(MemoryTest, free_of_what_ran_but_nobody_waited_for) {
    Stream stream;
    int* memory = nullptr;
    CHECK_CUDA(cudaMalloc(reinterpret_cast<void**>(&memory), 400));
    CHECK_CUDA(addOne(memory, 100, stream));
    cuda_sim_run(100); // the device was fast; that is no reason
    EXPECT_EQ(0u, cuda_sim_pending());
    CHECK_CUDA(cudaFree(memory));
    takeReport(CUDA_SIM_REPORT_FREE_IN_USE);
}

TEST_F(MemoryTest, pinned_free_with_a_copy_pending) {
    Stream stream;
    auto device = onDevice<int>(100);
    void* host = nullptr;
    CHECK_CUDA(cudaMallocHost(&host, 400));
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(), host, 400, cudaMemcpyHostToDevice, stream));
    CHECK_CUDA(cudaFreeHost(host));
    takeReport(CUDA_SIM_REPORT_FREE_IN_USE);
}

TEST_F(MemoryTest, free_policies) {
    Stream stream;
    int* memory = nullptr;
    cuda_sim_set_free_policy(1);
    CHECK_CUDA(cudaMalloc(reinterpret_cast<void**>(&memory), 400));
    CHECK_CUDA(addOne(memory, 100, stream));
    CHECK_CUDA(cudaFree(memory));
    EXPECT_EQ(0u, cuda_sim_pending());
    EXPECT_EQ(1u, cuda_sim_counter("waits_free"));
}

TEST_F(MemoryTest, leaks_are_named) {
    void *device = nullptr, *host = nullptr;
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    CHECK_CUDA(cudaMalloc(&device, 123));
    CHECK_CUDA(cudaMallocHost(&host, 456));
    CHECK_CUDA(cudaStreamCreate(&stream));
    CHECK_CUDA(cudaEventCreate(&event));
    EXPECT_EQ(4u, cuda_sim_report_leaks());
    EXPECT_EQ(4u, cuda_sim_check_kind(CUDA_SIM_REPORT_LEAK));
    std::string all;
    for (size_t i = 0; i < 4; ++i) {
        all += cuda_sim_report(i);
    }
    EXPECT_TRUE(contains(all, "123 bytes of device memory")) << all;
    EXPECT_TRUE(contains(all, "456 bytes of pinned memory")) << all;
    cuda_sim_clear_reports();
    CHECK_CUDA(cudaFree(device));
    CHECK_CUDA(cudaFreeHost(host));
    CHECK_CUDA(cudaStreamDestroy(stream));
    CHECK_CUDA(cudaEventDestroy(event));
    EXPECT_EQ(0u, cuda_sim_report_leaks());
}

TEST_F(MemoryTest, destroyed_handles_are_named) {
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    CHECK_CUDA(cudaStreamCreate(&stream));
    CHECK_CUDA(cudaEventCreate(&event));
    CHECK_CUDA(cudaStreamDestroy(stream));
    CHECK_CUDA(cudaEventDestroy(event));
    EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(stream));
    EXPECT_TRUE(contains(
            takeReport(CUDA_SIM_REPORT_BAD_HANDLE), "which was destroyed"));
    EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaEventSynchronize(event));
    takeReport(CUDA_SIM_REPORT_BAD_HANDLE);
    EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaEventDestroy(event));
    takeReport(CUDA_SIM_REPORT_BAD_HANDLE);
    cudaGetLastError();
}

TEST_F(MemoryTest, a_copy_kind_that_does_not_fit) {
    auto device = onDevice<int>(100);
    std::vector<int> host(100);
    EXPECT_EQ(
            cudaErrorInvalidValue,
            cudaMemcpy(device.get(), host.data(), 400, cudaMemcpyDeviceToHost));
    takeReport(CUDA_SIM_REPORT_BAD_ARGUMENT);
    cudaGetLastError();
}

TEST_F(MemoryTest, the_device_has_so_much_memory) {
    cuda_sim_set_device_memory(1 << 20);
    void *first = nullptr, *second = nullptr;
    CHECK_CUDA(cudaMalloc(&first, 600 << 10));
    EXPECT_EQ(cudaErrorMemoryAllocation, cudaMalloc(&second, 600 << 10));
    EXPECT_EQ(nullptr, second);
    CHECK_CUDA(cudaFree(first));
    CHECK_CUDA(cudaMalloc(&second, 600 << 10));
    CHECK_CUDA(cudaFree(second));
    cudaGetLastError();
}

TEST_F(MemoryTest, large_memory_costs_nothing_untouched) {
    for (int i = 0; i < 200; ++i) {
        auto device = onDevice<char>(size_t(3) << 30);
        auto host = pinned<char>(size_t(256) << 20);
        CHECK_CUDA(cudaMemset(device.get() + 12345, 1, 10));
        CHECK_CUDA(cudaDeviceSynchronize());
    }
}

TEST_F(MemoryDeathTest, the_host_touches_device_memory) {
    auto device = onDevice<int>(100);
    EXPECT_DEATH(
            device[5] = 1,
            "host code touched device memory.*allocation of 400 bytes");
}

TEST_F(MemoryDeathTest, the_host_touches_pinned_memory_that_was_freed) {
    int* host = nullptr;
    CHECK_CUDA(cudaMallocHost(reinterpret_cast<void**>(&host), 400));
    CHECK_CUDA(cudaFreeHost(host));
    EXPECT_DEATH(host[5] = 1, "host code touched freed memory.*cudaFreeHost");
}

TEST_F(MemoryDeathTest, the_host_overruns_pinned_memory) {
    auto host = pinned<int>(1024);
    EXPECT_DEATH(host[1024] = 1, "");
}

} // namespace
