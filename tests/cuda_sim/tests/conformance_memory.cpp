// Rules of memory, pointers, devices and errors.

#include <cstring>

#include "conformance.h"

using namespace conformance;

namespace {

cudaMemoryType typeOf(const void* ptr) {
    cudaPointerAttributes attributes;
    EXPECT_EQ(cudaSuccess, cudaPointerGetAttributes(&attributes, ptr));
    return attributes.type;
}

TEST(Pointer, attributes_tell_the_kinds_apart) {
    auto device = onDevice<int>(100);
    auto host = pinned<int>(100);
    std::vector<int> pageable(100);
    EXPECT_EQ(cudaMemoryTypeDevice, typeOf(device.get()));
    EXPECT_EQ(cudaMemoryTypeDevice, typeOf(device.get() + 99));
    EXPECT_EQ(cudaMemoryTypeHost, typeOf(host.get()));
    EXPECT_EQ(cudaMemoryTypeHost, typeOf(host.get() + 99));
    EXPECT_EQ(cudaMemoryTypeUnregistered, typeOf(pageable.data()));

    cudaPointerAttributes attributes;
    CHECK_CUDA(cudaPointerGetAttributes(&attributes, device.get() + 1));
    EXPECT_EQ(0, attributes.device);
    EXPECT_EQ(device.get() + 1, attributes.devicePointer);
    EXPECT_EQ(nullptr, attributes.hostPointer);
    CHECK_CUDA(cudaPointerGetAttributes(&attributes, host.get()));
    EXPECT_EQ(host.get(), attributes.hostPointer);
}

TEST(Pointer, managed_memory_is_for_both) {
    void* memory = nullptr;
    CHECK_CUDA(cudaMallocManaged(&memory, 4096, cudaMemAttachGlobal));
    EXPECT_EQ(cudaMemoryTypeManaged, typeOf(memory));
    CHECK_CUDA(cudaMemset(memory, 5, 4096));
    CHECK_CUDA(cudaDeviceSynchronize());
    EXPECT_EQ(5, static_cast<char*>(memory)[4095]);
    CHECK_CUDA(cudaFree(memory));
}

TEST(Pointer, registered_memory_is_pinned_until_unregistered) {
    std::vector<char> memory(1 << 16);
    CHECK_CUDA(cudaHostRegister(
            memory.data(), memory.size(), cudaHostRegisterDefault));
    EXPECT_EQ(cudaMemoryTypeHost, typeOf(memory.data() + 5));
    EXPECT_EQ(
            cudaErrorHostMemoryAlreadyRegistered,
            cudaHostRegister(
                    memory.data(), memory.size(), cudaHostRegisterDefault));
    CHECK_CUDA(cudaHostUnregister(memory.data()));
    EXPECT_EQ(cudaMemoryTypeUnregistered, typeOf(memory.data() + 5));
    EXPECT_EQ(
            cudaErrorHostMemoryNotRegistered,
            cudaHostUnregister(memory.data()));
    cudaGetLastError();
}

TEST(Copy, round_trip_by_default_kind) {
    auto device = onDevice<int>(1000);
    auto other = onDevice<int>(1000);
    auto host = pinned<int>(1000);
    auto values = counting(1000);
    memcpy(host.get(), values.data(), host.bytes());
    CHECK_CUDA(cudaMemcpy(
            device.get(), host.get(), host.bytes(), cudaMemcpyDefault));
    CHECK_CUDA(cudaMemcpy(
            other.get(), device.get(), host.bytes(), cudaMemcpyDefault));
    memset(host.get(), 0, host.bytes());
    CHECK_CUDA(cudaMemcpy(
            host.get(), other.get(), host.bytes(), cudaMemcpyDefault));
    EXPECT_EQ(0, memcmp(host.get(), values.data(), host.bytes()));
}

TEST(Copy, between_host_arrays) {
    auto values = counting(1000);
    std::vector<int> back(1000);
    CHECK_CUDA(
            cudaMemcpy(back.data(), values.data(), 4000, cudaMemcpyHostToHost));
    EXPECT_EQ(values, back);
    Stream stream;
    std::fill(back.begin(), back.end(), 0);
    CHECK_CUDA(cudaMemcpyAsync(
            back.data(), values.data(), 4000, cudaMemcpyDefault, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(values, back);
}

TEST(Copy, of_nothing_is_fine) {
    Stream stream;
    CHECK_CUDA(cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyHostToDevice));
    CHECK_CUDA(cudaMemcpyAsync(
            nullptr, nullptr, 0, cudaMemcpyDeviceToDevice, stream));
    CHECK_CUDA(cudaMemsetAsync(nullptr, 0, 0, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
}

TEST(Copy, of_rows_with_pitches) {
    // Rows of 3 out of rows of 5, to rows of 4.
    auto source = counting(5 * 4);
    auto device = onDevice<int>(4 * 4);
    CHECK_CUDA(cudaMemset(device.get(), 0, device.bytes()));
    CHECK_CUDA(cudaMemcpy2D(
            device.get(),
            4 * sizeof(int),
            source.data(),
            5 * sizeof(int),
            3 * sizeof(int),
            4,
            cudaMemcpyHostToDevice));
    std::vector<int> back(16);
    CHECK_CUDA(
            cudaMemcpy(back.data(), device.get(), 64, cudaMemcpyDeviceToHost));
    for (int row = 0; row < 4; ++row) {
        for (int column = 0; column < 3; ++column) {
            EXPECT_EQ(row * 5 + column, back[row * 4 + column]);
        }
        EXPECT_EQ(0, back[row * 4 + 3]);
    }
    EXPECT_EQ(
            cudaErrorInvalidPitchValue,
            cudaMemcpy2D(
                    device.get(),
                    2,
                    source.data(),
                    20,
                    12,
                    4,
                    cudaMemcpyHostToDevice));
    cudaGetLastError();
}

TEST(Allocation, freeing_null_is_fine) {
    CHECK_CUDA(cudaFree(nullptr));
    CHECK_CUDA(cudaFreeHost(nullptr));
}

TEST(Allocation, too_much_fails_and_the_device_goes_on) {
    void* memory = nullptr;
    EXPECT_EQ(cudaErrorMemoryAllocation, cudaMalloc(&memory, size_t(1) << 46));
    EXPECT_EQ(cudaErrorMemoryAllocation, cudaGetLastError());
    EXPECT_EQ(cudaSuccess, cudaGetLastError());
    auto device = onDevice<int>(10);
    CHECK_CUDA(cudaMemset(device.get(), 0, device.bytes()));
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST(Allocation, memory_info_is_sensible) {
    size_t free = 0, total = 0;
    CHECK_CUDA(cudaMemGetInfo(&free, &total));
    EXPECT_GT(free, 0u);
    EXPECT_LE(free, total);
}

TEST(Error, last_error_stays_until_it_is_got) {
    EXPECT_EQ(cudaErrorInvalidDevice, cudaSetDevice(1000));
    int device = -1;
    CHECK_CUDA(cudaGetDevice(&device)); // a success does not clear it
    EXPECT_EQ(cudaErrorInvalidDevice, cudaPeekAtLastError());
    EXPECT_EQ(cudaErrorInvalidDevice, cudaPeekAtLastError());
    EXPECT_EQ(cudaErrorInvalidDevice, cudaGetLastError());
    EXPECT_EQ(cudaSuccess, cudaGetLastError());
    EXPECT_EQ(0, device);
}

TEST(Error, last_error_belongs_to_the_thread) {
    EXPECT_EQ(cudaErrorInvalidDevice, cudaSetDevice(1000));
    cudaError_t seen = cudaErrorUnknown;
    std::thread([&] { seen = cudaGetLastError(); }).join();
    EXPECT_EQ(cudaSuccess, seen);
    EXPECT_EQ(cudaErrorInvalidDevice, cudaGetLastError());
}

TEST(Error, names) {
    EXPECT_STREQ("cudaSuccess", cudaGetErrorName(cudaSuccess));
    EXPECT_STREQ(
            "cudaErrorMemoryAllocation",
            cudaGetErrorName(cudaErrorMemoryAllocation));
    EXPECT_STREQ(
            "out of memory", cudaGetErrorString(cudaErrorMemoryAllocation));
    EXPECT_STREQ(
            "an illegal memory access was encountered",
            cudaGetErrorString(cudaErrorIllegalAddress));
}

TEST(Device, properties) {
    int count = 0;
    CHECK_CUDA(cudaGetDeviceCount(&count));
    ASSERT_GE(count, 1);
    cudaDeviceProp prop;
    CHECK_CUDA(cudaGetDeviceProperties(&prop, 0));
    EXPECT_EQ(32, prop.warpSize);
    EXPECT_GE(prop.major, 7);
    EXPECT_EQ(1, prop.unifiedAddressing);
    int major = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(
            &major, cudaDevAttrComputeCapabilityMajor, 0));
    EXPECT_EQ(prop.major, major);
    EXPECT_EQ(cudaErrorInvalidDevice, cudaGetDeviceProperties(&prop, count));
    cudaGetLastError();
}

TEST(Device, streams_know_their_flags) {
    Stream blocking(cudaStreamDefault), free(cudaStreamNonBlocking);
    unsigned flags = 99;
    CHECK_CUDA(cudaStreamGetFlags(blocking, &flags));
    EXPECT_EQ(unsigned(cudaStreamDefault), flags);
    CHECK_CUDA(cudaStreamGetFlags(free, &flags));
    EXPECT_EQ(unsigned(cudaStreamNonBlocking), flags);
    int least = 0, greatest = 0, priority = 99;
    CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    EXPECT_LE(greatest, least);
    cudaStream_t stream = nullptr;
    CHECK_CUDA(cudaStreamCreateWithPriority(
            &stream, cudaStreamNonBlocking, greatest));
    CHECK_CUDA(cudaStreamGetPriority(stream, &priority));
    EXPECT_EQ(greatest, priority);
    CHECK_CUDA(cudaStreamDestroy(stream));
}

TEST(Device, the_current_one_belongs_to_the_thread) {
    int count = 0;
    CHECK_CUDA(cudaGetDeviceCount(&count));
    if (count < 2) {
        GTEST_SKIP() << "needs two devices";
    }
    CHECK_CUDA(cudaSetDevice(1));
    int other = -1;
    std::thread([&] { cudaGetDevice(&other); }).join();
    EXPECT_EQ(0, other);
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, 100));
    cudaPointerAttributes attributes;
    CHECK_CUDA(cudaPointerGetAttributes(&attributes, memory));
    EXPECT_EQ(1, attributes.device);
    // An event cannot be recorded on another device's stream, but waited for.
    Stream there;
    Event ready;
    CHECK_CUDA(cudaEventRecord(ready, there));
    CHECK_CUDA(cudaSetDevice(0));
    Stream here;
    CHECK_CUDA(cudaStreamWaitEvent(here, ready, 0));
    CHECK_CUDA(cudaStreamSynchronize(here));
    auto mine = onDevice<char>(100);
    CHECK_CUDA(cudaMemsetAsync(memory, 1, 100, there));
    CHECK_CUDA(cudaStreamSynchronize(there));
    CHECK_CUDA(cudaMemcpyPeer(mine.get(), 0, memory, 1, 100));
    char last = 0;
    CHECK_CUDA(cudaMemcpy(&last, mine.get() + 99, 1, cudaMemcpyDeviceToHost));
    EXPECT_EQ(1, last);
    CHECK_CUDA(cudaFree(memory));
}

// What a program should not do. The simulator reports these, too.

TEST(Misuse, freeing_what_is_no_allocation) {
    int local = 0;
    EXPECT_EQ(cudaErrorInvalidValue, cudaFree(&local));
    EXPECT_EQ(cudaErrorInvalidValue, cudaGetLastError());
    EXPECT_EQ(cudaErrorInvalidValue, cudaFreeHost(&local));
    cudaGetLastError();
}

TEST(Misuse, freeing_twice) {
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, 1 << 20));
    CHECK_CUDA(cudaFree(memory));
    EXPECT_EQ(cudaErrorInvalidValue, cudaFree(memory));
    cudaGetLastError();
}

