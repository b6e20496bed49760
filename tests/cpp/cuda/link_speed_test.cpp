// The speed of the link, on the simulator's clock: 25 bytes a nanosecond, and
// two microseconds for each copy.

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/LinkSpeed.h>

#include <faiss/gpu/StandardGpuResources.h>

#include "support/FlatIndexTest.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::measureLinkSpeed;
using test::expectCurrent;

class LinkSpeed : public test::SimTest {
   protected:
    faiss::gpu::StandardGpuResources resources_;
};

TEST_F(LinkSpeed, is_that_of_the_copies_alone) {
    constexpr size_t kBytes = 1 << 20;
    const auto speed =
            measureLinkSpeed(resources_.getResources(), 0, kBytes, 3);
    EXPECT_NEAR(speed.toDevice, 25e9, 3e9);
    EXPECT_NEAR(speed.toHost, 25e9, 3e9);
    // One more of each, which is not counted.
    EXPECT_EQ(bytesUp(), 4 * kBytes);
    EXPECT_EQ(bytesDown(), 4 * kBytes);
    EXPECT_EQ(counts().copies_h2d_pinned, 4u);
    EXPECT_EQ(counts().copies_d2h_pinned, 4u);
}

TEST_F(LinkSpeed, that_fails_frees_no_memory_in_use) {
    // What fails stands behind a copy that has been enqueued.
    for (int record : {2, 4, 6, 8}) {
        cuda_sim_fail_call(
                "libfaiss_ext/cudaEventRecord", record, cudaErrorInvalidValue);
        EXPECT_THROW(
                measureLinkSpeed(resources_.getResources(), 0, 4096, 1),
                faiss_ext::gpu::CudaError);
    }
}

TEST_F(LinkSpeed, of_nothing_is_refused) {
    EXPECT_THROW(
            measureLinkSpeed(resources_.getResources(), 0, 0, 3),
            faiss_ext::gpu::InvalidArray);
    EXPECT_THROW(
            measureLinkSpeed(resources_.getResources(), 0, 1, 0),
            faiss_ext::gpu::InvalidArray);
}

using LinkOfEitherGpu = test::FlatIndexTest;

TEST_F(LinkOfEitherGpu, is_measured_on_that_gpu_and_leaves_the_current_one) {
    for (int device : {0, 1}) {
        const auto speed = measureLinkSpeed(
                resources_->getResources(), device, 1 << 16, 3);
        EXPECT_GT(speed.toDevice, 0);
        EXPECT_GT(speed.toHost, 0);
        EXPECT_EQ(cuda_sim_pending(), 0u);
        expectCurrent(0);
    }
}

} // namespace
