// Results of search and assign equal exact search on the CPU.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/GpuTest.h"
#include "support/Neighbours.h"

namespace {

using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::GpuIndexFlatIP;
using faiss_ext::gpu::GpuIndexFlatL2;
using namespace test;

class SearchTest : public GpuTest {
   protected:
    static faiss::gpu::GpuIndexFlatConfig storage(bool float16) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.useFloat16 = float16;
        return config;
    }

    static TunedConfig tilesOf(int64_t rows) {
        TunedConfig config;
        config.tileRows = rows;
        return config;
    }

    static Neighbours search(
            const faiss::Index& index,
            const std::vector<float>& queries,
            int k) {
        const size_t n = queries.size() / index.d;
        Neighbours found{
                std::vector<float>(n * k, -12345),
                std::vector<int64_t>(n * k, -12345)};
        index.search(
                n,
                queries.data(),
                k,
                found.distances.data(),
                found.labels.data());
        return found;
    }
};

TEST_F(SearchTest, both_metrics_both_storages_one_tile_and_many) {
    const int d = 24, k = 7;
    const auto base = randomVectors(500, d, 1);
    const auto queries = randomVectors(97, d, 2);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        const auto oracle = searchOnCpu(base, queries, d, k, metric);
        for (bool float16 : {false, true}) {
            for (int64_t tile : {0, 1, 10, 32, 96, 97, 1000}) {
                SCOPED_TRACE(
                        "metric " + std::to_string(metric) + ", float16 " +
                        std::to_string(float16) + ", tile " +
                        std::to_string(tile));
                GpuIndexFlat index(
                        &resources(),
                        d,
                        metric,
                        storage(float16),
                        tilesOf(tile));
                index.add(500, base.data());
                expectNeighbours(
                        search(index, queries, k),
                        oracle,
                        base,
                        queries,
                        d,
                        k,
                        metric);
            }
        }
    }
}

TEST_F(SearchTest, every_metric_of_the_flat_index) {
    const int d = 8, k = 5;
    auto base = randomVectors(60, d, 3);
    auto queries = randomVectors(30, d, 4);
    // Jensen-Shannon wants distributions; positive components suit all.
    for (auto* vectors : {&base, &queries}) {
        for (float& value : *vectors) {
            value = std::abs(value) + 1;
        }
    }
    for (auto metric :
         {faiss::METRIC_L1,
          faiss::METRIC_Linf,
          faiss::METRIC_Lp,
          faiss::METRIC_Canberra,
          faiss::METRIC_BrayCurtis,
          faiss::METRIC_JensenShannon}) {
        SCOPED_TRACE("metric " + std::to_string(metric));
        GpuIndexFlat index(&resources(), d, metric, storage(false), tilesOf(8));
        index.metric_arg = 3;
        index.add(60, base.data());
        const auto oracle = searchOnCpu(base, queries, d, k, metric, 3);
        const auto found = search(index, queries, k);
        for (size_t i = 0; i < oracle.distances.size(); ++i) {
            ASSERT_NEAR(
                    found.distances[i],
                    oracle.distances[i],
                    1e-4 * std::abs(oracle.distances[i]) + 1e-4);
        }
    }
}

TEST_F(SearchTest, one_query) {
    const int d = 16;
    const auto base = randomVectors(300, d, 5);
    GpuIndexFlatL2 index(&resources(), d);
    index.add(300, base.data());
    for (int k : {1, 2, 100, 300}) {
        const auto query = randomVectors(1, d, k);
        expectNeighbours(
                search(index, query, k),
                searchOnCpu(base, query, d, k),
                base,
                query,
                d,
                k);
    }
}

// Faiss' labels and halves are converted so many rows at a time.
TEST_F(SearchTest, more_queries_than_are_converted_at_once) {
    const int d = 4, k = 3;
    const auto base = randomVectors(50, d, 1);
    // The same few over and over: the oracle is for them alone.
    const size_t n = 2 * 16384 + 5, few = 89;
    const auto different = randomVectors(few, d, 2);
    const auto answers = searchOnCpu(base, different, d, k);
    std::vector<float> queries(n * d);
    Neighbours oracle{std::vector<float>(n * k), std::vector<int64_t>(n * k)};
    for (size_t i = 0; i < n; ++i) {
        const size_t one = i % few;
        std::copy_n(&different[one * d], d, &queries[i * d]);
        std::copy_n(&answers.distances[one * k], k, &oracle.distances[i * k]);
        std::copy_n(&answers.labels[one * k], k, &oracle.labels[i * k]);
    }
    for (bool float16 : {false, true}) {
        for (Memory memory : {Memory::Pageable, Memory::Device}) {
            SCOPED_TRACE(std::to_string(float16) + nameOf(memory));
            GpuIndexFlat index(
                    &resources(), d, faiss::METRIC_L2, storage(float16));
            index.add(50, base.data());
            Array<float> x(memory, queries);
            Array<float> distances(memory, n * k);
            Array<int64_t> labels(memory, n * k);
            index.search(n, x.data(), k, distances.data(), labels.data());
            check(cudaDeviceSynchronize());
            expectNeighbours(
                    {distances.get(), labels.get()},
                    oracle,
                    base,
                    queries,
                    d,
                    k);
        }
    }
}

