// How calls are cut into tiles.

#include <faiss_ext/gpu/PinnedBufferPool.h>
#include <faiss_ext/gpu/TilePlan.h>
#include <faiss_ext/gpu/Tuning.h>

#include <gtest/gtest.h>

namespace {

using faiss_ext::gpu::PinnedBufferPool;
using faiss_ext::gpu::RowBytes;
using faiss_ext::gpu::StagedConfig;
using faiss_ext::gpu::TilePlan;

TilePlan cut(
        int64_t n,
        const RowBytes& row,
        const StagedConfig& config,
        size_t poolBytes,
        size_t outBytes) {
    return faiss_ext::gpu::planTiles(
            n, row, withDefaults(config), poolBytes, outBytes);
}

constexpr size_t kPlenty = size_t(1) << 30;

TEST(TilePlan, nothing_staged_is_one_tile) {
    const auto plan = cut(1 << 30, {}, {}, 0, 0);
    EXPECT_EQ(plan.tiles, 1);
    EXPECT_EQ(plan.tileRows, 1 << 30);
}

TEST(TilePlan, tiles_cover_every_row_once) {
    for (int64_t n : {1, 2, 9, 10, 11, 99, 100, 101, 1000}) {
        for (int64_t rows : {1, 3, 10, 99, 100}) {
            StagedConfig config;
            config.tileRows = rows;
            const auto plan = cut(n, {4, 4, 12, 12}, config, kPlenty, kPlenty);
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
    const auto plan = cut(1000, {512, 512, 1200, 1200}, {}, kPlenty, kPlenty);
    EXPECT_EQ(plan.tiles, 1);
    EXPECT_EQ(plan.depth, 1);
}

TEST(TilePlan, where_a_call_is_cut_and_how_large_tiles_are_are_two_settings) {
    StagedConfig config;
    config.oneTileBytes = 10000;
    config.tileBytes = 1000;
    EXPECT_EQ(cut(1000, {10, 0, 4, 0}, config, 0, 0).tiles, 1);
    const auto plan = cut(1001, {4, 0, 10, 0}, config, 0, 0);
    EXPECT_EQ(plan.tiles, 11);
    EXPECT_EQ(plan.tileRows, 91);
    config.tileRows = 2000;
    EXPECT_EQ(cut(2000, {10, 0, 4, 0}, config, 0, 0).tiles, 1);
}

TEST(TilePlan, tiles_end_where_faiss_begins_to_compute_anew) {
    // 1000 neighbours: 1398 rows in 16 MiB.
    auto plan = cut(10000, {512, 512, 12000, 12000}, {}, kPlenty, kPlenty);
    EXPECT_EQ(plan.tileRows, 1024);
    EXPECT_EQ(plan.tiles, 10);
    // 100 neighbours: 13981 rows.
    plan = cut(30000, {512, 512, 1200, 1200}, {}, kPlenty, kPlenty);
    EXPECT_EQ(plan.tileRows, 10 * 1024);
    EXPECT_EQ(plan.tiles, 3);
    // 2000 neighbours: 699 rows.
    plan = cut(2000, {512, 512, 24000, 24000}, {}, kPlenty, kPlenty);
    EXPECT_EQ(plan.tileRows, 512);
    // Less than what Faiss computes at a time: equal tiles.
    plan = cut(700, {512, 512, 120000, 120000}, {}, kPlenty, kPlenty);
    EXPECT_EQ(plan.tileRows, 117); // 139 rows would fit
    // Asked for.
    StagedConfig config;
    config.tileRows = 1250;
    plan = cut(10000, {512, 512, 12000, 12000}, config, kPlenty, kPlenty);
    EXPECT_EQ(plan.tileRows, 1250);
}

TEST(TilePlan, tiles_fit_the_pinned_memory_depth_times) {
    for (size_t pinned : {size_t(4096), size_t(100000), size_t(1) << 24}) {
        for (int depth : {2, 3, 5}) {
            StagedConfig config;
            config.pipelineDepth = depth;
            const auto plan =
                    cut(1 << 20, {64, 64, 120, 120}, config, pinned, pinned);
            EXPECT_LE(plan.tileRows * 120 * plan.depth, pinned);
        }
    }
}

TEST(TilePlan, buffers_as_the_pool_makes_them_fit_depth_times) {
    for (size_t pinned = 4096; pinned <= 200000; pinned += 3000) {
        for (int64_t n : {1, 30, 100, 5000}) {
            for (int depth : {0, 2, 5}) {
                StagedConfig config;
                config.pipelineDepth = depth;
                const auto plan =
                        cut(n, {64, 64, 36, 36}, config, pinned, pinned);
                EXPECT_LE(
                        plan.depth * PinnedBufferPool::bucketSize(
                                             plan.tileRows * 64),
                        pinned)
                        << n << " rows";
            }
        }
    }
}

TEST(TilePlan, one_tile_needs_room_for_itself_alone) {
    // One page each way: three tiles of a few hundred bytes would need three.
    const auto plan = cut(100, {32, 32, 36, 36}, {}, 4096, 4096);
    EXPECT_EQ(plan.tiles, 1);
}

TEST(TilePlan, tiles_follow_each_other_where_two_do_not_fit) {
    const auto plan = cut(1000, {32, 32, 36, 36}, {}, 8191, 4096);
    EXPECT_EQ(plan.depth, 1);
    EXPECT_EQ(plan.tileRows, 112); // nine tiles: 113 rows of 36 bytes fit
}

TEST(TilePlan, one_row_larger_than_everything_still_makes_a_plan) {
    const auto plan =
            cut(3, {1 << 20, 1 << 20, 1 << 20, 1 << 20}, {}, 4096, 4096);
    EXPECT_EQ(plan.tileRows, 1);
    EXPECT_EQ(plan.tiles, 3);
}

} // namespace
