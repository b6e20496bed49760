// The exact engine: distances and labels are those of a plain loop on the CPU,
// bit for bit, whatever the data, the shape, the tiles and the threads.

#include <faiss/IndexFlat.h>
#include <faiss_ext/gpu/compute/SearchChoice.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <thread>

#include "support/Arrays.h"
#include "support/CachingPool.h"
#include "support/Calls.h"
#include "support/ExactNeighbours.h"
#include "support/GpuTest.h"

namespace {

using faiss_ext::gpu::ExactWay;
using faiss_ext::gpu::GpuIndexFlat;
using namespace test;

constexpr ExactWay kAllWays[] = {
        ExactWay::Best,
        ExactWay::Scan,
        ExactWay::TensorScan,
        ExactWay::FusedFilter,
        ExactWay::Scores};

std::string nameOf(ExactWay way) {
    constexpr const char* kNames[] = {
            "Best", "Scan", "TensorScan", "FusedFilter", "Scores"};
    return kNames[static_cast<int>(way)];
}

TunedConfig by(ExactWay way, TunedConfig config = {}) {
    config.exactWay = static_cast<int>(way);
    return config;
}

constexpr faiss::MetricType kMetrics[] = {
        faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT};

/// Vectors and queries of one kind.
enum class Data {
    Uniform,
    /// Around 100: a distance of Faiss' kernels to itself is not zero.
    FarFromZero,
    Clusters,
    NearDuplicates,
    AllEqual,
    Integers,
    /// One vector of 1e30 among ones.
    OneHuge,
    /// NaN and infinities in some rows.
    NotFinite,
    Zeros,
    /// Denormal numbers.
    Tiny,
    /// Norms from 1e-18 to 1e18 and more.
    AllSizes,
};

constexpr Data kAllData[] = {
        Data::Uniform,
        Data::FarFromZero,
        Data::Clusters,
        Data::NearDuplicates,
        Data::AllEqual,
        Data::Integers,
        Data::OneHuge,
        Data::NotFinite,
        Data::Zeros,
        Data::Tiny,
        Data::AllSizes};

std::vector<float> vectorsOf(Data data, size_t rows, int d, unsigned seed) {
    std::mt19937 random(seed);
    // The same for vectors and queries.
    std::mt19937 shared(77);
    std::uniform_real_distribution<float> unit(-1, 1);
    std::vector<float> first(d);
    std::vector<float> centres(8 * d);
    std::generate(first.begin(), first.end(), [&] { return unit(shared); });
    std::generate(centres.begin(), centres.end(), [&] { return unit(shared); });
    std::vector<float> made(rows * d);
    for (size_t i = 0; i < rows; ++i) {
        const size_t cluster = random() % 8;
        const float size = std::ldexp(1.0f, int(random() % 160) - 80);
        for (int j = 0; j < d; ++j) {
            float& value = made[i * d + j];
            value = unit(random);
            switch (data) {
                case Data::Uniform:
                    break;
                case Data::FarFromZero:
                    value += 100;
                    break;
                case Data::Clusters:
                    value = centres[cluster * d + j] + 0.01f * value;
                    break;
                case Data::NearDuplicates:
                    value = first[j] + 1e-6f * value;
                    break;
                case Data::AllEqual:
                    value = first[j];
                    break;
                case Data::Integers:
                    value = std::round(7 * value);
                    break;
                case Data::OneHuge:
                    value = i == 3 ? 1e30f : 1.0f + 0.001f * value;
                    break;
                case Data::NotFinite:
                    if (i % 11 == 5 && j == d / 2) {
                        value = std::numeric_limits<float>::quiet_NaN();
                    } else if (i % 13 == 4 && j == 0) {
                        value = std::numeric_limits<float>::infinity();
                    }
                    break;
                case Data::Zeros:
                    value = 0;
                    break;
                case Data::Tiny:
                    value *= 1e-39f;
                    break;
                case Data::AllSizes:
                    value *= size;
                    break;
            }
        }
    }
    return made;
}

class ExactSearch : public GpuTest {
   protected:
    void SetUp() override {
        GpuTest::SetUp();
        if (!IsSkipped()) {
            const Shape one{1, 1, 1};
            makeData(one, Data::Zeros, false);
            makeAndSearch(one, faiss::METRIC_L2, false, {});
            if (searchedBy_ == faiss_ext::gpu::searched_by::kUnknownGpu) {
                GTEST_SKIP() << searchedBy_;
            }
            ASSERT_EQ(searchedBy_, "the exact engine");
        }
    }

