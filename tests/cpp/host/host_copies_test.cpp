// Host copies in a stream's order, and the end of those that are given up.

#include <faiss_ext/gpu/host/HostCopies.h>

#include <memory>
#include <numeric>
#include <vector>

#include "support/Arrays.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::CopyTeam;
using faiss_ext::gpu::HostCopier;
using faiss_ext::gpu::HostCopies;
using namespace test;

constexpr size_t kStepBytes = 1 << 16;

class Steps : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    }
    void TearDown() override {
        cuda_sim_set_background_us(0);
        check(cudaStreamSynchronize(stream_));
        check(cudaStreamDestroy(stream_));
        SimTest::TearDown();
    }

    void enqueue(size_t steps) {
        copies_.reset(steps);
        from_.assign(steps * kStepBytes, 1);
        to_.assign(steps * kStepBytes, 0);
        for (size_t i = 0; i < from_.size(); i += kStepBytes) {
            copies_.enqueue(
                    {{&to_[i], &from_[i], kStepBytes}}, stream_, nullptr);
        }
    }

    HostCopies copies_{HostCopier(std::make_shared<CopyTeam>(), 1, kStepBytes)};
    std::vector<char> from_;
    std::vector<char> to_;
    cudaStream_t stream_;
};

TEST(HostCopier, keeps_its_team) {
    auto team = std::make_shared<CopyTeam>();
    std::weak_ptr<CopyTeam> kept = team;
    {
        const HostCopier copier(std::move(team), 1, kStepBytes);
        EXPECT_FALSE(kept.expired());
    }
    EXPECT_TRUE(kept.expired());
}

TEST_F(Steps, are_made_in_the_order_of_their_stream) {
    for (size_t steps : {1, 20, 5}) {
        cuda_sim_hold_stream(stream_);
        enqueue(steps);
        EXPECT_EQ(std::accumulate(to_.begin(), to_.end(), 0), 0);
        cuda_sim_release_stream(stream_);
        check(cudaStreamSynchronize(stream_));
        EXPECT_EQ(to_, from_);
    }
}

TEST_F(Steps, that_are_given_up_touch_nothing) {
    enqueue(3);
    copies_.abandon();
    check(cudaStreamSynchronize(stream_));
    EXPECT_EQ(std::accumulate(to_.begin(), to_.end(), 0), 0);
    // The next ones are made.
    enqueue(3);
    check(cudaStreamSynchronize(stream_));
    EXPECT_EQ(to_, from_);
}

TEST_F(Steps, that_are_under_way_end_before_giving_up_returns) {
    for (int round = 0; round < 50; ++round) {
        const uint64_t before = counts().host_functions;
        cuda_sim_set_background_us(1);
        enqueue(20);
        while (counts().host_functions < before + 1 + round % 10) {
        }
        copies_.abandon();
        // From now on the memory is the caller's.
        std::fill(to_.begin(), to_.end(), 2);
        check(cudaStreamSynchronize(stream_));
        EXPECT_EQ(to_, std::vector<char>(to_.size(), 2));
        std::fill(from_.begin(), from_.end(), 3);
    }
}

} // namespace
