// Into which tiles and chunks an exact search is cut, within the memory that
// there is.

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/ArrayPlaces.h>
#include <faiss_ext/gpu/compute/ExactPlan.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace {

using namespace faiss_ext::gpu;

constexpr size_t kPlenty = size_t(1) << 40;
constexpr ExactSizes kUsual{
        tuning::kExactQueries, tuning::kExactVectors, tuning::kExactScores, 0};

ExactShape shapeOf(idx_t n, idx_t vectors, int d, int k) {
    return {n, vectors, d, k, false, true};
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
            at.vectorCopies,
            at.scores,
            plan.bytes};
    std::vector<size_t> parts;
    for (size_t i = 1; i < places.size(); ++i) {
        parts.push_back(places[i] - places[i - 1]);
    }
    return parts;
}

/// What must hold for every plan.
void expectSound(const ExactShape& shape, const ExactPlan& plan) {
    EXPECT_GE(plan.queries, 1);
    EXPECT_LE(plan.queries, shape.n);
    EXPECT_GE(plan.vectors, 1);
    EXPECT_LE(plan.vectors, shape.vectors);
    EXPECT_GE(plan.survivors, shape.k);
    // The chunks are all vectors, each once, and each from all over the store.
    idx_t covered = 0;
    for (idx_t i = 0; i < plan.chunks; ++i) {
        const auto chunk = plan.chunk(i);
        EXPECT_EQ(chunk.first, i);
        EXPECT_EQ(chunk.step, plan.chunks);
        EXPECT_GE(chunk.count, plan.scanAll ? 1 : shape.k);
        EXPECT_LE(chunk.count, plan.vectors);
        const idx_t last = chunk.first + (chunk.count - 1) * chunk.step;
        EXPECT_LT(last, shape.vectors);
        EXPECT_GE(last + chunk.step, shape.vectors);
        covered += chunk.count;
    }
    EXPECT_EQ(covered, shape.vectors);
    EXPECT_GE(plan.ld(), plan.vectors);
    EXPECT_EQ(plan.ld() % 8, 0);
    const size_t n = plan.queries;
    const size_t width = exact::copyWidth(shape.d);
    const auto parts = partsOf(plan);
    const bool copies = !plan.scanAll && !shape.ownCopies;
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
            copies ? plan.vectors * width * 2 : 0,
            n * plan.ld() * 4};
    for (size_t i = 0; i < needed.size(); ++i) {
        EXPECT_GE(parts[i], needed[i]) << "part " << i;
        EXPECT_LT(parts[i], needed[i] + ArrayPlaces::kAlignment)
                << "part " << i;
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
                        for (bool own : {false, true}) {
                            ExactShape shape = shapeOf(n, vectors, d, k);
                            shape.ownCopies = own;
                            const auto plan = planExact(shape, kUsual, bytes);
                            SCOPED_TRACE(
                                    std::to_string(n) + " " +
                                    std::to_string(vectors) + " " +
                                    std::to_string(d) + " " +
                                    std::to_string(k) + " " +
                                    std::to_string(bytes));
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
    EXPECT_EQ(plan.chunks, 17);
    EXPECT_EQ(plan.vectors, 58824);
    EXPECT_EQ(plan.survivors, 1024);
    // Of the 1.5 GiB that Faiss sets aside on a large GPU.
    EXPECT_LT(plan.bytes, size_t(1200) << 20);
}

TEST(ExactPlan, vectors_by_turns_of_some_kinds_are_in_all_chunks) {
    for (idx_t vectors : {1000000, 3000000, 700000, 131073}) {
        for (size_t bytes : {kPlenty, size_t(1) << 24}) {
            const auto plan =
                    planExact(shapeOf(100, vectors, 8, 10), kUsual, bytes);
            for (idx_t kinds = 2; kinds < plan.chunks; ++kinds) {
                EXPECT_NE(plan.chunks % kinds, 0) << plan.chunks;
            }
        }
    }
}

TEST(ExactPlan, few_vectors_are_one_chunk) {
    const auto plan = planExact(shapeOf(50, 1000, 16, 5), kUsual, kPlenty);
    EXPECT_EQ(plan.chunks, 1);
    EXPECT_EQ(plan.vectors, 1000);
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
            EXPECT_LT(next.vectors, 2 * tuning::kExactGoodVectors);
            tilesShrank = true;
        }
        if (next.vectors < tuning::kExactGoodVectors) {
            EXPECT_EQ(
                    next.queries == tuning::kExactGoodQueries ||
                            next.vectors < shape.k + 5,
                    true);
        }
        last = next;
    }
    EXPECT_TRUE(tilesShrank);
    EXPECT_EQ(last.queries, 1);
    EXPECT_NEAR(last.vectors, shape.k, 5);
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
    EXPECT_NEAR(plan.vectors, 2000, 10);
    EXPECT_GE(plan.vectors, 2000);
}

TEST(ExactPlan, counts_beyond_32_bits) {
    const idx_t many = (idx_t(1) << 32) - 1;
    const auto plan = planExact(shapeOf(1, many, 1, 1), kUsual, kPlenty);
    idx_t last = 0;
    for (idx_t i : {idx_t(0), plan.chunks - 1}) {
        const auto chunk = plan.chunk(i);
        last = std::max(last, chunk.first + (chunk.count - 1) * chunk.step);
    }
    EXPECT_LT(last, many);
    EXPECT_GE(last, many - plan.chunks);
}

} // namespace
