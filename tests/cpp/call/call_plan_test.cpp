// How calls run: every choice, without CUDA.

#include <faiss_ext/gpu/call/CallPlan.h>
#include <gtest/gtest.h>

#include <string>

#include "support/Calls.h"

namespace {

using namespace faiss_ext::gpu;
using test::TunedConfig;

constexpr size_t MiB = size_t(1) << 20;
constexpr size_t GiB = size_t(1) << 30;

/// A search of which each stream takes `laneBytes` of scratch memory, and each
/// vector of a slice one byte for each row.
class FakeSearch : public Computation {
   public:
    ComputeNeeds needs(idx_t) const override {
        return asked;
    }
    SliceNeeds sliceNeeds(idx_t rows, const Slices& slices) const override {
        return {static_cast<size_t>(rows * slices.vectors),
                static_cast<size_t>(rows * slices.count * 12),
                mergeBytes};
    }
    void enqueue(const ComputeContext&, const ComputeRows&) override {}

    ComputeNeeds asked;
    size_t mergeBytes = 0;
};

class CallPlans : public ::testing::Test {
   protected:
    CallPlan plan(idx_t n) {
        return planCall({n, in_, out_, search_}, limits());
    }

    CallLimits limits() {
        complete_ = config_.complete();
        return {complete_,
                256 * MiB,
                faissPinned_,
                temporary_,
                25e12,
                scarce_,
                mostRows_};
    }

    /// Rows of d 128 and k neighbours, in pageable memory or pinned, or on the
    /// GPU.
    void pageable(size_t k) {
        in_ = {512, 512, 512};
        out_ = {12 * k, 12 * k, 12 * k};
    }
    void pinned(size_t k) {
        in_ = {512, 0, 512};
        out_ = {12 * k, 0, 12 * k};
    }
    void onGpu() {
        in_ = out_ = {};
    }

