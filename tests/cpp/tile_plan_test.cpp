// How calls are cut into tiles.

#include <faiss_ext/gpu/TilePlan.h>

#include <gtest/gtest.h>

namespace {

using faiss_ext::gpu::planTiles;
using faiss_ext::gpu::RowBytes;
using faiss_ext::gpu::StagedConfig;
using faiss_ext::gpu::TilePlan;

constexpr size_t kPlenty = size_t(1) << 30;

TEST(TilePlan, nothing_staged_is_one_tile) {
    const auto plan = planTiles(1 << 30, {}, {}, 0, 0);
    EXPECT_EQ(plan.tiles, 1);
    EXPECT_EQ(plan.tileRows, 1 << 30);
}

TEST(TilePlan, tiles_cover_every_row_once) {
    for (int64_t n : {1, 2, 9, 10, 11, 99, 100, 101, 1000}) {
        for (int64_t rows : {1, 3, 10, 99, 100}) {
            StagedConfig config;
            config.tileRows = rows;
            const auto plan =
                    planTiles(n, {4, 4, 12, 12}, config, kPlenty, kPlenty);
            int64_t next = 0;
            for (int64_t tile = 0; tile < plan.tiles; ++tile) {
                EXPECT_EQ(plan.firstRow(tile), next);
                EXPECT_GE(plan.rowsOf(tile, n), 1);
                EXPECT_LE(plan.rowsOf(tile, n), rows);
                next += plan.rowsOf(tile, n);
            }
            EXPECT_EQ(next, n);
            EXPECT_LE(plan.depth, plan.tiles);
        }
    }
}

TEST(TilePlan, a_search_within_one_tile_is_not_cut) {
    const auto plan =
            planTiles(1000, {512, 512, 1200, 1200}, {}, kPlenty, kPlenty);
    EXPECT_EQ(plan.tiles, 1);
    EXPECT_EQ(plan.depth, 1);
}

TEST(TilePlan, tiles_fit_the_pinned_memory_depth_times) {
    for (size_t pinned : {size_t(4096), size_t(100000), size_t(1) << 24}) {
        for (int depth : {2, 3, 5}) {
            StagedConfig config;
            config.pipelineDepth = depth;
            const auto plan = planTiles(
                    1 << 20, {64, 64, 120, 120}, config, pinned, pinned);
            EXPECT_LE(plan.tileRows * 120 * depth, pinned);
        }
    }
}

TEST(TilePlan, one_row_larger_than_everything_still_makes_a_plan) {
    const auto plan =
            planTiles(3, {1 << 20, 1 << 20, 1 << 20, 1 << 20}, {}, 4096, 4096);
    EXPECT_EQ(plan.tileRows, 1);
    EXPECT_EQ(plan.tiles, 3);
}

} // namespace
