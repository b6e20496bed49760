// Rules of streams and events.

#include <cstring>

#include "conformance.h"

using namespace conformance;

namespace {

constexpr size_t kCount = 1 << 16;

TEST(Order, a_stream_runs_in_order) {
    Stream stream;
    auto device = onDevice<int>(kCount);
    auto back = pinned<int>(kCount);
    auto first = counting(kCount), second = counting(kCount, 7);
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(),
            first.data(),
            device.bytes(),
            cudaMemcpyHostToDevice,
            stream));
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(),
            second.data(),
            device.bytes(),
            cudaMemcpyHostToDevice,
            stream));
    CHECK_CUDA(cudaMemcpyAsync(
            back.get(),
            device.get(),
            device.bytes(),
            cudaMemcpyDeviceToHost,
            stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0, memcmp(back.get(), second.data(), back.bytes()));
}

TEST(Order, a_copy_to_pinned_memory_does_not_wait) {
    Stream stream;
    Latch latch;
    auto device = onDevice<int>(kCount);
    auto back = pinned<int>(kCount);
    auto values = counting(kCount);
    CHECK_CUDA(cudaMemcpy(
            device.get(),
            values.data(),
            device.bytes(),
            cudaMemcpyHostToDevice));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(latch.close(stream));
    CHECK_CUDA(cudaMemcpyAsync(
            back.get(),
            device.get(),
            device.bytes(),
            cudaMemcpyDeviceToHost,
            stream));
    EXPECT_EQ(cudaErrorNotReady, cudaStreamQuery(stream));
    latch.open();
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0, memcmp(back.get(), values.data(), back.bytes()));
    cudaGetLastError();
}

TEST(Order, a_pageable_source_may_change_after_the_call) {
    Stream stream;
    auto device = onDevice<int>(kCount);
    auto source = counting(kCount), values = source;
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(),
            source.data(),
            device.bytes(),
            cudaMemcpyHostToDevice,
            stream));
    std::fill(source.begin(), source.end(), -1);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    std::vector<int> back(kCount);
    CHECK_CUDA(cudaMemcpy(
            back.data(), device.get(), device.bytes(), cudaMemcpyDeviceToHost));
    EXPECT_EQ(values, back);
}

TEST(Order, a_copy_to_pageable_memory_is_complete_on_return) {
    Stream stream;
    auto device = onDevice<int>(kCount);
    auto values = counting(kCount);
    std::vector<int> back(kCount);
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(),
            values.data(),
            device.bytes(),
            cudaMemcpyHostToDevice,
            stream));
    CHECK_CUDA(cudaMemcpyAsync(
            back.data(),
            device.get(),
            device.bytes(),
            cudaMemcpyDeviceToHost,
            stream));
    EXPECT_EQ(values, back);
}

TEST(Order, an_event_orders_two_streams) {
    Stream producer, consumer;
    Event ready;
    Latch latch;
    auto device = onDevice<int>(kCount);
    auto source = pinned<int>(kCount), back = pinned<int>(kCount);
    auto values = counting(kCount);
    memcpy(source.get(), values.data(), source.bytes());
    CHECK_CUDA(latch.close(producer));
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(),
            source.get(),
            device.bytes(),
            cudaMemcpyHostToDevice,
            producer));
    CHECK_CUDA(cudaEventRecord(ready, producer));
    CHECK_CUDA(cudaStreamWaitEvent(consumer, ready, 0));
    CHECK_CUDA(cudaMemcpyAsync(
            back.get(),
            device.get(),
            device.bytes(),
            cudaMemcpyDeviceToHost,
            consumer));
    EXPECT_EQ(cudaErrorNotReady, cudaStreamQuery(consumer));
    latch.open();
    CHECK_CUDA(cudaStreamSynchronize(consumer));
    EXPECT_EQ(0, memcmp(back.get(), values.data(), back.bytes()));
    cudaGetLastError();
}

