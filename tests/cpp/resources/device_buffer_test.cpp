// Device memory of its own: on which GPU, in which order, for how long.

#include <faiss_ext/gpu/resources/DeviceBuffer.h>

#include <memory>

#include "support/FlatIndexTest.h"

namespace {

using faiss_ext::gpu::DeviceBuffer;
using namespace test;

constexpr size_t kBytes = 4096;

class Buffers : public FlatIndexTest {
   protected:
    std::shared_ptr<DeviceBuffer> make(int device) {
        return std::make_shared<DeviceBuffer>(
                resources_->getResources(), device, kBytes);
    }

    /// In the order of the stream that the content is ordered on.
    static void fill(const DeviceBuffer& buffer, int byte) {
        check(cudaSetDevice(buffer.device()));
        check(cudaMemsetAsync(buffer.data(), byte, kBytes, buffer.stream()));
        check(cudaSetDevice(0));
    }

    static void expectAll(const DeviceBuffer& buffer, char byte) {
        std::vector<char> found(kBytes);
        // As CUDA may: the copy alone waits for nothing.
        cuda_sim_set_pageable_d2h(1);
        buffer.copyToHost(found.data());
        EXPECT_EQ(found, std::vector<char>(kBytes, byte));
        expectCurrent(0);
    }
};

TEST_F(Buffers, lie_on_the_gpu_that_was_asked_for) {
    for (int device : {0, 1}) {
        auto buffer = make(device);
        cudaPointerAttributes found;
        check(cudaPointerGetAttributes(&found, buffer->data()));
        EXPECT_EQ(found.device, device);
        expectCurrent(0);
    }
}

TEST_F(Buffers, are_read_by_the_host_after_the_work_on_their_stream) {
    for (int device : {0, 1}) {
        auto buffer = make(device);
        fill(*buffer, 7);
        expectAll(*buffer, 7);
    }
}

TEST_F(Buffers, are_freed_with_their_last_owner) {
    auto buffer = make(0);
    fill(*buffer, 0);
    const uint64_t before = counts().live_device;
    check(cudaDeviceSynchronize());
    buffer.reset();
    EXPECT_EQ(counts().live_device, before - 1);
}

TEST_F(Buffers, are_copied_in_the_order_of_their_stream) {
    for (int device : {0, 1}) {
        auto buffer = make(device);
        fill(*buffer, 7);
        auto copy = buffer->copy();
        EXPECT_EQ(copy->device(), device);
        fill(*buffer, 8);
        expectAll(*copy, 7);
        expectAll(*buffer, 8);
    }
}

TEST_F(Buffers, are_copied_across_a_change_of_the_default_stream) {
    // The legacy stream, too: each GPU has one of its own.
    for (int device : {0, 1}) {
        check(cudaSetDevice(device));
        cudaStream_t own;
        check(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
        check(cudaSetDevice(0));
        for (cudaStream_t later : {own, cudaStreamLegacy}) {
            auto buffer = make(device);
            // Faiss wants the GPU to be current.
            check(cudaSetDevice(device));
            resources_->setDefaultStream(device, later);
            check(cudaSetDevice(0));
            // On the stream of before.
            fill(*buffer, 7);
            auto copy = buffer->copy();
            EXPECT_EQ(copy->stream(), later);
            fill(*buffer, 8);
            expectAll(*copy, 7);
            expectAll(*buffer, 8);
            synchronize(device);
            buffer.reset();
            copy.reset();
            check(cudaSetDevice(device));
            resources_->revertDefaultStream(device);
            check(cudaSetDevice(0));
        }
        check(cudaStreamDestroy(own));
    }
}

} // namespace
