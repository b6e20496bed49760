// For each way to order two accesses: kept, no report; left out, a report.

#include "sim_test.h"

using namespace conformance;
using cuda_sim::addOne;
using cuda_sim::contains;

namespace {

constexpr size_t kCount = 1000;

/// Under every policy: what is found must not depend on the schedule.
class Races : public cuda_sim::SimTest,
              public testing::WithParamInterface<int> {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        cuda_sim_set_policy(GetParam());
    }
};

std::string policyName(const testing::TestParamInfo<int>& info) {
    static const char* const names[] = {
            "in_order", "reverse", "starve", "late", "random"};
    return names[info.param];
}

INSTANTIATE_TEST_SUITE_P(AllPolicies, Races, testing::Range(0, 5), policyName);

TEST_P(Races, two_streams_ordered_by_an_event) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    Event done;
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaEventRecord(done, a));
    CHECK_CUDA(cudaStreamWaitEvent(b, done, 0));
    CHECK_CUDA(addOne(data.get(), kCount, b));
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, two_streams_without_the_wait) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    Event done;
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaEventRecord(done, a));
    CHECK_CUDA(addOne(data.get(), kCount, b));
    CHECK_CUDA(cudaDeviceSynchronize());
    auto text = takeReport(CUDA_SIM_REPORT_RACE);
    EXPECT_TRUE(contains(text, "write by kernel:addOne")) << text;
    EXPECT_TRUE(contains(text, "unordered with write by kernel:addOne"));
    EXPECT_TRUE(contains(text, "sim_tests")) << "no caller in: " << text;
}

TEST_P(Races, two_streams_without_the_record) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    Event done;
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaStreamWaitEvent(b, done, 0));
    CHECK_CUDA(addOne(data.get(), kCount, b));
    CHECK_CUDA(cudaDeviceSynchronize());
    takeReport(CUDA_SIM_REPORT_RACE);
}

TEST_P(Races, a_record_before_the_work_does_not_order_it) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    Event done;
    CHECK_CUDA(cudaEventRecord(done, a));
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaStreamWaitEvent(b, done, 0));
    CHECK_CUDA(addOne(data.get(), kCount, b));
    CHECK_CUDA(cudaDeviceSynchronize());
    takeReport(CUDA_SIM_REPORT_RACE);
}

TEST_P(Races, order_passes_through_a_third_stream) {
    auto data = onDevice<int>(kCount);
    Stream a, b, c;
    Event first, second;
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaEventRecord(first, a));
    CHECK_CUDA(cudaStreamWaitEvent(b, first, 0));
    CHECK_CUDA(cudaEventRecord(second, b));
    CHECK_CUDA(cudaStreamWaitEvent(c, second, 0));
    CHECK_CUDA(addOne(data.get(), kCount, c));
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, two_readers_are_no_race_and_a_writer_after_one_is) {
    auto data = onDevice<int>(kCount);
    auto one = pinned<int>(kCount), two = pinned<int>(kCount);
    Stream a, b;
    Event done;
    CHECK_CUDA(cudaMemset(data.get(), 0, data.bytes()));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaMemcpyAsync(
            one.get(), data.get(), data.bytes(), cudaMemcpyDefault, a));
    CHECK_CUDA(cudaMemcpyAsync(
            two.get(), data.get(), data.bytes(), cudaMemcpyDefault, b));
    EXPECT_EQ(0u, cuda_sim_check());
    CHECK_CUDA(cudaEventRecord(done, a));
    CHECK_CUDA(cudaStreamWaitEvent(b, done, 0));
    CHECK_CUDA(addOne(data.get(), kCount, b));
    EXPECT_EQ(0u, cuda_sim_check());
    CHECK_CUDA(addOne(data.get(), kCount, a)); // not ordered after b
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, only_the_bytes_touched_count) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    CHECK_CUDA(addOne(data.get(), 500, a));
    CHECK_CUDA(addOne(data.get() + 500, 500, b));
    EXPECT_EQ(0u, cuda_sim_check());
    CHECK_CUDA(addOne(data.get() + 499, 1, b));
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, a_host_wait_orders_what_comes_after) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaStreamSynchronize(a));
    CHECK_CUDA(addOne(data.get(), kCount, b));
    CHECK_CUDA(cudaStreamSynchronize(b));
}

TEST_P(Races, a_query_that_says_ready_orders_too) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    Event done;
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaEventRecord(done, a));
    while (cudaEventQuery(done) == cudaErrorNotReady) {
    }
    CHECK_CUDA(addOne(data.get(), kCount, b));
    CHECK_CUDA(cudaStreamSynchronize(b));
    cudaGetLastError();
}

TEST_P(Races, a_device_wait_orders_what_destroyed_streams_did) {
    auto data = onDevice<int>(kCount), other = onDevice<int>(kCount);
    Stream user;
    {
        Stream free, blocking(cudaStreamDefault);
        CHECK_CUDA(addOne(data.get(), kCount, free));
        CHECK_CUDA(addOne(other.get(), kCount, blocking));
    }
    cuda_sim_run(1000);
    CHECK_CUDA(addOne(other.get(), kCount, 0)); // joins blocking streams
    EXPECT_EQ(0u, cuda_sim_check());
    { Stream gone; } // the others are buried
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(addOne(data.get(), kCount, user));
    CHECK_CUDA(cudaStreamSynchronize(user));
}

