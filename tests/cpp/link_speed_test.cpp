// The speed of the link, measured on either GPU.

#include <faiss_ext/gpu/LinkSpeed.h>

#include "support/FlatIndexTest.h"

namespace {

using faiss_ext::gpu::InvalidArray;
using faiss_ext::gpu::measureLinkSpeed;
using namespace test;

using Link = FlatIndexTest;

TEST_F(Link, is_measured_by_copies_each_way_after_one_that_is_not_counted) {
    for (int device : {0, 1}) {
        const auto before = counts();
        const auto speed = measureLinkSpeed(
                resources_->getResources(), device, 1 << 16, 3);
        const auto after = counts();
        EXPECT_GT(speed.toDevice, 0);
        EXPECT_GT(speed.toHost, 0);
        EXPECT_EQ(after.copies_h2d_pinned - before.copies_h2d_pinned, 4u);
        EXPECT_EQ(after.copies_d2h_pinned - before.copies_d2h_pinned, 4u);
        EXPECT_EQ(cuda_sim_pending(), 0u);
        expectCurrent(0);
    }
}

TEST_F(Link, is_not_measured_by_nothing) {
    const auto resources = resources_->getResources();
    EXPECT_THROW(measureLinkSpeed(resources, 0, 0, 3), InvalidArray);
    EXPECT_THROW(measureLinkSpeed(resources, 0, 64, 0), InvalidArray);
}

} // namespace
