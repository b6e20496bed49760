// Into which tiles and chunks an exact search is cut, within the memory that
// there is.

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/ArrayPlaces.h>
#include <faiss_ext/gpu/compute/ExactPlan.h>
#include <faiss_ext/gpu/compute/exact/CutRank.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace faiss_ext::gpu;

constexpr size_t kPlenty = size_t(1) << 40;
constexpr ExactSizes kUsual{0, 0, tuning::kExactScores, 0, 0, 0, {}};

ExactShape shapeOf(idx_t n, idx_t vectors, int d, int k, bool fused = false) {
    return {n, vectors, d, k, false, true, fused};
}

/// Of a plan, of the last path's chunks.
idx_t chunkVectors(const ExactPlan& plan) {
    return plan.chunks.front().count;
}

/// The bytes from each part's place to the next one's.
std::vector<size_t> partsOf(const ExactPlan& plan) {
    const auto& at = plan.at;
    const std::vector<size_t> places{
            at.copies,
            at.terms,
            at.cut,
            at.leastCut,
            at.best,
            at.survivors,
            at.counts,
            at.paths,
            at.last,
            at.lastCount,
            at.againCount,
            at.widenedCount,
            at.vectorCopies,
            at.scores,
            plan.bytes};
    std::vector<size_t> parts;
    for (size_t i = 1; i < places.size(); ++i) {
        parts.push_back(places[i] - places[i - 1]);
    }
    return parts;
}

/// Whether rows are the vectors of a store, each once. Of progressions whose
/// steps are products of few numbers, so that the least common multiple of the
/// steps is small: what is there of one such period is there of all, but for
/// the ends of parts, whose counts add up.
void expectAllOnce(const std::vector<exact::VectorRows>& all, idx_t vectors) {
    idx_t covered = 0;
    for (const auto& rows : all) {
        ASSERT_GE(rows.count, 1);
        ASSERT_GE(rows.first, 0);
        ASSERT_LT(rows.first + (rows.count - 1) * rows.step, vectors);
        covered += rows.count;
    }
    EXPECT_EQ(covered, vectors);
    constexpr idx_t kLooked = 200000;
    if (vectors <= kLooked) {
        std::vector<char> seen(vectors);
        for (const auto& rows : all) {
            for (idx_t i = 0; i < rows.count; ++i) {
                char& place = seen[rows.first + i * rows.step];
                ASSERT_EQ(place, 0);
                place = 1;
            }
        }
    }
}

idx_t mostOf(const std::vector<exact::VectorRows>& all) {
    idx_t most = 0;
    for (const auto& rows : all) {
        most = std::max(most, rows.count);
    }
    return most;
}

/// What must hold for every plan.
void expectSound(const ExactShape& shape, const ExactPlan& plan) {
    EXPECT_GE(plan.queries, 1);
    EXPECT_LE(plan.queries, shape.n);
    EXPECT_GE(plan.survivors, shape.k);
    EXPECT_EQ(plan.ld % 8, 0);
    expectAllOnce(plan.chunks, shape.vectors);
    EXPECT_LE(mostOf(plan.chunks), plan.ld);
    const bool copies = !plan.scanAll && !shape.ownCopies;
    idx_t copied = 0;
    if (plan.scanAll) {
        EXPECT_TRUE(plan.stages.empty());
        EXPECT_TRUE(plan.again.empty());
        EXPECT_FALSE(plan.wholeCopies);
    } else {
        std::vector<exact::VectorRows> filtered;
        for (const ExactStage& stage : plan.stages) {
            EXPECT_GE(stage.rank, 1);
            EXPECT_LE(stage.rank, shape.k);
            filtered.insert(
                    filtered.end(), stage.rows.begin(), stage.rows.end());
        }
        expectAllOnce(filtered, shape.vectors);
        EXPECT_EQ(plan.stages.back().rank, shape.k);
        EXPECT_GE(plan.sampleRank, 1);
        EXPECT_LE(plan.sampleRank, std::min<idx_t>(shape.k, plan.sample.count));
        EXPECT_LE(plan.sample.count, plan.ld);
        EXPECT_EQ(plan.sample.first, 0);
        // From all over the store.
        EXPECT_LT((plan.sample.count - 1) * plan.sample.step, shape.vectors);
        EXPECT_GE(plan.sample.count * plan.sample.step, shape.vectors);
        if (shape.fused) {
            expectAllOnce(plan.again, shape.vectors);
        } else {
            // Nothing is filtered again, so no cut is a guess.
            EXPECT_TRUE(plan.again.empty());
            EXPECT_EQ(plan.sampleRank, shape.k);
            for (const ExactStage& stage : plan.stages) {
                EXPECT_EQ(stage.rank, shape.k);
            }
            EXPECT_FALSE(plan.wholeCopies);
        }
        copied = !copies            ? 0
                 : plan.wholeCopies ? shape.vectors
                                    : std::max(
                                              {mostOf(filtered),
                                               mostOf(plan.again),
                                               plan.sample.count});
    }
    const size_t n = plan.queries;
    const size_t width = exact::copyWidth(shape.d);
    const auto parts = partsOf(plan);
    const std::vector<size_t> needed{
            n * width * 2,
            n * sizeof(exact::QueryTerms),
            n * 4,
            n * 4,
            n * shape.k * 8,
            plan.scanAll ? 0 : n * plan.survivors * 4,
            n * 4,
            n * 4,
            n * 4,
            4,
            4,
            4,
            copied * width * 2,
            n * plan.ld * 4};
    for (size_t i = 0; i < needed.size(); ++i) {
        EXPECT_GE(parts[i], needed[i]) << "part " << i;
        // (Copies: where stages are small, there is room for more.)
        if (i != 12 || copied == 0) {
            EXPECT_LT(parts[i], needed[i] + ArrayPlaces::kAlignment)
                    << "part " << i;
        }
        EXPECT_EQ(parts[i] % ArrayPlaces::kAlignment, 0u) << "part " << i;
    }
}

