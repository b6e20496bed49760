// When things execute: late, in the order of the policy, in pieces, held.

#include <cstring>
#include <future>

#include "sim_test.h"

using namespace conformance;
using cuda_sim::addOne;
using cuda_sim::contains;

namespace {

using Schedule = cuda_sim::SimTest;

/// A kernel that notes that it ran.
void note(std::vector<int>* order, int id, cudaStream_t stream) {
    EXPECT_EQ(cudaSuccess, cuda_sim::launch("note", stream, {}, [=] {
                  order->push_back(id);
              }));
}

std::vector<int> orderUnder(int policy, uint64_t seed, int starved = -1) {
    cuda_sim_set_policy(policy);
    cuda_sim_set_seed(seed);
    std::vector<int> order;
    std::vector<Stream> streams(3);
    if (starved >= 0) {
        cuda_sim_starve_stream(streams[starved]);
    }
    for (int i = 0; i < 4; ++i) {
        for (int s = 0; s < 3; ++s) {
            note(&order, 10 * s + i, streams[s]);
        }
    }
    EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
    return order;
}

TEST_F(Schedule, nothing_executes_before_the_host_waits) {
    std::vector<int> order;
    Stream stream;
    note(&order, 1, stream);
    note(&order, 2, stream);
    EXPECT_TRUE(order.empty());
    EXPECT_EQ(2u, cuda_sim_pending_on(stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ((std::vector<int>{1, 2}), order);
}

TEST_F(Schedule, a_query_makes_one_step) {
    std::vector<int> order;
    Stream stream;
    Event done;
    note(&order, 1, stream);
    note(&order, 2, stream);
    CHECK_CUDA(cudaEventRecord(done, stream));
    EXPECT_EQ(cudaErrorNotReady, cudaEventQuery(done));
    EXPECT_EQ(1u, order.size());
    EXPECT_EQ(cudaErrorNotReady, cudaEventQuery(done));
    EXPECT_EQ(2u, order.size());
    CHECK_CUDA(cudaEventQuery(done));
    cudaGetLastError();
}

TEST_F(Schedule, policies) {
    EXPECT_EQ(
            (std::vector<int>{0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23}),
            orderUnder(CUDA_SIM_IN_ORDER, 1));
    EXPECT_EQ(
            (std::vector<int>{20, 21, 22, 23, 10, 11, 12, 13, 0, 1, 2, 3}),
            orderUnder(CUDA_SIM_REVERSE, 1));
    auto starved = orderUnder(CUDA_SIM_STARVE, 1, 1);
    EXPECT_EQ(
            (std::vector<int>{10, 11, 12, 13}),
            std::vector<int>(starved.begin() + 8, starved.end()));
}

TEST_F(Schedule, the_same_seed_gives_the_same_run) {
    auto first = orderUnder(CUDA_SIM_RANDOM, 7);
    EXPECT_EQ(first, orderUnder(CUDA_SIM_RANDOM, 7));
    int different = 0;
    for (int seed = 0; seed < 20; ++seed) {
        different += orderUnder(CUDA_SIM_RANDOM, seed) != first;
    }
    EXPECT_GT(different, 15);
}

TEST_F(Schedule, as_late_as_possible_runs_only_what_is_needed) {
    std::vector<int> order;
    Stream a, b, c;
    Event event;
    note(&order, 1, a);
    note(&order, 2, b);
    CHECK_CUDA(cudaEventRecord(event, b));
    note(&order, 3, b);
    CHECK_CUDA(cudaStreamWaitEvent(c, event, 0));
    note(&order, 4, c);
    CHECK_CUDA(cudaStreamSynchronize(c));
    EXPECT_EQ((std::vector<int>{2, 4}), order);
    CHECK_CUDA(cudaDeviceSynchronize());
    EXPECT_EQ(4u, order.size());
}

TEST_F(Schedule, an_early_reader_sees_a_torn_copy) {
    auto device = onDevice<int>(1000);
    auto host = pinned<int>(1000);
    Stream stream;
    CHECK_CUDA(cudaMemset(device.get(), 0, device.bytes()));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaMemcpyAsync(
            host.get(),
            device.get(),
            device.bytes(),
            cudaMemcpyDeviceToHost,
            stream));
    EXPECT_EQ(2u, cuda_sim_run(2));
    int done = 0;
    for (int i = 0; i < 1000; ++i) {
        done += host[i] == 0;
    }
    EXPECT_EQ(500, done);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0, host[0] | host[999]);
}

TEST_F(Schedule, a_held_stream_proves_that_a_call_does_not_wait) {
    std::vector<int> order;
    Stream held, free;
    cuda_sim_hold_stream(held);
    note(&order, 1, held);
    note(&order, 2, free);
    CHECK_CUDA(cudaStreamSynchronize(free));
    EXPECT_EQ((std::vector<int>{2}), order);
    EXPECT_EQ(cudaErrorNotReady, cudaStreamQuery(held));
    cuda_sim_release_stream(held);
    CHECK_CUDA(cudaStreamSynchronize(held));
    EXPECT_EQ((std::vector<int>{2, 1}), order);
    cudaGetLastError();
}

TEST_F(Schedule, a_wait_that_can_never_end_fails_loudly) {
    std::vector<int> order;
    Stream held, waiter;
    Event event;
    cuda_sim_hold_stream(held);
    note(&order, 1, held);
    CHECK_CUDA(cudaEventRecord(event, held));
    CHECK_CUDA(cudaStreamWaitEvent(waiter, event, 0));
    note(&order, 2, waiter);
    EXPECT_EQ(cudaErrorLaunchTimeout, cudaStreamSynchronize(waiter));
    auto text = takeReport(CUDA_SIM_REPORT_STUCK_WAIT);
    EXPECT_TRUE(contains(text, "is held")) << text;
    cuda_sim_release_all();
    CHECK_CUDA(cudaStreamSynchronize(waiter));
    EXPECT_EQ((std::vector<int>{1, 2}), order);
    cudaGetLastError();
}

TEST_F(Schedule, another_thread_may_release) {
    cuda_sim_set_hold_timeout_ms(10000);
    std::vector<int> order;
    Stream held;
    cuda_sim_hold_stream(held);
    note(&order, 1, held);
    auto waiting = std::async(
            std::launch::async, [&] { return cudaStreamSynchronize(held); });
    EXPECT_EQ(
            std::future_status::timeout,
            waiting.wait_for(std::chrono::milliseconds(20)));
    cuda_sim_release_stream(held);
    EXPECT_EQ(cudaSuccess, waiting.get());
    EXPECT_EQ(1u, order.size());
}

TEST_F(Schedule, a_blocking_pageable_copy_up) {
    auto device = onDevice<int>(1000);
    auto values = counting(1000);
    Stream stream;
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(), values.data(), 4000, cudaMemcpyDefault, stream));
    EXPECT_EQ(1u, cuda_sim_pending());
    EXPECT_EQ(0u, cuda_sim_counter("waits_pageable"));
    cuda_sim_set_pageable_h2d(1);
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(), values.data(), 4000, cudaMemcpyDefault, stream));
    EXPECT_EQ(0u, cuda_sim_pending());
    EXPECT_EQ(1u, cuda_sim_counter("waits_pageable"));
}