TEST(Order, an_event_never_recorded_is_complete) {
    Event event;
    Stream stream;
    CHECK_CUDA(cudaEventQuery(event));
    CHECK_CUDA(cudaEventSynchronize(event));
    CHECK_CUDA(cudaStreamWaitEvent(stream, event, 0));
    CHECK_CUDA(cudaStreamSynchronize(stream));
}

TEST(Order, a_record_overwrites_the_one_before) {
    Event event;
    Stream stream;
    Latch latch;
    CHECK_CUDA(cudaEventRecord(event, stream));
    CHECK_CUDA(cudaEventSynchronize(event));
    CHECK_CUDA(latch.close(stream));
    CHECK_CUDA(cudaEventRecord(event, stream));
    EXPECT_EQ(cudaErrorNotReady, cudaEventQuery(event));
    latch.open();
    CHECK_CUDA(cudaEventSynchronize(event));
    CHECK_CUDA(cudaEventQuery(event));
    cudaGetLastError();
}

TEST(Order, a_wait_binds_to_the_record_current_at_the_call) {
    Event event;
    Stream recorder, waiter;
    Latch latch;
    CHECK_CUDA(cudaEventRecord(event, recorder));
    CHECK_CUDA(cudaStreamWaitEvent(waiter, event, 0));
    CHECK_CUDA(latch.close(recorder));
    CHECK_CUDA(cudaEventRecord(event, recorder));
    // Returns although the second record cannot be done.
    CHECK_CUDA(cudaStreamSynchronize(waiter));
    EXPECT_EQ(cudaErrorNotReady, cudaEventQuery(event));
    latch.open();
    CHECK_CUDA(cudaStreamSynchronize(recorder));
    cudaGetLastError();
}

TEST(Order, an_event_may_be_destroyed_before_its_record_is_done) {
    Stream recorder, waiter;
    Latch latch;
    CHECK_CUDA(latch.close(recorder));
    {
        Event event;
        CHECK_CUDA(cudaEventRecord(event, recorder));
        CHECK_CUDA(cudaStreamWaitEvent(waiter, event, 0));
    }
    EXPECT_EQ(cudaErrorNotReady, cudaStreamQuery(waiter));
    latch.open();
    CHECK_CUDA(cudaStreamSynchronize(waiter));
    cudaGetLastError();
}

TEST(Order, a_stream_may_be_destroyed_before_its_work_is_done) {
    auto device = onDevice<int>(kCount);
    auto source = pinned<int>(kCount);
    auto values = counting(kCount);
    memcpy(source.get(), values.data(), source.bytes());
    Event done;
    {
        Stream stream;
        CHECK_CUDA(cudaMemcpyAsync(
                device.get(),
                source.get(),
                device.bytes(),
                cudaMemcpyHostToDevice,
                stream));
        CHECK_CUDA(cudaEventRecord(done, stream));
    }
    CHECK_CUDA(cudaEventSynchronize(done));
    std::vector<int> back(kCount);
    CHECK_CUDA(cudaMemcpy(
            back.data(), device.get(), device.bytes(), cudaMemcpyDeviceToHost));
    EXPECT_EQ(values, back);
}

TEST(Order, the_default_stream_waits_for_blocking_streams_only) {
    auto device = onDevice<int>(kCount);
    Latch latch;
    {
        Stream other(cudaStreamNonBlocking);
        Latch closed;
        CHECK_CUDA(closed.close(other));
        CHECK_CUDA(cudaMemsetAsync(device.get(), 1, device.bytes(), 0));
        CHECK_CUDA(cudaStreamSynchronize(0)); // although `other` is stuck
        closed.open();
        CHECK_CUDA(cudaStreamSynchronize(other));
    }
    Stream other(cudaStreamDefault);
    Event done;
    CHECK_CUDA(latch.close(other));
    CHECK_CUDA(cudaMemsetAsync(device.get(), 2, device.bytes(), 0));
    CHECK_CUDA(cudaEventRecord(done, 0));
    EXPECT_EQ(cudaErrorNotReady, cudaEventQuery(done));
    latch.open();
    CHECK_CUDA(cudaEventSynchronize(done));
    cudaGetLastError();
}