TEST(Misuse, filling_beyond_the_end) {
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, 1 << 20));
    EXPECT_EQ(cudaErrorInvalidValue, cudaMemset(memory, 0, size_t(1) << 40));
    cudaGetLastError();
    CHECK_CUDA(cudaFree(memory));
}

/// A device that is not there, by its number.
TEST(Devices, that_do_not_exist_are_refused_by_every_call) {
    int count = 0;
    CHECK_CUDA(cudaGetDeviceCount(&count));
    for (int device : {-1, count, 99}) {
        int value = 0;
        char text[32];
        cudaDeviceProp properties;
        cudaMemPool_t pool = nullptr;
        auto here = onDevice<int>(16), there = onDevice<int>(16);
        EXPECT_EQ(cudaErrorInvalidDevice, cudaSetDevice(device));
        EXPECT_EQ(cudaErrorInvalidDevice, cudaInitDevice(device, 0, 0));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaGetDeviceProperties(&properties, device));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaDeviceGetAttribute(
                        &value, cudaDevAttrMaxThreadsPerBlock, device));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaDeviceGetPCIBusId(text, sizeof(text), device));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaDeviceCanAccessPeer(&value, 0, device));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaDeviceCanAccessPeer(&value, device, 0));
        EXPECT_EQ(
                cudaErrorInvalidDevice, cudaDeviceEnablePeerAccess(device, 0));
        EXPECT_EQ(cudaErrorInvalidDevice, cudaDeviceDisablePeerAccess(device));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaDeviceGetDefaultMemPool(&pool, device));
        // The one that says it otherwise.
        EXPECT_EQ(cudaErrorInvalidValue, cudaDeviceGetMemPool(&pool, device));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaMemcpyPeer(here.get(), 0, there.get(), device, 64));
        EXPECT_EQ(
                cudaErrorInvalidDevice,
                cudaMemcpyPeerAsync(
                        here.get(), device, there.get(), 0, 64, nullptr));
    }
    cudaGetLastError();
    int current = -1;
    CHECK_CUDA(cudaGetDevice(&current));
    EXPECT_EQ(0, current);
}

} // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        printf("no device\n");
        return 77; // skipped
    }
    return RUN_ALL_TESTS();
}