TEST_F(Schedule, an_early_pageable_copy_down) {
    auto device = onDevice<int>(1000);
    std::vector<int> host(1000);
    Stream stream;
    CHECK_CUDA(cudaMemsetAsync(device.get(), 0, 4000, stream));
    cuda_sim_set_pageable_d2h(1);
    CHECK_CUDA(cudaMemcpyAsync(
            host.data(), device.get(), 4000, cudaMemcpyDefault, stream));
    EXPECT_TRUE(cuda_sim_is_poison(host.data(), 4000));
    cuda_sim_host_access(host.data(), 4000, 0);
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(0, host[999]);
}

TEST_F(Schedule, the_device_can_make_progress_by_itself) {
    Stream stream;
    std::promise<void> called;
    CHECK_CUDA(cudaLaunchHostFunc(
            stream,
            [](void* arg) {
                static_cast<std::promise<void>*>(arg)->set_value();
            },
            &called));
    auto future = called.get_future();
    EXPECT_EQ(
            std::future_status::timeout,
            future.wait_for(std::chrono::milliseconds(20)));
    cuda_sim_set_background_us(100);
    EXPECT_EQ(
            std::future_status::ready,
            future.wait_for(std::chrono::seconds(10)));
    cuda_sim_set_background_us(0);
}

TEST_F(Schedule, a_host_function_must_not_call_the_runtime) {
    Stream stream;
    CHECK_CUDA(cudaLaunchHostFunc(
            stream,
            [](void*) {
                EXPECT_EQ(cudaErrorNotPermitted, cudaDeviceSynchronize());
            },
            nullptr));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    auto text = takeReport(CUDA_SIM_REPORT_CALL_IN_HOST_FUNCTION);
    EXPECT_TRUE(contains(text, "cudaDeviceSynchronize")) << text;
}

TEST_F(Schedule, streams_and_events_belong_to_a_device) {
    cuda_sim_set_device_count(2);
    Stream here;
    Event mine;
    auto device = onDevice<int>(10);
    CHECK_CUDA(cudaSetDevice(1));
    Stream there;
    Event theirs;
    // A kernel only on a stream of the current device, as on a GPU.
    EXPECT_EQ(cudaErrorInvalidResourceHandle, addOne(device.get(), 10, here));
    EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaEventRecord(mine, there));
    takeReport(CUDA_SIM_REPORT_BAD_HANDLE);
    // Nor on another device's memory, without peer access.
    CHECK_CUDA(cudaDeviceEnablePeerAccess(0, 0));
    CHECK_CUDA(addOne(device.get(), 10, there));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaDeviceDisablePeerAccess(0));
    CHECK_CUDA(addOne(device.get(), 10, there));
    takeReport(CUDA_SIM_REPORT_BAD_ARGUMENT);
    CHECK_CUDA(cudaDeviceReset());
    // Waits and copies cross devices.
    CHECK_CUDA(cudaEventRecord(mine, here));
    CHECK_CUDA(cudaStreamWaitEvent(there, mine, 0));
    CHECK_CUDA(cudaMemsetAsync(device.get(), 0, 40, here));
    CHECK_CUDA(cudaStreamSynchronize(here));
    CHECK_CUDA(cudaStreamSynchronize(there));
    CHECK_CUDA(cudaSetDevice(0));
    cudaGetLastError();
}

TEST_F(Schedule, many_threads) {
    auto device = onDevice<int>(8 * 100);
    CHECK_CUDA(cudaMemset(device.get(), 0, device.bytes()));
    CHECK_CUDA(cudaDeviceSynchronize());
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            Stream stream;
            Event event;
            auto back = pinned<int>(100);
            for (int i = 0; i < 50; ++i) {
                int* mine = device.get() + 100 * t;
                EXPECT_EQ(cudaSuccess, addOne(mine, 100, stream));
                EXPECT_EQ(
                        cudaSuccess,
                        cudaMemcpyAsync(
                                back.get(),
                                mine,
                                400,
                                cudaMemcpyDefault,
                                stream));
                EXPECT_EQ(cudaSuccess, cudaEventRecord(event, stream));
                EXPECT_EQ(cudaSuccess, cudaEventSynchronize(event));
                EXPECT_EQ(i + 1, back[99]);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

} // namespace