TEST(Order, a_blocking_stream_waits_for_the_default_stream) {
    Stream blocking(cudaStreamDefault), free(cudaStreamNonBlocking);
    Latch latch;
    auto device = onDevice<int>(2 * kCount);
    CHECK_CUDA(latch.close(0));
    CHECK_CUDA(cudaMemsetAsync(device.get(), 1, 4 * kCount, blocking));
    CHECK_CUDA(cudaMemsetAsync(device.get() + kCount, 1, 4 * kCount, free));
    CHECK_CUDA(cudaStreamSynchronize(free));
    EXPECT_EQ(cudaErrorNotReady, cudaStreamQuery(blocking));
    latch.open();
    CHECK_CUDA(cudaStreamSynchronize(blocking));
    cudaGetLastError();
}

TEST(Order, the_per_thread_stream_is_another_one_in_each_thread) {
    auto device = onDevice<int>(2);
    Latch latch;
    CHECK_CUDA(latch.close(cudaStreamPerThread));
    cudaError_t seen = cudaErrorUnknown;
    std::thread([&] {
        seen = cudaMemsetAsync(device.get(), 1, 4, cudaStreamPerThread);
        if (seen == cudaSuccess) {
            seen = cudaStreamSynchronize(cudaStreamPerThread);
        }
    }).join();
    EXPECT_EQ(cudaSuccess, seen);
    EXPECT_EQ(cudaErrorNotReady, cudaStreamQuery(cudaStreamPerThread));
    latch.open();
    CHECK_CUDA(cudaStreamSynchronize(cudaStreamPerThread));
    cudaGetLastError();
}

struct Seen {
    int* from;
    int value;
};

TEST(Order, a_host_function_runs_in_stream_order) {
    Stream stream;
    auto device = onDevice<int>(1);
    auto back = pinned<int>(1);
    back[0] = 0;
    CHECK_CUDA(cudaMemsetAsync(device.get(), 1, 4, stream));
    CHECK_CUDA(cudaMemcpyAsync(
            back.get(), device.get(), 4, cudaMemcpyDeviceToHost, stream));
    Seen seen{back.get(), 0};
    CHECK_CUDA(cudaLaunchHostFunc(
            stream,
            [](void* arg) {
                auto* s = static_cast<Seen*>(arg);
                s->value = *s->from;
            },
            &seen));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0x01010101, seen.value);
}

TEST(Order, memory_allocated_in_stream_order) {
    Stream stream;
    void* memory = nullptr;
    auto back = pinned<int>(kCount);
    CHECK_CUDA(cudaMallocAsync(&memory, back.bytes(), stream));
    CHECK_CUDA(cudaMemsetAsync(memory, 3, back.bytes(), stream));
    CHECK_CUDA(cudaMemcpyAsync(
            back.get(), memory, back.bytes(), cudaMemcpyDeviceToHost, stream));
    CHECK_CUDA(cudaFreeAsync(memory, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0x03030303, back[kCount - 1]);
}

TEST(Order, elapsed_time_needs_timing_and_completion) {
    Stream stream;
    Event start(cudaEventDefault), end(cudaEventDefault), untimed;
    auto device = onDevice<int>(kCount);
    float ms = -1;
    EXPECT_EQ(
            cudaErrorInvalidResourceHandle,
            cudaEventElapsedTime(&ms, start, end));
    CHECK_CUDA(cudaEventRecord(start, stream));
    CHECK_CUDA(cudaMemsetAsync(device.get(), 0, device.bytes(), stream));
    Latch latch;
    CHECK_CUDA(latch.close(stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    EXPECT_EQ(cudaErrorNotReady, cudaEventElapsedTime(&ms, start, end));
    latch.open();
    CHECK_CUDA(cudaEventRecord(untimed, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    CHECK_CUDA(cudaEventElapsedTime(&ms, start, end));
    EXPECT_GT(ms, 0);
    EXPECT_EQ(
            cudaErrorInvalidResourceHandle,
            cudaEventElapsedTime(&ms, start, untimed));
    cudaGetLastError();
}

} // namespace
