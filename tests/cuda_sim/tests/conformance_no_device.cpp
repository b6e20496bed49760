// Rules where no device is visible: CUDA_VISIBLE_DEVICES= on a machine with a
// GPU, CUDA_SIM_DEVICES=0 on the simulator.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <vector>

namespace {

TEST(NoDevice, is_what_every_call_says) {
    int count = 7;
    if (cudaGetDeviceCount(&count) != cudaErrorNoDevice) {
        GTEST_SKIP() << "a device is visible, or there is no driver";
    }
    EXPECT_EQ(7, count) << "it is left as it was";
    EXPECT_EQ(cudaErrorNoDevice, cudaGetLastError());

    int device = 7;
    EXPECT_EQ(cudaErrorNoDevice, cudaGetDevice(&device));
    for (int number : {-1, 0, 1, 99}) {
        cudaDeviceProp properties;
        int value = 0;
        EXPECT_EQ(cudaErrorNoDevice, cudaSetDevice(number));
        EXPECT_EQ(
                cudaErrorNoDevice,
                cudaGetDeviceProperties(&properties, number));
        EXPECT_EQ(
                cudaErrorNoDevice,
                cudaDeviceGetAttribute(
                        &value, cudaDevAttrMaxThreadsPerBlock, number));
    }
    void* memory = nullptr;
    EXPECT_EQ(cudaErrorNoDevice, cudaMalloc(&memory, 64));
    EXPECT_EQ(
            cudaErrorNoDevice,
            cudaHostAlloc(&memory, 64, cudaHostAllocDefault));
    std::vector<char> pages(1 << 14);
    EXPECT_EQ(
            cudaErrorNoDevice, cudaHostRegister(pages.data(), pages.size(), 0));
    cudaPointerAttributes attributes;
    EXPECT_EQ(
            cudaErrorNoDevice,
            cudaPointerGetAttributes(&attributes, pages.data()));
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    EXPECT_EQ(
            cudaErrorNoDevice,
            cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    EXPECT_EQ(cudaErrorNoDevice, cudaEventCreate(&event));
    EXPECT_EQ(cudaErrorNoDevice, cudaStreamQuery(nullptr));
    EXPECT_EQ(cudaErrorNoDevice, cudaDeviceSynchronize());
    EXPECT_EQ(cudaErrorNoDevice, cudaFree(nullptr));
    auto mode = cudaStreamCaptureModeRelaxed;
    EXPECT_EQ(cudaErrorNoDevice, cudaThreadExchangeStreamCaptureMode(&mode));

    int version = 0;
    EXPECT_EQ(cudaSuccess, cudaRuntimeGetVersion(&version));
    EXPECT_EQ(cudaSuccess, cudaDriverGetVersion(&version));
}

} // namespace
