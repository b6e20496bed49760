// Every counter counts what its name says, exactly.

#include "sim_test.h"

using namespace conformance;
using cuda_sim::addOne;

namespace {

using Counters = cuda_sim::SimTest;

cuda_sim_stats stats() {
    cuda_sim_stats s;
    cuda_sim_get_stats(&s);
    return s;
}

TEST_F(Counters, copies_by_direction_and_kind_of_memory) {
    auto device = onDevice<char>(100), other = onDevice<char>(100);
    auto host = pinned<char>(100);
    std::vector<char> pageable(100), second(100);
    CHECK_CUDA(cudaMemset(device.get(), 0, 100));
    CHECK_CUDA(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    Stream stream;
    auto copy = [&](void* to, const void* from, size_t bytes) {
        EXPECT_EQ(
                cudaSuccess,
                cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    };
    copy(device.get(), pageable.data(), 1);
    copy(device.get(), host.get(), 2);
    copy(pageable.data(), device.get(), 3);
    copy(host.get(), device.get(), 4);
    copy(other.get(), device.get(), 5);
    copy(second.data(), pageable.data(), 6);
    copy(device.get(), host.get(), 0); // none
    CHECK_CUDA(cudaDeviceSynchronize());
    auto s = stats();
    EXPECT_EQ(1u, s.copies_h2d_pageable);
    EXPECT_EQ(1u, s.bytes_h2d_pageable);
    EXPECT_EQ(1u, s.copies_h2d_pinned);
    EXPECT_EQ(2u, s.bytes_h2d_pinned);
    EXPECT_EQ(1u, s.copies_d2h_pageable);
    EXPECT_EQ(3u, s.bytes_d2h_pageable);
    EXPECT_EQ(1u, s.copies_d2h_pinned);
    EXPECT_EQ(4u, s.bytes_d2h_pinned);
    EXPECT_EQ(1u, s.copies_d2d);
    EXPECT_EQ(5u, s.bytes_d2d);
    EXPECT_EQ(1u, s.copies_h2h);
    EXPECT_EQ(6u, s.bytes_h2h);
    EXPECT_EQ(0u, s.copies_p2p);
    EXPECT_EQ(7u, cuda_sim_calls("cudaMemcpyAsync"));
}

TEST_F(Counters, copies_between_devices) {
    cuda_sim_set_device_count(2);
    auto here = onDevice<char>(100);
    CHECK_CUDA(cudaMemset(here.get(), 0, 100));
    CHECK_CUDA(cudaSetDevice(1));
    auto there = onDevice<char>(100);
    CHECK_CUDA(cudaSetDevice(0));
    CHECK_CUDA(cudaMemcpyPeer(there.get(), 1, here.get(), 0, 100));
    CHECK_CUDA(cudaDeviceSynchronize());
    EXPECT_EQ(1u, stats().copies_p2p);
    EXPECT_EQ(100u, stats().bytes_p2p);
}

TEST_F(Counters, waits_by_kind) {
    auto device = onDevice<char>(100);
    auto host = pinned<char>(100);
    std::vector<char> pageable(100);
    Stream stream;
    Event event;
    cuda_sim_reset_counters();
    CHECK_CUDA(cudaMemsetAsync(device.get(), 0, 100, stream));
    CHECK_CUDA(cudaEventRecord(event, stream));
    CHECK_CUDA(cudaEventSynchronize(event));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaMemcpy(host.get(), device.get(), 100, cudaMemcpyDefault));
    CHECK_CUDA(cudaMemcpyAsync(
            pageable.data(), device.get(), 100, cudaMemcpyDefault, stream));
    CHECK_CUDA(cudaEventQuery(event));
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, 10));
    CHECK_CUDA(cudaFree(memory));
    auto s = stats();
    EXPECT_EQ(1u, s.waits_event);
    EXPECT_EQ(1u, s.waits_stream);
    EXPECT_EQ(1u, s.waits_device);
    EXPECT_EQ(1u, s.waits_memcpy);
    EXPECT_EQ(1u, s.waits_pageable);
    EXPECT_EQ(1u, s.waits_free);
    EXPECT_EQ(1u, s.queries);
}

TEST_F(Counters, memory) {
    cuda_sim_reset_counters();
    Stream stream;
    {
        auto device = onDevice<char>(100);
        auto host = pinned<char>(200);
        void* pool = nullptr;
        CHECK_CUDA(cudaMallocAsync(&pool, 50, stream));
        auto s = stats();
        EXPECT_EQ(2u, s.live_device);
        EXPECT_EQ(150u, s.live_device_bytes);
        EXPECT_EQ(1u, s.live_pinned);
        EXPECT_EQ(200u, s.live_pinned_bytes);
        CHECK_CUDA(cudaFreeAsync(pool, stream));
        CHECK_CUDA(cudaStreamSynchronize(stream));
    }
    auto s = stats();
    EXPECT_EQ(1u, s.allocs_device);
    EXPECT_EQ(1u, s.frees_device);
    EXPECT_EQ(1u, s.allocs_pinned);
    EXPECT_EQ(1u, s.frees_pinned);
    EXPECT_EQ(1u, s.allocs_async);
    EXPECT_EQ(1u, s.frees_async);
    EXPECT_EQ(150u, s.bytes_allocated_device);
    EXPECT_EQ(200u, s.bytes_allocated_pinned);
    EXPECT_EQ(150u, s.peak_device_bytes);
    EXPECT_EQ(0u, s.live_device + s.live_device_bytes);
    EXPECT_EQ(0u, s.live_pinned + s.live_pinned_bytes);
}

TEST_F(Counters, work_and_objects) {
    auto device = onDevice<int>(100);
    cuda_sim_reset_counters();
    {
        Stream a, b;
        Event event;
        CHECK_CUDA(cudaMemsetAsync(device.get(), 0, 400, a));
        CHECK_CUDA(addOne(device.get(), 100, a));
        CHECK_CUDA(cudaEventRecord(event, a));
        CHECK_CUDA(cudaStreamWaitEvent(b, event, 0));
        CHECK_CUDA(cudaLaunchHostFunc(
                b, [](void*) {}, nullptr));
        CHECK_CUDA(cudaDeviceSynchronize());
        EXPECT_EQ(2u, stats().live_streams);
        EXPECT_EQ(1u, stats().live_events);
    }
    auto s = stats();
    EXPECT_EQ(1u, s.memsets);
    EXPECT_EQ(400u, s.bytes_memset);
    EXPECT_EQ(1u, s.kernels);
    EXPECT_EQ(1u, s.event_records);
    EXPECT_EQ(1u, s.event_waits);
    EXPECT_EQ(1u, s.host_functions);
    EXPECT_EQ(2u, s.streams_created);
    EXPECT_EQ(1u, s.events_created);
    EXPECT_EQ(0u, s.live_streams + s.live_events);
    EXPECT_EQ(5u, s.operations_executed);
    EXPECT_EQ(1u, cuda_sim_calls("kernel:addOne"));
    EXPECT_EQ(s.kernels, cuda_sim_counter("kernels"));
    EXPECT_EQ(UINT64_MAX, cuda_sim_counter("no such"));
}

} // namespace