    struct Shape {
        size_t nb;
        size_t n;
        int d;
        int k = 1;
    };

    static std::unique_ptr<GpuIndexFlat> makeIndex(
            const std::vector<float>& base,
            int d,
            faiss::MetricType metric,
            bool float16,
            TunedConfig config,
            faiss::gpu::GpuResourcesProvider* provider = &resources()) {
        faiss::gpu::GpuIndexFlatConfig storage;
        storage.useFloat16 = float16;
        config.search = "exact";
        auto index = std::make_unique<GpuIndexFlat>(
                provider, d, metric, storage, config);
        index->add(base.size() / d, base.data());
        return index;
    }

    static Neighbours search(
            const GpuIndexFlat& index,
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

    void makeData(const Shape& shape, Data data, bool float16) {
        base_ = asStored(vectorsOf(data, shape.nb, shape.d, 1), float16);
        queries_ = vectorsOf(data, shape.n, shape.d, 2);
    }

    Neighbours makeAndSearch(
            const Shape& shape,
            faiss::MetricType metric,
            bool float16,
            const TunedConfig& config) {
        const auto index = makeIndex(base_, shape.d, metric, float16, config);
        const auto found = search(*index, queries_, shape.k);
        searchedBy_ = index->getTransferStats().searchedBy;
        return found;
    }

    /// By every way, or some.
    void expectExact(
            const Shape& shape,
            Data data,
            faiss::MetricType metric,
            bool float16,
            const TunedConfig& config = {},
            const std::vector<ExactWay>& ways = {
                    std::begin(kAllWays), std::end(kAllWays)}) {
        SCOPED_TRACE(
                "data " + std::to_string(int(data)) + ", nb " +
                std::to_string(shape.nb) + ", n " + std::to_string(shape.n) +
                ", d " + std::to_string(shape.d) + ", k " +
                std::to_string(shape.k) + ", metric " + std::to_string(metric) +
                ", float16 " + std::to_string(float16));
        makeData(shape, data, float16);
        const auto right =
                searchExactly(base_, queries_, shape.d, shape.k, metric);
        for (ExactWay way : ways) {
            SCOPED_TRACE(nameOf(way));
            const auto found =
                    makeAndSearch(shape, metric, float16, by(way, config));
            ASSERT_EQ(searchedBy_, "the exact engine");
            expectSameBits(found, right, shape.k);
        }
    }

    std::vector<float> base_;
    std::vector<float> queries_;
    std::string searchedBy_;
};

TEST_F(ExactSearch, every_kind_of_data_by_both_metrics_from_both_storages) {
    for (Data data : kAllData) {
        for (auto metric : kMetrics) {
            for (bool float16 : {false, true}) {
                expectExact({1000, 40, 33, 10}, data, metric, float16);
                expectExact({300, 20, 8, 3}, data, metric, float16);
            }
        }
    }
}

TEST_F(ExactSearch, shapes_from_one_to_thousands) {
    // As many as this Faiss takes.
    const int most = FAISS_EXT_FAISS_VERSION < 10704 ? 2047 : 2048;
    const Shape shapes[] = {
            {1, 1, 1, 1},
            {1, 5, 3, 4},
            {2, 1, 130, 1},
            {15, 3, 2, 1},
            {16, 3, 2, 1},
            {127, 7, 1, 2},
            {128, 33, 17, 8},
            {129, 2, 16, 9},
            {1000, 300, 5, 62},
            {1000, 3, 96, 63},
            {5000, 65, 24, 7},
            {5000, 1, 130, 312},
            {5000, 2, 9, 313},
            {4097, 31, 8, 100},
            {3000, 2, 4, most},
            {40000, 1, 3, most}};
    for (const Shape& shape : shapes) {
        for (auto metric : kMetrics) {
            for (bool float16 : {false, true}) {
                expectExact(shape, Data::Uniform, metric, float16);
            }
        }
    }
}

TEST_F(ExactSearch, tiles_and_chunks_of_all_sizes_and_short_lists) {
    for (Data data : {Data::Uniform, Data::Clusters, Data::NearDuplicates}) {
        for (bool float16 : {false, true}) {
            for (int survivors : {1, 20, 1000}) {
                for (int64_t vectors : {128, 256, 1000}) {
                    TunedConfig config;
                    config.exactSurvivors = survivors;
                    config.exactVectors = vectors;
                    config.exactQueries = 1 + vectors / 20;
                    config.exactSample = vectors / 4;
                    config.exactCopied = survivors == 20 ? 0 : vectors;
                    expectExact(
                            {1111, 29, 16, 9},
                            data,
                            faiss::METRIC_L2,
                            float16,
                            config);
                }
            }
        }
    }
}

TEST_F(ExactSearch, samples_and_copies_of_all_sizes) {
    // Guesses from few, and from nearly all; copies of as few as may be.
    for (auto metric : kMetrics) {
        for (int64_t sample : {1, 40, 300, 100000}) {
            for (int64_t copied : {1, 200, 100000}) {
                TunedConfig config;
                config.exactSample = sample;
                config.exactCopied = copied;
                config.exactVectors = 64;
                config.exactSurvivors = 100;
                expectExact(
                        {1500, 12, 20, 30},
                        Data::Clusters,
                        metric,
                        false,
                        config);
            }
        }
    }
}

TEST_F(ExactSearch, vectors_in_the_order_of_what_they_are) {
    // The first hundreds are the neighbours of no query, then of all.
    const Shape shape{3000, 20, 8, 40};
    TunedConfig config;
    config.exactSample = 64;
    config.exactVectors = 500;
    for (bool ascending : {false, true}) {
        makeData(shape, Data::Uniform, false);
        for (size_t i = 0; i < shape.nb; ++i) {
            const float size = ascending ? i : shape.nb - i;
            for (int j = 0; j < shape.d; ++j) {
                base_[i * shape.d + j] *= 0.01f * size;
            }
        }
        for (auto metric : kMetrics) {
            const auto right =
                    searchExactly(base_, queries_, shape.d, shape.k, metric);
            for (ExactWay way : kAllWays) {
                SCOPED_TRACE(nameOf(way) + std::to_string(ascending));
                expectSameBits(
                        makeAndSearch(shape, metric, false, by(way, config)),
                        right,
                        shape.k);
            }
        }
    }
}

TEST_F(ExactSearch, the_tiles_of_a_call_do_not_show) {
    for (int64_t rows : {1, 10, 32}) {
        TunedConfig config;
        config.tileRows = rows;
        expectExact(
                {700, 97, 12, 5},
                Data::FarFromZero,
                faiss::METRIC_L2,
                false,
                config);
    }
}

TEST_F(ExactSearch, lanes_and_slices_of_Faiss_kernels_do_not_show) {
    TunedConfig config;
    config.computeLanes = 3;
    config.sliceVectors = 1000;
    // Enough of both for lanes, and few enough for slices.
    for (size_t n : {1536, 3}) {
        expectExact(
                {8192, n, 4, 3},
                Data::Clusters,
                faiss::METRIC_L2,
                false,
                config,
                {ExactWay::Best});
    }
}

TEST_F(ExactSearch, with_the_least_of_temporary_memory) {
    const int d = 20;
    const int k = 6;
    const auto base = vectorsOf(Data::Uniform, 3000, d, 1);
    const auto queries = vectorsOf(Data::Uniform, 50, d, 2);
    const auto right = searchExactly(base, queries, d, k, faiss::METRIC_L2);
    for (size_t bytes : {size_t(0), size_t(1) << 12, size_t(1) << 16}) {
        faiss::gpu::StandardGpuResources scarce;
        scarce.setTempMemory(bytes);
        for (ExactWay way : kAllWays) {
            SCOPED_TRACE(nameOf(way) + " in " + std::to_string(bytes));
            const auto index = makeIndex(
                    base, d, faiss::METRIC_L2, false, by(way), &scarce);
            expectSameBits(search(*index, queries, k), right, k);
        }
    }
}

TEST_F(ExactSearch, from_a_pool) {
    const auto pool = std::make_shared<CachingPool>();
    faiss_ext::gpu::PooledGpuResources pooled(pool);
    const int d = 20;
    const int k = 6;
    const auto base = vectorsOf(Data::Clusters, 1000, d, 1);
    const auto queries = vectorsOf(Data::Clusters, 50, d, 2);
    const auto right = searchExactly(base, queries, d, k, faiss::METRIC_L2);
    for (ExactWay way : kAllWays) {
        SCOPED_TRACE(nameOf(way));
        const auto index =
                makeIndex(base, d, faiss::METRIC_L2, false, by(way), &pooled);
        expectSameBits(search(*index, queries, k), right, k);
    }
}

TEST_F(ExactSearch, batches_of_every_size_have_the_same_bits) {
    const int d = 24;
    const int k = 7;
    const size_t n = 60;
    const auto base = vectorsOf(Data::FarFromZero, 2000, d, 1);
    const auto queries = vectorsOf(Data::FarFromZero, n, d, 2);
    const auto right = searchExactly(base, queries, d, k, faiss::METRIC_L2);
    for (ExactWay way : kAllWays) {
        const auto index = makeIndex(base, d, faiss::METRIC_L2, false, by(way));
        for (size_t batch : {1, 2, 7, 16, 31, 60}) {
            Neighbours found;
            for (size_t first = 0; first < n; first += batch) {
                const size_t end = std::min(n, first + batch);
                const auto part =
                        search(*index,
                               {queries.begin() + first * d,
                                queries.begin() + end * d},
                               k);
                found.distances.insert(
                        found.distances.end(),
                        part.distances.begin(),
                        part.distances.end());
                found.labels.insert(
                        found.labels.end(),
                        part.labels.begin(),
                        part.labels.end());
            }
            SCOPED_TRACE(nameOf(way) + ", batches of " + std::to_string(batch));
            expectSameBits(found, right, k);
        }
    }
}

TEST_F(ExactSearch, sixteen_threads_have_the_same_bits) {
    const int d = 16;
    const int k = 5;
    const auto base = vectorsOf(Data::Uniform, 1500, d, 1);
    struct Work {
        std::vector<float> queries;
        Neighbours found;
    };
    for (ExactWay way : kAllWays) {
        SCOPED_TRACE(nameOf(way));
        const auto index = makeIndex(base, d, faiss::METRIC_L2, false, by(way));
        std::vector<Work> all;
        for (unsigned i = 0; i < 16; ++i) {
            all.push_back({vectorsOf(Data::Uniform, 1 + i % 5, d, 10 + i), {}});
        }
        std::vector<std::thread> threads;
        for (Work& work : all) {
            threads.emplace_back([&work, &index] {
                for (int round = 0; round < 3; ++round) {
                    work.found = search(*index, work.queries, k);
                }
            });
        }
        for (auto& thread : threads) {
            thread.join();
        }
        for (const Work& work : all) {
            expectSameBits(
                    work.found,
                    searchExactly(base, work.queries, d, k, faiss::METRIC_L2),
                    k);
        }
    }
}

TEST_F(ExactSearch, arrays_in_every_memory) {
    const int d = 8;
    const int k = 4;
    const size_t n = 21;
    const auto base = vectorsOf(Data::Uniform, 500, d, 1);
    const auto queries = vectorsOf(Data::Uniform, n, d, 2);
    const auto right =
            searchExactly(base, queries, d, k, faiss::METRIC_INNER_PRODUCT);
    TunedConfig config;
    config.mappedBytes = 1;
    for (bool copied : {false, true}) {
        const auto index = makeIndex(
                base,
                d,
                faiss::METRIC_INNER_PRODUCT,
                false,
                copied ? config : TunedConfig());
        for (Memory from : kAllMemories) {
            for (Memory to : kAllMemories) {
                SCOPED_TRACE(std::string(nameOf(from)) + " to " + nameOf(to));
                Array<float> x(from, queries);
                Array<float> distances(to, n * k);
                Array<int64_t> labels(to, n * k);
                index->search(n, x.data(), k, distances.data(), labels.data());
                expectSameBits({distances.get(), labels.get()}, right, k);
            }
        }
    }
}

TEST_F(ExactSearch, whatever_has_changed_in_between) {
    const int d = 12;
    const int k = 5;
    const auto queries = vectorsOf(Data::Uniform, 20, d, 2);
    for (ExactWay way : kAllWays) {
        SCOPED_TRACE(nameOf(way));
        std::vector<float> base;
        const auto index = makeIndex({}, d, faiss::METRIC_L2, false, by(way));
        const auto expectRight = [&] {
            expectSameBits(
                    search(*index, queries, k),
                    searchExactly(base, queries, d, k, faiss::METRIC_L2),
                    k);
        };
        expectRight();
        for (unsigned size : {30, 500, 3}) {
            const auto more = vectorsOf(Data::Uniform, size, d, 100 + size);
            base.insert(base.end(), more.begin(), more.end());
            index->add(size, more.data());
            expectRight();
            expectRight();
        }
        index->reset();
        base.clear();
        expectRight();
        // As many as before, and another scale.
        base = vectorsOf(Data::AllSizes, 533, d, 7);
        index->add(533, base.data());
        expectRight();
        base = vectorsOf(Data::FarFromZero, 533, d, 8);
        faiss::IndexFlat cpu(d, faiss::METRIC_L2);
        cpu.add(533, base.data());
        index->copyFrom(&cpu);
        expectRight();
    }
}

TEST_F(ExactSearch, assigns_the_same_labels) {
    const int d = 12;
    const auto base = vectorsOf(Data::FarFromZero, 900, d, 1);
    const auto queries = vectorsOf(Data::FarFromZero, 40, d, 2);
    const auto index = makeIndex(base, d, faiss::METRIC_L2, false, {});
    std::vector<int64_t> labels(40 * 3);
    index->assign(40, queries.data(), labels.data(), 3);
    EXPECT_EQ(
            labels,
            searchExactly(base, queries, d, 3, faiss::METRIC_L2).labels);
}

TEST_F(ExactSearch, a_vector_is_at_distance_zero_from_itself) {
    const int d = 128;
    const auto base = vectorsOf(Data::FarFromZero, 300, d, 1);
    const auto index = makeIndex(base, d, faiss::METRIC_L2, false, {});
    const auto found = search(*index, base, 1);
    EXPECT_EQ(found.distances, std::vector<float>(300));
}

TEST_F(ExactSearch, counts_its_queries) {
    const int d = 8;
    const auto base = vectorsOf(Data::Uniform, 1000, d, 1);
    const auto queries = vectorsOf(Data::Uniform, 30, d, 2);
    for (ExactWay way : kAllWays) {
        SCOPED_TRACE(nameOf(way));
        const auto index = makeIndex(base, d, faiss::METRIC_L2, false, by(way));
        search(*index, queries, 3);
        auto stats = index->getTransferStats();
        EXPECT_EQ(stats.searchedBy, "the exact engine");
        EXPECT_EQ(stats.certifiedQueries + stats.widenedQueries, 30u);
        EXPECT_EQ(stats.lastPathQueries, 0u);
        // More than a quarter of the vectors: a scan compares all anyway, the
        // other ways find that a filter is not worth it.
        index->resetTransferStats();
        search(*index, queries, 251);
        const bool filters =
                way == ExactWay::FusedFilter || way == ExactWay::Scores;
        stats = index->getTransferStats();
        EXPECT_EQ(stats.certifiedQueries, filters ? 0u : 30u);
        EXPECT_EQ(stats.widenedQueries, 0u);
        EXPECT_EQ(stats.lastPathQueries, filters ? 30u : 0u);
    }
}

TEST_F(ExactSearch, says_what_has_searched) {
    const int d = 8;
    const auto base = vectorsOf(Data::Uniform, 1000, d, 1);
    const auto queries = vectorsOf(Data::Uniform, 30, d, 2);
    const auto index = makeIndex(base, d, faiss::METRIC_L2, false, {});
    EXPECT_EQ(index->getTransferStats().searchedBy, "");
    search(*index, queries, 3);
    auto stats = index->getTransferStats();
    EXPECT_EQ(stats.searchedBy, "the exact engine");
    EXPECT_EQ(stats.certifiedQueries, 30u);
    index->resetTransferStats();
    stats = index->getTransferStats();
    EXPECT_EQ(stats.certifiedQueries, 0u);
    EXPECT_EQ(stats.lastPathQueries, 0u);
    EXPECT_EQ(stats.searchedBy, "");
    search(*index, queries, 3);
    EXPECT_EQ(index->getTransferStats().certifiedQueries, 30u);

    std::vector<float> distances(30);
    std::vector<int64_t> labels(30);
    const auto profile = index->profile_search(
            30, queries.data(), 1, distances.data(), labels.data());
    EXPECT_NE(profile.plan.find("; by the exact engine"), std::string::npos)
            << profile.plan;
}

TEST_F(ExactSearch, other_metrics_go_to_the_kernels_of_Faiss) {
    const int d = 8;
    const auto base = vectorsOf(Data::Integers, 100, d, 1);
    const auto queries = vectorsOf(Data::Integers, 10, d, 2);
    const auto index = makeIndex(base, d, faiss::METRIC_L1, false, {});
    const auto found = search(*index, queries, 3);
    expectNeighbours(
            found,
            searchOnCpu(base, queries, d, 3, faiss::METRIC_L1),
            base,
            queries,
            d,
            3,
            faiss::METRIC_L1);
    EXPECT_EQ(
            index->getTransferStats().searchedBy,
            "Faiss' kernels: the exact engine has L2 and the inner product "
            "only");
}

/// Sets an environment variable for a scope.
class Environment {
   public:
    explicit Environment(const char* value) {
        setenv("FAISS_EXT_SEARCH", value, 1);
    }
    ~Environment() {
        unsetenv("FAISS_EXT_SEARCH");
    }
};

std::string searchedByOf(const TunedConfig& config) {
    static auto& resources = *new faiss::gpu::StandardGpuResources;
    GpuIndexFlat index(
            &resources,
            2,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            config);
    const std::vector<float> x{1, 2};
    index.add(1, x.data());
    float distance;
    int64_t label;
    index.search(1, x.data(), 1, &distance, &label);
    return index.getTransferStats().searchedBy;
}

/// What searches on this GPU, of those that the engine knows, unless told
/// otherwise.
std::string fastestHere() {
    int major = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    return major == 9 ? "the exact engine"
                      : "Faiss' kernels: the exact engine was not measured on "
                        "this GPU; StagedConfig::search = \"exact\" or "
                        "FAISS_EXT_SEARCH=exact chooses it";
}

TEST_F(ExactSearch, is_chosen_by_the_config_or_else_by_the_environment) {
    TunedConfig exact;
    exact.search = "exact";
    TunedConfig stock;
    stock.search = "faiss";
    unsetenv("FAISS_EXT_SEARCH");
    const std::string fastest = fastestHere();
    EXPECT_EQ(searchedByOf({}), fastest);
    EXPECT_EQ(searchedByOf(exact), "the exact engine");
    {
        const Environment set("exact");
        EXPECT_EQ(searchedByOf({}), "the exact engine");
        EXPECT_EQ(searchedByOf(stock), "Faiss' kernels");
    }
    {
        const Environment set("faiss");
        EXPECT_EQ(searchedByOf({}), "Faiss' kernels");
        EXPECT_EQ(searchedByOf(exact), "the exact engine");
    }
    const Environment set("");
    EXPECT_EQ(searchedByOf({}), fastest);
}

TEST_F(ExactSearch, any_other_choice_is_an_error_that_names_it) {
    TunedConfig config;
    config.search = "fast";
    const auto expectError = [](const TunedConfig& config, const char* text) {
        try {
            searchedByOf(config);
            ADD_FAILURE() << "no exception";
        } catch (const faiss_ext::gpu::InvalidArray& e) {
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos)
                    << e.what();
        }
    };
    expectError(
            config, "StagedConfig::search is 'fast'; give 'exact' or 'faiss'");
    const Environment set("Exact");
    expectError({}, "FAISS_EXT_SEARCH is 'Exact'; give 'exact' or 'faiss'");
}

} // namespace