TEST_F(SearchTest, an_index_is_found_by_one_cast_and_begins_as_that_of_faiss) {
    // Programs compare addresses of indexes under different types.
    GpuIndexFlatIP index(&resources(), 4);
    faiss::Index* const as = &index;
    EXPECT_EQ(static_cast<void*>(&index), static_cast<void*>(as));
    const auto* staged = dynamic_cast<faiss_ext::gpu::StagedIndex*>(as);
    ASSERT_NE(staged, nullptr);
    EXPECT_EQ(staged->getTransferStats().hostWaits, 0u);
    EXPECT_EQ(dynamic_cast<const faiss::Index*>(staged), as);
}

TEST_F(SearchTest, no_query_touches_nothing) {
    GpuIndexFlatL2 index(&resources(), 4);
    index.add(2, randomVectors(2, 4, 1).data());
    float distance = 42;
    int64_t label = 43;
    index.search(0, nullptr, 1, &distance, &label);
    index.search(0, nullptr, 1, nullptr, nullptr);
    index.assign(0, nullptr, nullptr);
    EXPECT_EQ(distance, 42);
    EXPECT_EQ(label, 43);
}

TEST_F(SearchTest, labels_are_minus_one_beyond_the_stored_vectors) {
    const int d = 4, k = 10;
    const auto base = randomVectors(3, d, 6);
    const auto queries = randomVectors(40, d, 7);
    for (int64_t tile : {0, 7}) {
        GpuIndexFlatIP index(&resources(), d, storage(false), tilesOf(tile));
        index.add(3, base.data());
        const auto found = search(index, queries, k);
        for (size_t i = 0; i < found.labels.size(); ++i) {
            EXPECT_EQ(found.labels[i] == -1, i % k >= 3);
        }
    }
}

TEST_F(SearchTest, an_empty_index_finds_nothing) {
    const auto queries = randomVectors(5, 4, 8);
    GpuIndexFlatL2 index(&resources(), 4);
    const auto found = search(index, queries, 3);
    for (int64_t label : found.labels) {
        EXPECT_EQ(label, -1);
    }
    EXPECT_EQ(
            found.distances,
            std::vector<float>(15, std::numeric_limits<float>::max()));
    // None is less similar.
    GpuIndexFlatIP similar(&resources(), 4);
    EXPECT_EQ(
            search(similar, queries, 3).distances,
            std::vector<float>(15, std::numeric_limits<float>::lowest()));
    // Neither does what reads the found vectors (Faiss' kernels abort).
    Neighbours again = found;
    std::vector<float> vectors(5 * 3 * 4, 7);
    index.search_and_reconstruct(
            5,
            queries.data(),
            3,
            again.distances.data(),
            again.labels.data(),
            vectors.data());
    EXPECT_EQ(vectors, std::vector<float>(5 * 3 * 4, 0));
    std::vector<float> residuals(5 * 4, 7);
    const std::vector<int64_t> none(5, -1);
    index.compute_residual_n(5, queries.data(), residuals.data(), none.data());
    for (float value : residuals) {
        EXPECT_TRUE(std::isnan(value));
    }
}

TEST_F(SearchTest, duplicates_are_all_found) {
    const int d = 6, k = 20;
    std::vector<float> base;
    const auto one = randomVectors(1, d, 9);
    for (int i = 0; i < 50; ++i) {
        base.insert(base.end(), one.begin(), one.end());
    }
    GpuIndexFlatL2 index(&resources(), d);
    index.add(50, base.data());
    expectNeighbours(
            search(index, one, k),
            searchOnCpu(base, one, d, k),
            base,
            one,
            d,
            k);
}

TEST_F(SearchTest, a_query_with_nan_spoils_only_its_own_results) {
    const int d = 8, k = 4;
    const auto base = randomVectors(100, d, 10);
    auto queries = randomVectors(60, d, 11);
    const auto oracle = searchOnCpu(base, queries, d, k);
    queries[33 * d + 2] = std::numeric_limits<float>::quiet_NaN();
    GpuIndexFlatL2 index(&resources(), d, storage(false), tilesOf(16));
    index.add(100, base.data());
    const auto found = search(index, queries, k);
    for (int i = 0; i < 60 * k; ++i) {
        if (i / k != 33) {
            EXPECT_EQ(found.distances[i], oracle.distances[i]);
        }
    }
}

