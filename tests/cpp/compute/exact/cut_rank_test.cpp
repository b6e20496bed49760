// Of how many vectors the exact search guesses its cuts.

#include <faiss_ext/gpu/compute/exact/CutRank.h>

#include <gtest/gtest.h>

#include <cmath>

namespace {

using faiss_ext::gpu::exact::cutRank;

TEST(ExactCutRank, all_of_them_prove_it) {
    for (int k : {1, 2, 10, 1000, 2048}) {
        EXPECT_EQ(cutRank(k, 5000, 5000), k);
        EXPECT_EQ(cutRank(k, 5000, 3000), k);
        EXPECT_GE(cutRank(k, 1, 1 << 30), 1);
        EXPECT_LE(cutRank(k, 2500, 5000), k);
    }
    EXPECT_EQ(cutRank(1, 16384, 1000000), 1);
}

TEST(ExactCutRank, hardly_ever_too_many_of_the_best_are_seen) {
    for (int k : {4, 10, 100, 1000, 2048}) {
        for (int64_t seen : {100, 4096, 16384, 125000, 500000}) {
            const int64_t total = 1000000;
            const int rank = cutRank(k, seen, total);
            if (rank == k) {
                continue;
            }
            // That so many are, or more: of a Poisson distribution.
            const double mean = double(k) * seen / total;
            double chance = 1;
            for (int i = 0; i < rank; ++i) {
                chance -= std::exp(
                        i * std::log(mean) - mean - std::lgamma(i + 1));
            }
            EXPECT_LT(chance, 2e-6) << "k " << k << ", seen " << seen;
            // And the list is as short as that allows, nearly.
            EXPECT_LT(rank, mean + 6 * std::sqrt(mean) + 5);
        }
    }
}

} // namespace
