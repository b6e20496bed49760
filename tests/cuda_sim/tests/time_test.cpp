// The simulated clock behind cudaEventElapsedTime.

#include "sim_test.h"

using namespace conformance;

namespace {

using Time = cuda_sim::SimTest;

struct TimedEvent : Event {
    TimedEvent() : Event(cudaEventDefault) {}
};

void kernels(int count, cudaStream_t stream) {
    for (int i = 0; i < count; ++i) {
        EXPECT_EQ(cudaSuccess, cuda_sim::launch("kernel", stream, {}, [] {}));
    }
}

float milliseconds(cudaEvent_t start, cudaEvent_t end) {
    float ms = -1;
    EXPECT_EQ(cudaSuccess, cudaEventElapsedTime(&ms, start, end));
    return ms;
}

TEST_F(Time, grows_with_the_work_between_the_events) {
    Stream stream;
    TimedEvent begin, one, three;
    CHECK_CUDA(cudaEventRecord(begin, stream));
    kernels(1, stream);
    CHECK_CUDA(cudaEventRecord(one, stream));
    kernels(2, stream);
    CHECK_CUDA(cudaEventRecord(three, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_GT(milliseconds(begin, one), 0);
    EXPECT_GT(milliseconds(one, three), 1.5f * milliseconds(begin, one));
    EXPECT_EQ(-milliseconds(one, three), milliseconds(three, one));
}

TEST_F(Time, of_a_copy_grows_with_its_bytes) {
    constexpr size_t kBytes = 1 << 20;
    Stream stream;
    TimedEvent begin, small, large;
    auto device = onDevice<char>(kBytes);
    auto host = pinned<char>(kBytes);
    std::fill_n(host.get(), kBytes, 1);
    CHECK_CUDA(cudaEventRecord(begin, stream));
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(), host.get(), 1, cudaMemcpyHostToDevice, stream));
    CHECK_CUDA(cudaEventRecord(small, stream));
    CHECK_CUDA(cudaMemcpyAsync(
            device.get(), host.get(), kBytes, cudaMemcpyHostToDevice, stream));
    CHECK_CUDA(cudaEventRecord(large, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    EXPECT_GT(milliseconds(small, large), 4 * milliseconds(begin, small));
}

/// Two streams with 5 kernels each, the second one after the first if
/// `inTurn`: from the begin of the first to the end of both.
float ofTwoStreams(bool inTurn) {
    Stream first, second;
    TimedEvent begin, firstDone, bothDone;
    EXPECT_EQ(cudaSuccess, cudaEventRecord(begin, first));
    EXPECT_EQ(cudaSuccess, cudaStreamWaitEvent(second, begin, 0));
    kernels(5, first);
    EXPECT_EQ(cudaSuccess, cudaEventRecord(firstDone, first));
    if (inTurn) {
        EXPECT_EQ(cudaSuccess, cudaStreamWaitEvent(second, firstDone, 0));
    }
    kernels(5, second);
    EXPECT_EQ(cudaSuccess, cudaStreamWaitEvent(second, firstDone, 0));
    EXPECT_EQ(cudaSuccess, cudaEventRecord(bothDone, second));
    EXPECT_EQ(cudaSuccess, cudaStreamSynchronize(second));
    return milliseconds(begin, bothDone);
}

TEST_F(Time, overlaps_on_streams_that_do_not_wait_for_each_other) {
    EXPECT_GT(ofTwoStreams(true), 1.5f * ofTwoStreams(false));
}

TEST_F(Time, is_the_same_under_every_policy) {
    cuda_sim_set_policy(CUDA_SIM_IN_ORDER);
    const float apart = ofTwoStreams(false);
    const float inTurn = ofTwoStreams(true);
    for (int policy :
         {CUDA_SIM_REVERSE, CUDA_SIM_AS_LATE_AS_POSSIBLE, CUDA_SIM_RANDOM}) {
        cuda_sim_set_policy(policy);
        for (uint64_t seed = 1; seed < 20; ++seed) {
            cuda_sim_set_seed(seed);
            EXPECT_FLOAT_EQ(apart, ofTwoStreams(false));
            EXPECT_FLOAT_EQ(inTurn, ofTwoStreams(true));
        }
    }
}

TEST_F(Time, what_is_enqueued_after_a_wait_begins_after_it) {
    Stream busy, idle;
    TimedEvent busyDone, later;
    kernels(5, busy);
    CHECK_CUDA(cudaEventRecord(busyDone, busy));
    CHECK_CUDA(cudaEventSynchronize(busyDone));
    CHECK_CUDA(cudaEventRecord(later, idle));
    CHECK_CUDA(cudaStreamSynchronize(idle));
    EXPECT_GT(milliseconds(busyDone, later), 0);
}

TEST_F(Time, counts_what_is_waited_for_though_it_was_executed_before) {
    cuda_sim_set_policy(CUDA_SIM_IN_ORDER);
    Stream busy, queried, waiting;
    TimedEvent busyDone, later;
    kernels(5, busy);
    CHECK_CUDA(cudaEventRecord(busyDone, busy));
    kernels(1, queried);
    while (cuda_sim_pending_on(busy) > 0) {
        ASSERT_EQ(cudaErrorNotReady, cudaStreamQuery(queried));
    }
    cudaGetLastError();
    CHECK_CUDA(cudaStreamWaitEvent(waiting, busyDone, 0));
    CHECK_CUDA(cudaEventRecord(later, waiting));
    CHECK_CUDA(cudaStreamSynchronize(waiting));
    EXPECT_GT(milliseconds(busyDone, later), 0);
}

TEST_F(Time, of_events_of_two_devices_is_refused) {
    cuda_sim_set_device_count(2);
    TimedEvent here;
    CHECK_CUDA(cudaEventRecord(here, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaSetDevice(1));
    TimedEvent there;
    CHECK_CUDA(cudaEventRecord(there, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
    float ms = -1;
    EXPECT_EQ(
            cudaErrorInvalidResourceHandle,
            cudaEventElapsedTime(&ms, here, there));
    cudaGetLastError();
    CHECK_CUDA(cudaSetDevice(0));
}

} // namespace