TEST_F(SearchTest, a_stored_vector_with_infinity_is_never_near) {
    const int d = 8, k = 4;
    auto base = randomVectors(100, d, 12);
    base[17 * d] = std::numeric_limits<float>::infinity();
    const auto queries = randomVectors(30, d, 13);
    GpuIndexFlatL2 index(&resources(), d);
    index.add(100, base.data());
    const auto found = search(index, queries, k);
    for (int64_t label : found.labels) {
        EXPECT_NE(label, 17);
    }
}

TEST_F(SearchTest, assign_gives_the_labels_of_search) {
    const int d = 12;
    const auto base = randomVectors(200, d, 14);
    const auto queries = randomVectors(75, d, 15);
    for (int64_t tile : {0, 20}) {
        GpuIndexFlatL2 index(&resources(), d, storage(false), tilesOf(tile));
        index.add(200, base.data());
        for (int k : {1, 5}) {
            std::vector<int64_t> labels(75 * k, -12345);
            index.assign(75, queries.data(), labels.data(), k);
            EXPECT_EQ(labels, search(index, queries, k).labels);
        }
    }
}

TEST_F(SearchTest, search_and_reconstruct_gives_the_found_vectors) {
    const int d = 6, k = 3;
    const auto base = randomVectors(2, d, 16);
    const auto queries = randomVectors(9, d, 17);
    GpuIndexFlatL2 index(&resources(), d);
    index.add(2, base.data());
    std::vector<float> distances(9 * k), vectors(9 * k * d, -1);
    std::vector<int64_t> labels(9 * k);
    index.search_and_reconstruct(
            9,
            queries.data(),
            k,
            distances.data(),
            labels.data(),
            vectors.data());
    for (int i = 0; i < 9 * k; ++i) {
        for (int j = 0; j < d; ++j) {
            const float expected =
                    labels[i] == -1 ? 0 : base[labels[i] * d + j];
            ASSERT_EQ(vectors[i * d + j], expected);
        }
    }
}

TEST_F(SearchTest, results_larger_than_the_pinned_memory_come_complete) {
    const int d = 8, k = 50, n = 700;
    const auto base = randomVectors(100, d, 18);
    const auto queries = randomVectors(n, d, 19);
    faiss::gpu::StandardGpuResources small;
    small.setPinnedMemory(0);
    TunedConfig config;
    config.pinnedBytes = 64 << 10; // the results take 420 KB
    GpuIndexFlatL2 index(&small, d, storage(false), config);
    index.add(100, base.data());
    expectNeighbours(
            search(index, queries, k),
            searchOnCpu(base, queries, d, k),
            base,
            queries,
            d,
            k);
    EXPECT_LE(index.getTransferStats().hostWaits, 1);
}

TEST_F(SearchTest, profiled_one_tile_and_many) {
    using faiss_ext::gpu::Stage;
    const int d = 24, k = 7;
    const size_t n = 97;
    const auto base = randomVectors(500, d, 1);
    const auto queries = randomVectors(n, d, 2);
    const auto oracle = searchOnCpu(base, queries, d, k);
    for (int64_t tile : {0, 10}) {
        GpuIndexFlatL2 index(&resources(), d, storage(false), tilesOf(tile));
        index.add(500, base.data());
        Neighbours found{
                std::vector<float>(n * k), std::vector<int64_t>(n * k)};
        const auto profile = index.profile_search(
                n,
                queries.data(),
                k,
                found.distances.data(),
                found.labels.data());
        expectNeighbours(found, oracle, base, queries, d, k);
        EXPECT_EQ(profile.tiles, tile == 0 ? 1 : 10);
        EXPECT_GT(profile.seconds, 0);
        // By tile: when its queries were there, when it was computed.
        std::vector<double> uploaded(profile.tiles), computed(profile.tiles);
        for (const auto& span : profile.spans) {
            EXPECT_LE(span.begin, span.end);
            if (span.stage == Stage::Upload) {
                uploaded[span.tile] = span.end;
            } else if (span.stage == Stage::Compute) {
                EXPECT_GE(span.begin, uploaded[span.tile]);
                computed[span.tile] = span.end;
            } else if (span.stage == Stage::CopyBack) {
                EXPECT_GE(span.begin, computed[span.tile]);
            }
        }
    }
}

} // namespace