TEST(ExactPlan, is_sound_for_every_shape_and_memory) {
    for (idx_t n : {1, 3, 500, 4097, 100000}) {
        for (idx_t vectors : {1, 100, 128, 129, 1000, 70000, 3000001}) {
            for (int d : {1, 8, 129, 1024}) {
                for (int k : {1, 100, 2048}) {
                    for (size_t bytes :
                         {size_t(0),
                          size_t(1) << 16,
                          size_t(1) << 22,
                          size_t(1) << 28,
                          kPlenty}) {
                        for (int kind = 0; kind < 4; ++kind) {
                            ExactShape shape =
                                    shapeOf(n, vectors, d, k, kind >= 2);
                            shape.ownCopies = kind % 2 != 0;
                            const auto plan = planExact(shape, kUsual, bytes);
                            SCOPED_TRACE(
                                    std::to_string(n) + " " +
                                    std::to_string(vectors) + " " +
                                    std::to_string(d) + " " +
                                    std::to_string(k) + " " +
                                    std::to_string(bytes) + " " +
                                    std::to_string(kind));
                            expectSound(shape, plan);
                            if (testing::Test::HasFailure()) {
                                return;
                            }
                        }
                    }
                }
            }
        }
    }
}

TEST(ExactPlan, many_queries_among_many_vectors_take_the_usual_sizes) {
    const auto plan =
            planExact(shapeOf(10000, 1000000, 128, 100), kUsual, kPlenty);
    EXPECT_FALSE(plan.scanAll);
    EXPECT_EQ(plan.queries, 4096);
    // Chunks of 65536 or fewer, as large as each other; 16 would be enough.
    EXPECT_EQ(plan.chunks.size(), 17u);
    EXPECT_EQ(chunkVectors(plan), 58824);
    EXPECT_EQ(plan.survivors, 1024);
    // Of the 1.5 GiB that Faiss sets aside on a large GPU.
    EXPECT_LT(plan.bytes, size_t(1200) << 20);
}

TEST(ExactPlan, fused_filters_see_three_times_as_many_vectors_each_time) {
    const auto plan =
            planExact(shapeOf(10000, 1000000, 128, 100, true), kUsual, kPlenty);
    EXPECT_EQ(plan.queries, 10000);
    EXPECT_TRUE(plan.wholeCopies);
    // One in 241, a prime number; one in 244 would be 4096.
    EXPECT_EQ(plan.sample.step, 241);
    EXPECT_EQ(plan.sample.count, 4150);
    EXPECT_EQ(plan.sampleRank, exact::cutRank(100, 4150, 1000000));
    ASSERT_EQ(plan.stages.size(), 4u);
    idx_t seen = 0;
    for (const ExactStage& stage : plan.stages) {
        const idx_t former = seen;
        for (const auto& rows : stage.rows) {
            seen += rows.count;
        }
        if (former > 0) {
            EXPECT_NEAR(seen, 3 * former, 3);
            EXPECT_EQ(stage.rows.size(), 2u);
        }
        EXPECT_EQ(stage.rank, exact::cutRank(100, seen, 1000000));
    }
    // Of a thousand neighbours the cut passes some thousand, so few stages do.
    EXPECT_EQ(
            planExact(shapeOf(10000, 1000000, 128, 1, true), kUsual, kPlenty)
                    .stages.size(),
            2u);
    EXPECT_EQ(plan.again.size(), 1u);
}

TEST(ExactPlan, fewer_copies_exist_at_once_where_memory_is_short) {
    const ExactShape shape = shapeOf(1000, 1000000, 128, 10, true);
    const auto plenty = planExact(shape, kUsual, kPlenty);
    EXPECT_TRUE(plenty.wholeCopies);
    const auto less = planExact(shape, kUsual, plenty.bytes / 4);
    EXPECT_FALSE(less.wholeCopies);
    EXPECT_LE(less.bytes, plenty.bytes / 4);
    EXPECT_EQ(less.queries, 1000);
    EXPECT_GT(less.again.size(), 1u);
}

