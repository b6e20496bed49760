// How calls are cut into tiles.

#include <faiss_ext/gpu/call/TilePlan.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/Calls.h"

namespace {

using faiss_ext::gpu::PinnedBufferPool;
using faiss_ext::gpu::RowCosts;
using faiss_ext::gpu::TilePlan;
using test::TunedConfig;

TilePlan cut(
        int64_t n,
        const RowCosts& row,
        const TunedConfig& config,
        size_t poolBytes,
        size_t outBytes) {
    return faiss_ext::gpu::planTiles(
            n,
            row,
            config.complete().whole,
            config.tileRows,
            poolBytes,
            outBytes);
}

constexpr size_t kPlenty = size_t(1) << 30;

TEST(TilePlan, nothing_staged_is_one_tile) {
    const auto plan = cut(1 << 30, {}, {}, 0, 0);
    EXPECT_EQ(plan.tiles(), 1);
    EXPECT_EQ(plan.tileRows, 1 << 30);
}

TEST(TilePlan, tiles_cover_every_row_once) {
    for (int64_t n : {1, 2, 9, 10, 11, 99, 100, 101, 1000}) {
        for (int64_t rows : {1, 3, 10, 99, 100}) {
            TunedConfig config;
            config.tileRows = rows;
            const auto plan = cut(n, {4, 4, 12, 12}, config, kPlenty, kPlenty);
            int64_t next = 0;
            for (int64_t tile = 0; tile < plan.tiles(); ++tile) {
                EXPECT_EQ(plan.firstRow(tile), next);
                EXPECT_GE(plan.rowsOf(tile), 1);
                EXPECT_LE(plan.rowsOf(tile), rows);
                next += plan.rowsOf(tile);
            }
            EXPECT_EQ(next, n);
            EXPECT_LE(plan.depth, plan.tiles());
        }
    }
}

TEST(TilePlan, a_search_within_one_tile_is_not_cut) {
    const auto plan = cut(1000, {512, 512, 1200, 1200}, {}, kPlenty, kPlenty);
    EXPECT_EQ(plan.tiles(), 1);
    EXPECT_EQ(plan.depth, 1);
}

TEST(TilePlan, where_a_call_is_cut_and_how_large_tiles_are_are_two_settings) {
    TunedConfig config;
    config.oneTileBytes = 10000;
    config.tileBytes = 1000;
    EXPECT_EQ(cut(1000, {10, 0, 4, 0}, config, 0, 0).tiles(), 1);
    const auto plan = cut(1001, {4, 0, 10, 0}, config, 0, 0);
    EXPECT_EQ(plan.tiles(), 11);
    EXPECT_EQ(plan.tileRows, 91);
    config.tileRows = 2000;
    EXPECT_EQ(cut(2000, {10, 0, 4, 0}, config, 0, 0).tiles(), 1);
}

std::vector<int64_t> rowsOf(const TilePlan& plan) {
    std::vector<int64_t> rows;
    for (int64_t tile = 0; tile < plan.tiles(); ++tile) {
        rows.push_back(plan.rowsOf(tile));
    }
    return rows;
}

TEST(TilePlan, tiles_grow_and_shrink_in_steps_that_faiss_computes_at_once) {
    TunedConfig config;
    config.oneTileBytes = 1 << 20;
    config.tileBytes = 48 << 20;
    const auto tiles = [&](int64_t n, size_t in, size_t out) {
        return rowsOf(cut(n, {in, in, out, out}, config, kPlenty, kPlenty));
    };
    using Rows = std::vector<int64_t>;
    // 1000 neighbours: up to 4194 rows; 2048 queries are 1 MiB.
    EXPECT_EQ(
            tiles(10000, 512, 12000), (Rows{2048, 4096, 2048, 1024, 512, 272}));
    EXPECT_EQ(
            tiles(20000, 512, 12000),
            (Rows{2048, 4096, 4096, 4096, 3072, 1536, 1024, 32}));
    // 100 neighbours: 512 rows would be less than 1 MiB.
    EXPECT_EQ(tiles(10000, 512, 1200), (Rows{2048, 4096, 2048, 1024, 784}));
    // Nothing to hide at one end.
    EXPECT_EQ(tiles(10000, 0, 1200), (Rows{5120, 2560, 1536, 784}));
    EXPECT_EQ(tiles(10000, 512, 0), (Rows{2048, 4096, 3856}));
    // Too few for two ramps.
    EXPECT_EQ(tiles(1500, 512, 12000), (Rows{1024, 476}));
    // Rows of which not 512 fit.
    config.tileBytes = 16 << 20;
    EXPECT_EQ(tiles(700, 512, 120000), (Rows{117, 117, 117, 117, 117, 115}));
}

TEST(TilePlan, the_tiles_at_the_ends_have_as_few_bytes_as_asked_for) {
    TunedConfig config;
    config.oneTileBytes = 512 << 10;
    config.tileBytes = 8 << 20;
    const auto tiles = [&](size_t endBytes, size_t in, size_t out) {
        config.endTileBytes = endBytes;
        return rowsOf(cut(10000, {in, in, out, out}, config, kPlenty, kPlenty));
    };
    using Rows = std::vector<int64_t>;
    EXPECT_EQ(tiles(64 << 10, 0, 120), (Rows{5120, 2560, 1536, 784}));
    EXPECT_EQ(tiles(256 << 10, 0, 120), (Rows{5120, 4096, 784}));
    EXPECT_EQ(tiles(256 << 10, 512, 0), (Rows{512, 1024, 2048, 4096, 2320}));
    EXPECT_EQ(tiles(0, 512, 0), (Rows{2048, 4096, 3856}));
}

TEST(TilePlan, copies_that_are_short_beside_the_computation_are_not_hidden) {
    TunedConfig config;
    config.oneTileBytes = 2 << 20;
    config.tileBytes = 32 << 20;
    const auto tiles = [&](int64_t n, double operations) {
        return cut(n,
                   {512, 512, 1200, 1200, operations},
                   config,
                   kPlenty,
                   kPlenty)
                .tiles();
    };
    const double tenThousand = 2e4 * 128, million = 2e6 * 128;
    EXPECT_GT(tiles(10000, tenThousand), 1);
    EXPECT_EQ(tiles(10000, million), 1);
    EXPECT_GT(tiles(100000, million), 1); // 120 MB
    EXPECT_GT(tiles(10000, 0), 1);        // not known
}

TEST(TilePlan, few_rows_are_not_cut) {
    EXPECT_EQ(cut(1000, {4, 4, 24000, 24000}, {}, kPlenty, kPlenty).tiles(), 1);
    EXPECT_GT(cut(1025, {4, 4, 24000, 24000}, {}, kPlenty, kPlenty).tiles(), 1);
}

TEST(TilePlan, tiles_that_are_asked_for_are_equal) {
    TunedConfig config;
    config.tileRows = 1250;
    const auto plan =
            cut(10000, {512, 512, 12000, 12000}, config, kPlenty, kPlenty);
    EXPECT_EQ(rowsOf(plan), std::vector<int64_t>(8, 1250));
}

TEST(TilePlan, rows_that_are_computed_side_by_side_stay_together) {
    TunedConfig config;
    config.oneTileBytes = 2 << 20;
    config.tileBytes = 32 << 20;
    const auto tiles = [&](int64_t n, size_t rowBytes, int64_t step) {
        return rowsOf(
                cut(n,
                    {0, 0, rowBytes, rowBytes, 0, step},
                    config,
                    kPlenty,
                    kPlenty));
    };
    using Rows = std::vector<int64_t>;
    EXPECT_EQ(
            tiles(10000, 12000, 512), (Rows{2560, 2560, 2560, 1536, 512, 272}));
    EXPECT_EQ(
            tiles(10000, 12000, 1024),
            (Rows{2048, 2048, 2048, 2048, 1024, 784}));
    // Of which so many do not fit: as few as can be computed at once.
    EXPECT_EQ(tiles(1500, 50000, 1024), (Rows{512, 512, 476}));
}

TEST(TilePlan, what_comes_back_last_is_small_beside_what_hides_the_copies) {
    // 10,000 queries of k 100 on lanes, which end their parts in no order.
    TunedConfig config;
    config.oneTileBytes = 512 << 10;
    config.tileBytes = 8 << 20;
    config.endTileBytes = 64 << 10;
    for (int64_t n = 2000; n < 100000; n += 777) {
        const auto rows =
                rowsOf(cut(n, {0, 0, 1200, 1200}, config, kPlenty, kPlenty));
        int64_t after = 0;
        for (auto tile = rows.rbegin(); tile != rows.rend(); ++tile) {
            EXPECT_LE(*tile, after + 1024) << n << " rows";
            after += *tile;
        }
        EXPECT_LE(rows.back(), 512) << n << " rows";
    }
}

TEST(TilePlan, ramps_cover_every_row_once_within_their_bounds) {
    for (int64_t n = 513; n < 400000; n += n / 7 + 1) {
        for (size_t out : {12, 120, 1200, 12000}) {
            for (size_t tileBytes : {1 << 20, 7 << 20, 48 << 20}) {
                TunedConfig config;
                config.oneTileBytes = 1;
                config.tileBytes = tileBytes;
                const auto plan =
                        cut(n, {64, 64, out, out}, config, kPlenty, kPlenty);
                int64_t next = 0;
                for (int64_t rows : rowsOf(plan)) {
                    EXPECT_GE(rows, 1);
                    EXPECT_LE(rows, plan.tileRows);
                    next += rows;
                }
                EXPECT_EQ(next, n);
                EXPECT_LE(plan.tileRows * std::max<size_t>(64, out), tileBytes)
                        << n << " rows of " << out << " bytes";
            }
        }
    }
}

TEST(TilePlan, tiles_fit_the_pinned_memory_depth_times) {
    for (size_t pinned : {size_t(4096), size_t(100000), size_t(1) << 24}) {
        for (int depth : {2, 3, 5}) {
            TunedConfig config;
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
                TunedConfig config;
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
    EXPECT_EQ(plan.tiles(), 1);
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
    EXPECT_EQ(plan.tiles(), 3);
}

} // namespace