    RowBytes in_, out_;
    FakeSearch search_;
    TunedConfig config_;
    CallConfig complete_{};
    size_t faissPinned_ = 0;
    size_t temporary_ = 3 * GiB / 2;
    bool scarce_ = false;
    idx_t mostRows_ = 1 << 30;
};

TEST_F(CallPlans, arrays_on_the_gpu_are_used_in_place_and_not_waited_for) {
    onGpu();
    const auto found = plan(100000);
    EXPECT_EQ(found.path, CallPlan::Path::InPlace);
    EXPECT_FALSE(found.waits);
    EXPECT_EQ(found.tiles.tiles(), 1);
    EXPECT_EQ(found.rowsAtOnce, 100000);
    EXPECT_EQ(
            found.text(),
            "100000 rows in place, computed on the default stream; no wait");
}

TEST_F(CallPlans, few_results_are_one_tile_in_faiss_temporary_memory) {
    pageable(10);
    const auto found = plan(1000);
    EXPECT_EQ(found.path, CallPlan::Path::OneTile);
    EXPECT_TRUE(found.temporaryBlocks);
    EXPECT_TRUE(found.waits);
    EXPECT_FALSE(found.mapped);
}

TEST_F(CallPlans, many_results_are_tiles_in_memory_of_their_own) {
    pageable(1000);
    const auto found = plan(10000);
    EXPECT_EQ(found.path, CallPlan::Path::Tiles);
    EXPECT_FALSE(found.temporaryBlocks);
    EXPECT_EQ(found.tiles.depth, 3);
    EXPECT_EQ(found.tiles.bounds.back(), 10000);
    EXPECT_NE(found.text().find("tiles of up to"), std::string::npos);
}

TEST_F(CallPlans, kernels_store_the_results_of_few_queries_themselves) {
    search_.asked.storesToPinned = true;
    pageable(100);
    EXPECT_TRUE(plan(100).mapped);
    EXPECT_FALSE(plan(200).mapped); // 240 KB
    pageable(1);
    EXPECT_TRUE(plan(512).mapped);
    EXPECT_FALSE(plan(513).mapped);
    config_.mappedBytes = 1;
    EXPECT_FALSE(plan(1).mapped);
    // A reconstruction does not.
    config_.mappedBytes = 0;
    search_.asked.storesToPinned = false;
    EXPECT_FALSE(plan(1).mapped);
}

TEST_F(CallPlans, streams_are_as_many_as_have_scratch_memory_and_rows) {
    onGpu();
    search_.asked.laneBytes = 100 * MiB;
    search_.asked.lanes = 8;
    EXPECT_EQ(plan(100000).streams, 8u);
    EXPECT_EQ(plan(2048).streams, 4u);
    // Two are no more than Faiss has, but for a join at each tile.
    EXPECT_EQ(plan(1024).streams, 1u);
    config_.computeLanes = 2;
    EXPECT_EQ(plan(100000).streams, 2u);
    config_.computeLanes = 0;
    temporary_ = 450 * MiB;
    EXPECT_EQ(plan(100000).streams, 4u);
    EXPECT_EQ(plan(100000).laneBytes, 100 * MiB);
    temporary_ = 0;
    EXPECT_EQ(plan(100000).streams, 1u);
}

TEST_F(CallPlans, blocks_of_one_tile_are_taken_before_scratch_memory) {
    pinned(4);
    search_.asked.laneBytes = 10 * MiB;
    search_.asked.lanes = 8;
    config_.oneTileBytes = 64 * MiB;
    temporary_ = 100 * MiB;
    const idx_t n = 50000; // 28 MB
    EXPECT_EQ(plan(n).path, CallPlan::Path::OneTile);
    EXPECT_EQ(plan(n).streams, 7u);
}

TEST_F(CallPlans, on_streams_side_by_side_tiles_are_smaller_and_more) {
    pinned(1000);
    const auto whole = plan(10000);
    search_.asked.laneBytes = MiB;
    search_.asked.lanes = 8;
    const auto lanes = plan(10000);
    EXPECT_GT(lanes.tiles.tiles(), whole.tiles.tiles());
    EXPECT_EQ(lanes.tiles.depth, 9);
    // Into pageable memory large ones are better.
    pageable(1000);
    EXPECT_EQ(plan(10000).tiles.depth, 3);
}

TEST_F(CallPlans, few_queries_are_searched_in_slices_of_many_vectors) {
    onGpu();
    search_.asked.sliceableVectors = 100000;
    search_.asked.rowResults = 10;
    const auto found = plan(1);
    EXPECT_EQ(found.slices.count, 4);
    EXPECT_EQ(found.slices.vectors, 25000);
    EXPECT_EQ(found.streams, 4u);
    EXPECT_EQ(found.laneBytes, 25000u);
    EXPECT_EQ(found.foundBytes, 48u);
    EXPECT_NE(found.text().find("4 slices of the vectors"), std::string::npos);
    EXPECT_EQ(plan(513).slices.count, 1);
    config_.computeLanes = 1;
    EXPECT_EQ(plan(1).slices.count, 1);
}

TEST_F(CallPlans, slices_have_as_many_vectors_as_all_queries_have_results) {
    onGpu();
    const auto slices = [&](idx_t n, idx_t k, idx_t vectors) {
        search_.asked.rowResults = k;
        search_.asked.sliceableVectors = vectors;
        return plan(n).slices.count;
    };
    EXPECT_EQ(slices(1, 1, 49151), 1);
    EXPECT_EQ(slices(1, 1, 49152), 2);
    EXPECT_EQ(slices(500, 10, 49152), 2);
    EXPECT_EQ(slices(500, 100, 99999), 1);
    EXPECT_EQ(slices(500, 100, 100000), 2);
    config_.sliceVectors = 3;
    EXPECT_EQ(slices(1, 1, 6), 2);
    EXPECT_EQ(slices(5, 2, 20), 2);
    EXPECT_EQ(slices(5, 2, 19), 1);
}

TEST_F(CallPlans, slices_are_more_and_smaller_where_memory_is_short) {
    onGpu();
    search_.asked.sliceableVectors = 800000;
    search_.asked.rowResults = 1;
    temporary_ = 2 * 100000 + 2000;
    auto found = plan(1);
    EXPECT_EQ(found.slices.count, 8);
    EXPECT_EQ(found.streams, 2u);
    temporary_ = 2 * 50000 + 2000;
    found = plan(1);
    EXPECT_EQ(found.slices.count, 16);
    EXPECT_EQ(found.streams, 2u);
    temporary_ = 1000;
    EXPECT_EQ(plan(1).slices.count, 1);
}

TEST_F(CallPlans, slices_leave_room_for_what_merges_them) {
    onGpu();
    search_.asked.sliceableVectors = 100000;
    search_.asked.rowResults = 1;
    temporary_ = 2 * 25000 + 2000;
    EXPECT_EQ(plan(1).slices.count, 4);
    search_.mergeBytes = 10000;
    EXPECT_EQ(plan(1).slices.count, 1);
    temporary_ += 10000;
    EXPECT_EQ(plan(1).slices.count, 4);
}

TEST_F(CallPlans, slices_are_of_each_tile_where_a_call_has_several) {
    pageable(1000);
    config_.tileRows = 100;
    search_.asked.sliceableVectors = 1000000;
    search_.asked.rowResults = 1000;
    const auto found = plan(300);
    EXPECT_EQ(found.path, CallPlan::Path::Tiles);
    EXPECT_EQ(found.tiles.tiles(), 3);
    // By a tile's results, not by those of all rows.
    EXPECT_EQ(found.slices.count, 8);
    EXPECT_EQ(found.foundBytes, 100u * 8 * 12);
}

TEST_F(CallPlans, a_long_call_on_several_streams_keeps_near_to_the_gpu_too) {
    search_.asked.rowOperations = 2.0 * 128 * 1e6;
    search_.asked.laneBytes = MiB;
    search_.asked.lanes = 4;
    pinned(10);
    const auto found = plan(100000);
    EXPECT_EQ(found.streams, 4u);
    EXPECT_TRUE(found.paced);
    // A step of one stream is what Faiss computes at once.
    EXPECT_EQ(found.rowsAtOnce % 512, 0);
    EXPECT_NEAR(found.rowsAtOnce * found.rowSeconds, 0.075, 0.006);
    EXPECT_NE(found.text().find("computed on 4 streams"), std::string::npos);
}

TEST_F(CallPlans, results_that_kernels_store_are_said_to_be) {
    search_.asked.storesToPinned = true;
    pageable(1);
    EXPECT_EQ(
            plan(10).text(),
            "10 rows in one tile, stored by the kernels, computed on the "
            "default stream; one wait");
}

TEST_F(CallPlans, long_calls_that_wait_keep_near_to_the_gpu) {
    search_.asked.rowOperations = 2.0 * 128 * 1e6;
    pageable(10);
    EXPECT_FALSE(plan(10000).interruptible); // 0.1 s
    const auto found = plan(100000);
    EXPECT_TRUE(found.interruptible);
    EXPECT_TRUE(found.paced);
    // Half of 0.15 s, in whole steps of 1024.
    EXPECT_EQ(found.rowsAtOnce % 1024, 0);
    EXPECT_NEAR(found.rowsAtOnce * found.rowSeconds, 0.075, 0.012);
    EXPECT_NE(found.text().find("waits now and then"), std::string::npos);
    onGpu();
    EXPECT_TRUE(plan(100000).interruptible);
    EXPECT_FALSE(plan(100000).paced);
    EXPECT_EQ(plan(100000).rowsAtOnce, 100000);
}

TEST_F(CallPlans, the_calling_thread_copies_what_comes_back_last) {
    pageable(1000);
    auto found = plan(10000);
    EXPECT_EQ(found.firstCopiedByCaller, found.tiles.tiles() - 1);
    config_.oneTileBytes = 30 * MiB;
    found = plan(10000);
    EXPECT_LT(found.firstCopiedByCaller, found.tiles.tiles() - 1);
    EXPECT_GE(
            found.firstCopiedByCaller, found.tiles.tiles() - found.tiles.depth);
}

TEST_F(CallPlans, queries_and_results_share_pinned_memory_that_is_not_faiss) {
    pageable(1000);
    const auto rows = [&](size_t faissPinned) {
        faissPinned_ = faissPinned;
        return plan(100000).tiles.tileRows;
    };
    config_.tileBytes = GiB;
    // Half of 256 MiB for three tiles, or all of Faiss' for them.
    EXPECT_LE(rows(0) * 12000 * 3, 128 * MiB);
    EXPECT_GT(rows(0) * 12000 * 3, 64 * MiB);
    EXPECT_LE(rows(256 * MiB) * 12000 * 3, 256 * MiB);
    EXPECT_GT(rows(256 * MiB) * 12000 * 3, 128 * MiB);
}

TEST_F(CallPlans, other_attempts_compute_on_one_stream_then_fewer_rows) {
    pageable(1000);
    search_.asked.laneBytes = MiB;
    search_.asked.lanes = 8;
    CallLimits within = limits();
    const auto first = planCall({10000, in_, out_, search_}, within);
    EXPECT_GT(first.streams, 1u);
    EXPECT_FALSE(first.temporaryBlocks);
    ASSERT_TRUE(halve(within, first));
    auto next = planCall({10000, in_, out_, search_}, within);
    EXPECT_EQ(next.streams, 1u);
    EXPECT_TRUE(next.temporaryBlocks);
    EXPECT_EQ(next.tiles.depth, 1);
    EXPECT_LE(next.rowsAtOnce, first.rowsAtOnce);
    const auto half = next.rowsAtOnce / 2;
    ASSERT_TRUE(halve(within, next));
    next = planCall({10000, in_, out_, search_}, within);
    EXPECT_EQ(next.rowsAtOnce, half);
    EXPECT_NE(next.text().find("temporary memory"), std::string::npos);
    int attempts = 1;
    while (halve(within, next)) {
        next = planCall({10000, in_, out_, search_}, within);
        ++attempts;
    }
    EXPECT_EQ(next.rowsAtOnce, 1);
    EXPECT_LE(attempts, 16);
}

TEST_F(CallPlans, a_scarce_call_leaves_most_temporary_memory_to_faiss) {
    pageable(1000);
    scarce_ = true;
    temporary_ = 80 * MiB;
    const auto found = plan(100000);
    EXPECT_LE(found.tiles.tileRows * (512 + 12000), 20 * MiB);
    EXPECT_GT(found.tiles.tileRows, 1024);
    // What is not there is allocated, or makes another attempt.
    temporary_ = 0;
    EXPECT_EQ(plan(51200).tiles.tileRows, 512);
    mostRows_ = 3;
    EXPECT_EQ(plan(100000).tiles.tileRows, 3);
}

TEST_F(CallPlans, arrays_in_place_are_computed_in_parts_where_memory_is_short) {
    onGpu();
    scarce_ = true;
    mostRows_ = 100;
    const auto found = plan(1000);
    EXPECT_EQ(found.path, CallPlan::Path::InPlace);
    EXPECT_EQ(found.tiles.tiles(), 1);
    EXPECT_EQ(found.rowsAtOnce, 100);
    EXPECT_NE(found.text().find("100 rows at once"), std::string::npos);
}

} // namespace