TEST_P(Races, waiting_for_the_wrong_stream_orders_nothing) {
    auto data = onDevice<int>(kCount);
    Stream a, b;
    CHECK_CUDA(addOne(data.get(), kCount, a));
    CHECK_CUDA(cudaStreamSynchronize(b));
    CHECK_CUDA(addOne(data.get(), kCount, b));
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, the_default_stream_orders_blocking_streams_only) {
    auto data = onDevice<int>(kCount);
    Stream blocking(cudaStreamDefault), free(cudaStreamNonBlocking);
    CHECK_CUDA(addOne(data.get(), kCount, blocking));
    CHECK_CUDA(addOne(data.get(), kCount, 0));
    CHECK_CUDA(addOne(data.get(), kCount, blocking));
    EXPECT_EQ(0u, cuda_sim_check());
    CHECK_CUDA(addOne(data.get(), kCount, free));
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, the_host_reads_a_pinned_result_after_the_wait) {
    auto data = onDevice<int>(kCount);
    auto host = pinned<int>(kCount);
    Stream stream;
    CHECK_CUDA(cudaMemsetAsync(data.get(), 0, data.bytes(), stream));
    CHECK_CUDA(cudaMemcpyAsync(
            host.get(), data.get(), data.bytes(), cudaMemcpyDefault, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    cuda_sim_host_access(host.get(), host.bytes(), 0);
    EXPECT_EQ(0, host[kCount - 1]);
}

TEST_P(Races, the_host_reads_a_pinned_result_too_early) {
    auto data = onDevice<int>(kCount);
    auto host = pinned<int>(kCount);
    Stream stream;
    CHECK_CUDA(cudaMemsetAsync(data.get(), 0, data.bytes(), stream));
    CHECK_CUDA(cudaMemcpyAsync(
            host.get(), data.get(), data.bytes(), cudaMemcpyDefault, stream));
    cuda_sim_host_access(host.get(), host.bytes(), 0);
    auto text = takeReport(CUDA_SIM_REPORT_RACE);
    EXPECT_TRUE(contains(text, "read by host read")) << text;
    EXPECT_TRUE(contains(text, "write by cudaMemcpyAsync device to pinned"));
    CHECK_CUDA(cudaStreamSynchronize(stream));
}

TEST_P(Races, the_host_refills_a_pinned_source_too_early) {
    auto data = onDevice<int>(kCount);
    auto host = pinned<int>(kCount);
    Stream stream;
    cuda_sim_host_access(host.get(), host.bytes(), 1);
    CHECK_CUDA(cudaMemcpyAsync(
            data.get(), host.get(), data.bytes(), cudaMemcpyDefault, stream));
    EXPECT_EQ(0u, cuda_sim_check());
    cuda_sim_host_access(host.get(), host.bytes(), 1);
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaStreamSynchronize(stream));
}

TEST_P(Races, memory_of_a_stream_used_on_another) {
    Stream a, b;
    Event ready;
    void* memory = nullptr;
    CHECK_CUDA(cudaMallocAsync(&memory, 4 * kCount, a));
    CHECK_CUDA(cudaEventRecord(ready, a));
    CHECK_CUDA(cudaStreamWaitEvent(b, ready, 0));
    CHECK_CUDA(cudaMemsetAsync(memory, 0, 4 * kCount, b));
    EXPECT_EQ(0u, cuda_sim_check());
    CHECK_CUDA(cudaFreeAsync(memory, a)); // b may still fill it
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, a_device_to_device_copy_does_not_wait) {
    auto from = onDevice<int>(kCount), to = onDevice<int>(kCount);
    Stream other;
    CHECK_CUDA(cudaMemset(from.get(), 0, from.bytes()));
    CHECK_CUDA(cudaMemcpy(
            to.get(), from.get(), from.bytes(), cudaMemcpyDeviceToDevice));
    CHECK_CUDA(addOne(to.get(), kCount, other));
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_P(Races, threads_apart_are_ordered_by_tokens_only) {
    cuda_sim_set_separate_threads(1);
    auto data = onDevice<int>(kCount);
    auto host = pinned<int>(kCount);
    Stream a, b;
    int token = 0;
    CHECK_CUDA(cudaMemsetAsync(data.get(), 0, data.bytes(), b));
    CHECK_CUDA(cudaStreamSynchronize(b));
    // So that the other thread is not one that this one starts later.
    std::atomic<int> turn{0};
    std::thread other([&] {
        int device;
        cudaGetDevice(&device);
        cuda_sim_host_access(host.get(), 4, 1);
        turn = 1;
        while (turn != 2) {
            std::this_thread::yield();
        }
        EXPECT_EQ(cudaSuccess, addOne(data.get(), kCount, a));
        EXPECT_EQ(cudaSuccess, cudaStreamSynchronize(a));
        cuda_sim_thread_release(&token);
        turn = 3;
    });
    while (turn != 1) {
        std::this_thread::yield();
    }
    turn = 2;
    while (turn != 3) {
        std::this_thread::yield();
    }
    other.join();
    CHECK_CUDA(addOne(data.get(), kCount, b));
    takeReport(CUDA_SIM_REPORT_RACE);
    CHECK_CUDA(cudaStreamSynchronize(b));
    cuda_sim_thread_acquire(&token);
    CHECK_CUDA(addOne(data.get(), kCount, b));
    CHECK_CUDA(cudaStreamSynchronize(b));
    cuda_sim_set_separate_threads(0);
}

} // namespace