TEST(ExactPlan, few_vectors_are_filtered_by_a_guess_from_one_in_sixteen) {
    const auto plan =
            planExact(shapeOf(10000, 10000, 128, 100, true), kUsual, kPlenty);
    EXPECT_EQ(plan.stages.size(), 2u);
    EXPECT_NEAR(plan.sample.count, 10000 / 13, 1);
    EXPECT_LT(plan.sampleRank, 100);
}

TEST(ExactPlan, vectors_by_turns_of_some_kinds_are_in_all_chunks) {
    for (idx_t vectors : {1000000, 3000000, 700000, 131073}) {
        for (size_t bytes : {kPlenty, size_t(1) << 24}) {
            const auto plan =
                    planExact(shapeOf(100, vectors, 8, 10), kUsual, bytes);
            const idx_t step = plan.chunks.front().step;
            for (idx_t kinds = 2; kinds < step; ++kinds) {
                EXPECT_NE(step % kinds, 0) << step;
            }
        }
    }
}

TEST(ExactPlan, few_vectors_are_one_chunk) {
    const auto plan = planExact(shapeOf(50, 1000, 16, 5), kUsual, kPlenty);
    EXPECT_EQ(plan.chunks.size(), 1u);
    EXPECT_EQ(chunkVectors(plan), 1000);
    EXPECT_EQ(plan.survivors, 1000);
}

TEST(ExactPlan, lists_have_room_for_eight_times_as_many_as_are_wanted) {
    for (const auto& [k, survivors] : std::vector<std::pair<int, int>>{
                 {1, 1024}, {128, 1024}, {129, 2048}, {2048, 16384}}) {
        EXPECT_EQ(
                planExact(shapeOf(10, 1000000, 8, k), kUsual, kPlenty)
                        .survivors,
                survivors);
    }
}

TEST(ExactPlan, where_many_neighbours_are_wanted_all_vectors_are_compared) {
    EXPECT_FALSE(planExact(shapeOf(1, 160, 4, 10), kUsual, kPlenty).scanAll);
    EXPECT_TRUE(planExact(shapeOf(1, 159, 4, 10), kUsual, kPlenty).scanAll);
    EXPECT_TRUE(planExact(shapeOf(1, 10, 4, 20), kUsual, kPlenty).scanAll);
}

TEST(ExactPlan, scores_without_a_bound_are_not_made) {
    ExactShape shape = shapeOf(10, 100000, 8, 1);
    shape.bounded = false;
    const auto plan = planExact(shape, kUsual, kPlenty);
    EXPECT_TRUE(plan.scanAll);
    EXPECT_EQ(plan.at.vectorCopies, plan.at.scores);
}

TEST(ExactPlan, short_memory_first_makes_chunks_smaller_then_tiles) {
    const ExactShape shape = shapeOf(10000, 1000000, 128, 100);
    ExactPlan last = planExact(shape, kUsual, kPlenty);
    bool tilesShrank = false;
    while (true) {
        const ExactPlan next = planExact(shape, kUsual, last.bytes - 1);
        if (next.bytes >= last.bytes) {
            break;
        }
        if (next.queries < last.queries &&
            next.queries >= tuning::kExactGoodQueries) {
            EXPECT_LT(chunkVectors(next), 2 * tuning::kExactGoodVectors);
            tilesShrank = true;
        }
        if (chunkVectors(next) < tuning::kExactGoodVectors) {
            EXPECT_EQ(
                    next.queries == tuning::kExactGoodQueries ||
                            chunkVectors(next) < shape.k + 5,
                    true);
        }
        last = next;
    }
    EXPECT_TRUE(tilesShrank);
    EXPECT_EQ(last.queries, 1);
    EXPECT_NEAR(chunkVectors(last), shape.k, 5);
}

TEST(ExactPlan, is_within_the_memory_that_there_is) {
    const ExactShape shape = shapeOf(10000, 1000000, 128, 100);
    for (size_t bytes = size_t(1) << 30; bytes >= size_t(1) << 18;
         bytes = bytes * 3 / 4) {
        EXPECT_LE(planExact(shape, kUsual, bytes).bytes, bytes);
    }
}

TEST(ExactPlan, the_least_chunk_has_as_many_vectors_as_are_wanted) {
    const auto plan = planExact(shapeOf(1, 1000000, 4, 2000), kUsual, 0);
    EXPECT_FALSE(plan.scanAll);
    EXPECT_NEAR(chunkVectors(plan), 2000, 10);
    EXPECT_GE(chunkVectors(plan), 2000);
}

TEST(ExactPlan, counts_beyond_32_bits) {
    const idx_t many = (idx_t(1) << 32) - 1;
    for (bool fused : {false, true}) {
        for (size_t bytes : {kPlenty, size_t(0)}) {
            expectSound(
                    shapeOf(1, many, 1, 1, fused),
                    planExact(shapeOf(1, many, 1, 1, fused), kUsual, bytes));
        }
    }
}

} // namespace
