// GpuIndexFlatCosine: similarities, stored vectors and copies are those of
// normalised vectors, bit for bit, on the simulator and on a GPU.

#include <faiss/IndexFlat.h>
#include <faiss/IndexIDMap.h>
#include <faiss/IndexReplicas.h>
#include <faiss/gpu/GpuCloner.h>
#include <faiss_ext/gpu/compute/CosineSearcher.h>
#include <faiss_ext/gpu/compute/kernels/NormalizeRows.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuCloner.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/index/GpuIndexFlatCosine.h>
#include <faiss_ext/gpu/index/IndexShards.h>

#include <memory>
#include <numeric>
#include <thread>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/ExactNeighbours.h"
#include "support/GpuTest.h"
#include "support/NormalizedRows.h"

namespace {

using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::GpuIndexFlatCosine;
using faiss_ext::gpu::GpuIndexFlatIP;
using faiss_ext::gpu::IndexShards;
using namespace test;

constexpr int kDims = 20;
constexpr int kVectors = 300;
constexpr int kQueries = 40;
constexpr int kNearest = 7;

faiss::gpu::GpuIndexFlatConfig storage(bool float16) {
    faiss::gpu::GpuIndexFlatConfig config;
    config.useFloat16 = float16;
    return config;
}

/// Searched by the exact engine, whose results have bits that are known.
TunedConfig exactly(TunedConfig config = {}) {
    config.search = "exact";
    return config;
}

/// The vectors that an index has, that was given `base`.
std::vector<float> normalizedIn(
        const std::vector<float>& base, bool float16, int d = kDims) {
    return oneNan(asStored(asDocumented(base, d), float16));
}

Neighbours searchAll(
        const faiss::Index& index,
        const std::vector<float>& queries,
        int k = kNearest) {
    const size_t n = queries.size() / index.d;
    Neighbours found{
            std::vector<float>(n * k, -7), std::vector<int64_t>(n * k, -7)};
    index.search(
            n, queries.data(), k, found.distances.data(), found.labels.data());
    return found;
}

std::vector<float> stored(const faiss::Index& index) {
    std::vector<float> vectors(index.ntotal * index.d);
    if (index.ntotal > 0) {
        index.reconstruct_n(0, index.ntotal, vectors.data());
    }
    return oneNan(vectors);
}

class CosineTest : public GpuTest {
   protected:
    void SetUp() override {
        GpuTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        int major = 0;
        check(cudaDeviceGetAttribute(
                &major, cudaDevAttrComputeCapabilityMajor, 0));
        if (major < 8) {
            GTEST_SKIP() << "no exact engine on this GPU";
        }
    }

    static std::unique_ptr<GpuIndexFlatCosine> makeIndex(
            bool float16 = false, const TunedConfig& config = exactly()) {
        return std::make_unique<GpuIndexFlatCosine>(
                &resources(), kDims, storage(float16), config);
    }

    Neighbours right(
            const std::vector<float>& base,
            const std::vector<float>& queries,
            bool float16 = false,
            int k = kNearest,
            int d = kDims) const {
        return searchExactly(
                asStored(asDocumented(base, d), float16),
                asDocumented(queries, d),
                d,
                k,
                faiss::METRIC_INNER_PRODUCT);
    }

    const std::vector<float> base_ = oddRows(kVectors, kDims, 1);
    const std::vector<float> queries_ = oddRows(kQueries, kDims, 2);
};

TEST_F(CosineTest, kernels_have_the_bits_of_the_host_function) {
    for (int d : {1, 2, 3, 4, 5, 8, 31, 64, 127, 128, 129, 132, 300, 1024}) {
        const auto rows = oddRows(77, d, d);
        // At the beginning of an allocation, and where loads must be single.
        for (int shift : {0, 1, 2, 4}) {
            std::vector<float> padded(shift, 0);
            padded.insert(padded.end(), rows.begin(), rows.end());
            Array<float> from(Memory::Device, padded);
            Array<float> to(Memory::Device, padded.size());
            check(faiss_ext::gpu::launchNormalizeRows(
                    from.data() + shift, 77, d, to.data() + shift, nullptr));
            auto made = to.get();
            made.erase(made.begin(), made.begin() + shift);
            EXPECT_EQ(Bits(made), Bits(asDocumented(rows, d)))
                    << d << " " << shift;
            EXPECT_EQ(Bits(from.get()), Bits(padded));
            check(faiss_ext::gpu::launchNormalizeRows(
                    from.data() + shift, 77, d, from.data() + shift, nullptr));
            auto inPlace = from.get();
            inPlace.erase(inPlace.begin(), inPlace.begin() + shift);
            EXPECT_EQ(Bits(inPlace), Bits(made)) << d << " " << shift;
        }
    }
}

/// More rows than there are warps.
TEST_F(CosineTest, kernels_take_many_rows) {
    const int n = 200'000;
    const auto rows = rowsOfSize(n, 2, 3, 5);
    Array<float> array(Memory::Device, rows);
    check(faiss_ext::gpu::launchNormalizeRows(
            array.data(), n, 2, array.data(), nullptr));
    EXPECT_EQ(Bits(array.get()), Bits(asDocumented(rows, 2)));
}

TEST_F(CosineTest, results_are_those_of_normalised_vectors) {
    for (bool float16 : {false, true}) {
        for (int64_t tileRows : {0, 3}) {
            TunedConfig config = exactly();
            config.tileRows = tileRows;
            auto index = makeIndex(float16, config);
            index->add(100, base_.data());
            index->add(kVectors - 100, base_.data() + 100 * kDims);
            EXPECT_EQ(index->ntotal, kVectors);
            EXPECT_EQ(index->metric_type, faiss::METRIC_INNER_PRODUCT);
            expectSameBits(
                    searchAll(*index, queries_),
                    right(base_, queries_, float16),
                    kNearest);
            EXPECT_EQ(Bits(stored(*index)), Bits(normalizedIn(base_, float16)));
        }
    }
}

TEST_F(CosineTest, arrays_in_any_memory_are_read_and_left_alone) {
    const auto wanted = right(base_, queries_);
    for (bool float16 : {false, true}) {
        for (Memory memory : kAllMemories) {
            auto index = makeIndex(float16);
            Array<float> base(memory, base_);
            Array<float> queries(memory, queries_);
            index->add(kVectors, base.data());
            Array<float> distances(memory, wanted.distances.size());
            Array<int64_t> labels(memory, wanted.labels.size());
            index->search(
                    kQueries,
                    queries.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
            expectSameBits(
                    {distances.get(), labels.get()},
                    right(base_, queries_, float16),
                    kNearest);
            EXPECT_EQ(Bits(base.get()), Bits(base_)) << nameOf(memory);
            EXPECT_EQ(Bits(queries.get()), Bits(queries_)) << nameOf(memory);
        }
    }
}

TEST_F(CosineTest, faiss_kernels_search_normalised_queries_too) {
    struct Way {
        int lanes;
        int64_t sliceVectors;
        size_t queries;
        const char* plan;
    };
    const auto base = rowsOfSize(kVectors, kDims, 1e30f, 3);
    for (bool float16 : {false, true}) {
        for (const Way& way :
             {Way{1, 0, 40, "on the default stream"},
              Way{3, 0, 1500, "on 2 streams"},
              Way{3, 1, 9, "in 3 slices of the vectors on 3 streams"}}) {
            TunedConfig config;
            config.search = "faiss";
            config.computeLanes = way.lanes;
            config.sliceVectors = way.sliceVectors;
            auto index = makeIndex(float16, config);
            index->add(kVectors, base.data());
            const auto queries = rowsOfSize(way.queries, kDims, 1e-30f, 4);
            const auto wanted = right(base, queries);
            for (Memory memory : {Memory::Pageable, Memory::Device}) {
                Array<float> x(memory, queries);
                Array<float> distances(memory, wanted.distances.size());
                Array<int64_t> labels(memory, wanted.labels.size());
                const auto profile = index->profile_search(
                        way.queries,
                        x.data(),
                        kNearest,
                        distances.data(),
                        labels.data());
                EXPECT_NE(profile.plan.find(way.plan), std::string::npos)
                        << profile.plan;
                const auto found = distances.get();
                for (size_t i = 0; i < found.size(); ++i) {
                    ASSERT_NEAR(
                            found[i],
                            wanted.distances[i],
                            float16 ? 5e-3 : 1e-5);
                }
                EXPECT_EQ(Bits(x.get()), Bits(queries));
            }
        }
    }
}

/// Notes with what it is asked to search.
class NotingSearcher : public faiss_ext::gpu::Searcher {
   public:
    struct Asked {
        faiss_ext::gpu::ComputeContext context;
        faiss_ext::gpu::QueryRows queries;
    };
    static constexpr size_t kBytes = 1000;

    explicit NotingSearcher(std::vector<Asked>& asked) : asked_(asked) {}

    faiss_ext::gpu::ComputeNeeds needs(
            faiss_ext::gpu::idx_t, int) const override {
        faiss_ext::gpu::ComputeNeeds needs;
        needs.laneBytes = kBytes;
        return needs;
    }
    faiss_ext::gpu::ComputeWork leastWork(
            faiss_ext::gpu::idx_t n, int k) const override {
        faiss_ext::gpu::ComputeWork work;
        work.bytes = n * k;
        return work;
    }
    faiss_ext::gpu::SliceNeeds sliceNeeds(
            faiss_ext::gpu::idx_t,
            int,
            const faiss_ext::gpu::Slices&) const override {
        return {kBytes, 2, 3};
    }
    void enqueue(
            const faiss_ext::gpu::ComputeContext& context,
            const faiss_ext::gpu::QueryRows& queries,
            const faiss_ext::gpu::SearchResults&) override {
        asked_.push_back({context, queries});
    }
    void enqueueSlice(
            const faiss_ext::gpu::ComputeContext& context,
            const faiss_ext::gpu::QueryRows& queries,
            const faiss_ext::gpu::Slices&,
            void*,
            int) override {
        asked_.push_back({context, queries});
    }

   private:
    std::vector<Asked>& asked_;
};

// The stand-ins for Faiss' kernels take less scratch memory than these.
TEST_F(CosineTest, copies_of_queries_and_scratch_memory_lie_apart) {
    std::vector<NotingSearcher::Asked> asked;
    faiss_ext::gpu::TransferCounters counters;
    faiss_ext::gpu::CosineSearcher searcher(
            std::make_unique<NotingSearcher>(asked),
            *resources().getResources(),
            0,
            kDims,
            counters);
    const faiss_ext::gpu::Slices slices{2, 50};
    const size_t onLane = searcher.needs(kQueries, 3).laneBytes;
    const auto inSlices = searcher.sliceNeeds(kQueries, 3, slices);
    EXPECT_EQ(inSlices.laneBytes, onLane);
    EXPECT_EQ(inSlices.foundBytes, 2u);
    EXPECT_EQ(inSlices.mergeBytes, 3u);
    EXPECT_EQ(searcher.leastWork(kQueries, 3).bytes, 3.0 * kQueries);
    EXPECT_GE(onLane, queries_.size() * sizeof(float) + NotingSearcher::kBytes);

    Array<float> x(Memory::Device, queries_);
    Array<char> scratch(Memory::Device, onLane);
    faiss_ext::gpu::ComputeContext context{nullptr};
    context.lane = 1;
    context.scratch = scratch.data();
    context.scratchBytes = onLane;
    searcher.enqueue(context, {kQueries, x.data(), 3}, {});
    searcher.enqueueSlice(context, {kQueries, x.data(), 3}, slices, nullptr, 0);
    ASSERT_EQ(asked.size(), 2u);
    for (const auto& [inner, queries] : asked) {
        EXPECT_EQ(queries.x, scratch.data());
        EXPECT_EQ(queries.n, kQueries);
        EXPECT_EQ(inner.lane, 1);
        EXPECT_GE(
                inner.scratch,
                scratch.data() + queries_.size() * sizeof(float));
        EXPECT_GE(inner.scratchBytes, NotingSearcher::kBytes);
        EXPECT_EQ(inner.scratch + inner.scratchBytes, scratch.data() + onLane);
    }
    context.scratchBytes = 100;
    EXPECT_THROW(
            searcher.enqueue(context, {kQueries, x.data(), 3}, {}),
            faiss::FaissException);
}

class CosineSteps : public CosineTest {
   protected:
    /// How many queries the searcher within is asked at a time.
    std::vector<faiss_ext::gpu::idx_t> stepsOf(
            faiss::gpu::StandardGpuResources& resources, int n, int lane = -1) {
        resources.getResources()->initializeForDevice(0);
        std::vector<NotingSearcher::Asked> asked;
        faiss_ext::gpu::TransferCounters counters;
        faiss_ext::gpu::CosineSearcher searcher(
                std::make_unique<NotingSearcher>(asked),
                *resources.getResources(),
                0,
                kDims,
                counters);
        Array<float> x(Memory::Device, size_t(n) * kDims);
        check(cudaMemset(x.data(), 0, size_t(n) * kDims * sizeof(float)));
        check(cudaDeviceSynchronize());
        const size_t bytes = searcher.needs(n, 3).laneBytes;
        Array<char> scratch(Memory::Device, bytes);
        faiss_ext::gpu::ComputeContext context{
                resources.getDefaultStream(0), lane, scratch.data(), bytes};
        Array<float> distances(Memory::Device, size_t(n) * 3);
        Array<int64_t> labels(Memory::Device, size_t(n) * 3);
        searcher.enqueue(
                context, {n, x.data(), 3}, {distances.data(), labels.data()});
        check(cudaDeviceSynchronize());
        std::vector<faiss_ext::gpu::idx_t> steps;
        for (const auto& step : asked) {
            steps.push_back(step.queries.n);
        }
        return steps;
    }

    using Steps = std::vector<faiss_ext::gpu::idx_t>;
};

TEST_F(CosineSteps, are_few_and_equal) {
    EXPECT_EQ(stepsOf(resources(), 16384), (Steps{16384}));
    EXPECT_EQ(stepsOf(resources(), 16386), (Steps{8193, 8193}));
    EXPECT_EQ(stepsOf(resources(), 40000), (Steps{13334, 13334, 13332}));
}

TEST_F(CosineSteps, take_a_part_of_temporary_memory) {
    // 80 bytes a query. 0.5 MiB are beyond the least that the engine takes.
    faiss::gpu::StandardGpuResources small;
    small.setTempMemory((size_t(8) << 20) + (size_t(512) << 10));
    EXPECT_EQ(stepsOf(small, 16000), (Steps{5334, 5334, 5332}));
    // Whoever comes behind waits anyway, at each step.
    small.setTempMemory(size_t(1) << 20);
    EXPECT_EQ(stepsOf(small, 16000), (Steps{16000}));
}

TEST_F(CosineSteps, are_those_of_faiss_kernels_on_lanes) {
    EXPECT_EQ(stepsOf(resources(), 1300, 2), (Steps{512, 512, 276}));
}

TEST_F(CosineTest, lanes_are_as_many_as_those_of_an_inner_product_index) {
    constexpr int d = 64, n = 16384;
    const auto base = rowsOfSize(kVectors, d, 1, 3);
    Array<float> queries(Memory::Device, rowsOfSize(n, d, 1, 4));
    Array<float> distances(Memory::Device, n);
    Array<int64_t> labels(Memory::Device, n);
    TunedConfig config;
    config.search = "faiss";
    config.computeLanes = 8;
    faiss::gpu::StandardGpuResources small;
    small.setTempMemory(size_t(16) << 20);
    const auto planOf = [&](const auto& index) {
        return index
                .profile_search(
                        n, queries.data(), 1, distances.data(), labels.data())
                .plan;
    };
    GpuIndexFlatCosine cosine(&small, d, storage(false), config);
    GpuIndexFlatIP product(&small, d, storage(false), config);
    cosine.add(kVectors, base.data());
    product.add(kVectors, base.data());
    EXPECT_NE(planOf(product).find("on 8 streams"), std::string::npos)
            << planOf(product);
    EXPECT_EQ(planOf(cosine), planOf(product));
}

TEST_F(CosineTest, many_queries_are_searched_in_parts) {
    // Dimensions so many that few copies are made at a time.
    const int d = 1 << 16;
    const auto base = rowsOfSize(3, d, 1, 5);
    const auto queries = rowsOfSize(300, d, 1e30f, 6);
    GpuIndexFlatCosine index(&resources(), d, storage(false), exactly());
    index.add(3, base.data());
    expectSameBits(
            searchAll(index, queries, 2), right(base, queries, false, 2, d), 2);
}

TEST_F(CosineTest, many_vectors_are_stored_in_parts) {
    const int d = 1 << 16;
    const int n = 270;
    std::vector<float> base(size_t(n) * d);
    for (int i = 0; i < n; ++i) {
        base[size_t(i) * d + i] = i + 1;
        base[size_t(i) * d + d - 1] = -1;
    }
    const auto wanted = normalizedIn(base, true, d);
    faiss::gpu::StandardGpuResources small;
    small.setTempMemory(size_t(16) << 20);
    for (auto* provider : {&resources(), &small}) {
        GpuIndexFlatCosine index(provider, d, storage(true));
        index.add(n, base.data());
        EXPECT_TRUE(Bits(stored(index)) == Bits(wanted));
    }
    GpuIndexFlatCosine index(&resources(), d, storage(true));
    index.add(n, base.data());
    GpuIndexFlatCosine copy(&resources(), d, storage(true));
    copy.addFrom(index, 7, n - 7);
    EXPECT_TRUE(
            Bits(stored(copy)) == Bits({wanted.begin() + 7 * d, wanted.end()}));
}

TEST_F(CosineTest, similarity_of_zeros_is_zero) {
    auto index = makeIndex();
    std::vector<float> base(3 * kDims, 0);
    base[kDims] = 1e-40f;
    base[2 * kDims] = -1e30f;
    index->add(3, base.data());
    std::vector<float> queries(2 * kDims, 0);
    queries[kDims] = 5;
    const auto found = searchAll(*index, queries, 3);
    EXPECT_EQ(found.distances, (std::vector<float>{0, 0, 0, 1, 0, -1}));
    EXPECT_EQ(found.labels, (std::vector<int64_t>{0, 1, 2, 1, 0, 2}));
}

TEST_F(CosineTest, nan_and_infinity_are_never_found) {
    auto index = makeIndex();
    std::vector<float> base(3 * kDims, 1);
    base[3] = std::numeric_limits<float>::quiet_NaN();
    base[kDims + 3] = std::numeric_limits<float>::infinity();
    index->add(3, base.data());
    const auto found = searchAll(*index, std::vector<float>(kDims, 2), 3);
    EXPECT_EQ(found.labels, (std::vector<int64_t>{2, -1, -1}));
}

TEST_F(CosineTest, labels_and_found_vectors_alone) {
    auto index = makeIndex();
    index->add(kVectors, base_.data());
    const auto wanted = right(base_, queries_);
    std::vector<int64_t> labels(wanted.labels.size());
    index->assign(kQueries, queries_.data(), labels.data(), kNearest);
    EXPECT_EQ(labels, wanted.labels);

    Neighbours found{
            std::vector<float>(labels.size()),
            std::vector<int64_t>(labels.size())};
    std::vector<float> vectors(labels.size() * kDims);
    index->search_and_reconstruct(
            kQueries,
            queries_.data(),
            kNearest,
            found.distances.data(),
            found.labels.data(),
            vectors.data());
    expectSameBits(found, wanted, kNearest);
    const auto all = asDocumented(base_, kDims);
    for (size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] < 0) {
            continue;
        }
        const auto at = all.begin() + labels[i] * kDims;
        const auto got = vectors.begin() + i * kDims;
        EXPECT_EQ(Bits({got, got + kDims}), Bits({at, at + kDims}));
    }
}

TEST_F(CosineTest, profiles_are_of_the_same_search) {
    auto index = makeIndex();
    index->add(kVectors, base_.data());
    const auto wanted = right(base_, queries_);
    Neighbours found{
            std::vector<float>(wanted.labels.size()),
            std::vector<int64_t>(wanted.labels.size())};
    const auto profile = index->profile_search(
            kQueries,
            queries_.data(),
            kNearest,
            found.distances.data(),
            found.labels.data());
    expectSameBits(found, wanted, kNearest);
    EXPECT_NE(profile.plan.find("exact"), std::string::npos) << profile.plan;
}

TEST_F(CosineTest, searches_of_many_threads_are_normalised) {
    auto index = makeIndex();
    index->add(kVectors, base_.data());
    const auto wanted = right(base_, queries_);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 3; ++i) {
                expectSameBits(searchAll(*index, queries_), wanted, kNearest);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

TEST_F(CosineTest, copies_on_the_cpu_have_the_normalised_vectors) {
    auto index = makeIndex();
    index->add(kVectors, base_.data());
    std::unique_ptr<faiss::Index> cpu(faiss::gpu::index_gpu_to_cpu(&*index));
    auto* flat = dynamic_cast<faiss::IndexFlat*>(cpu.get());
    ASSERT_TRUE(flat);
    EXPECT_EQ(flat->metric_type, faiss::METRIC_INNER_PRODUCT);
    const auto all = asDocumented(base_, kDims);
    EXPECT_EQ(Bits(stored(*flat)), Bits(all));

    // And back, where they stay as they are.
    GpuIndexFlatCosine again(&resources(), flat, storage(false), exactly());
    EXPECT_EQ(Bits(stored(again)), Bits(all));
    faiss::IndexFlatIP other(kDims);
    again.copyTo(&other);
    EXPECT_EQ(Bits(stored(other)), Bits(all));
}

TEST_F(CosineTest, vectors_of_indexes_on_the_cpu_are_normalised) {
    faiss::IndexFlatL2 l2(kDims);
    l2.add(kVectors, base_.data());
    faiss::IndexFlatIP none(kDims);
    const auto shared = resources().getResources();
    for (bool float16 : {false, true}) {
        GpuIndexFlatCosine one(&resources(), &l2, storage(float16));
        GpuIndexFlatCosine other(shared, &l2, storage(float16));
        GpuIndexFlatCosine third(shared, kDims, storage(float16));
        third.add(2, queries_.data());
        third.copyFrom(&l2);
        for (auto* index : {&one, &other, &third}) {
            EXPECT_EQ(Bits(stored(*index)), Bits(normalizedIn(base_, float16)));
            EXPECT_EQ(index->metric_type, faiss::METRIC_INNER_PRODUCT);
            index->copyFrom(&none);
            EXPECT_EQ(index->ntotal, 0);
        }
    }
}

TEST_F(CosineTest, a_copy_on_a_gpu_is_one_too) {
    const int another = visibleDevices() > 1 ? 1 : 0;
    for (bool float16 : {false, true}) {
        auto index = makeIndex(float16);
        index->add(kVectors, base_.data());
        std::unique_ptr<faiss::Index> copy(faiss_ext::gpu::index_cpu_to_gpu(
                &resources(), another, &*index));
        auto* cosine = dynamic_cast<GpuIndexFlatCosine*>(copy.get());
        ASSERT_TRUE(cosine);
        EXPECT_EQ(cosine->getDevice(), another);
        EXPECT_EQ(cosine->storesFloat16(), float16);
        EXPECT_EQ(Bits(stored(*copy)), Bits(stored(*index)));
        // It goes on normalising.
        copy->add(5, queries_.data());
        std::vector<float> added(5 * kDims);
        copy->reconstruct_n(kVectors, 5, added.data());
        EXPECT_EQ(
                Bits(oneNan(added)),
                Bits(normalizedIn(
                        {queries_.begin(), queries_.begin() + 5 * kDims},
                        float16)));
    }
}

TEST_F(CosineTest, replicas_and_shards_of_one_answer_as_it_does) {
    auto index = makeIndex();
    index->add(kVectors, base_.data());
    const auto wanted = right(base_, queries_, false, 4);
    faiss::gpu::StandardGpuResources second;
    std::vector<faiss::gpu::GpuResourcesProvider*> providers{
            &resources(), &second};
    std::vector<int> devices{0, 0};
    for (bool shard : {false, true}) {
        faiss::gpu::GpuMultipleClonerOptions options;
        options.shard = shard;
        std::unique_ptr<faiss::Index> made(
                faiss_ext::gpu::index_cpu_to_gpu_multiple(
                        providers, devices, &*index, &options));
        faiss::Index* part =
                shard ? dynamic_cast<faiss::IndexShards&>(*made).at(0)
                      : dynamic_cast<faiss::IndexReplicas&>(*made).at(0);
        EXPECT_TRUE(dynamic_cast<GpuIndexFlatCosine*>(part));
        EXPECT_EQ(made->metric_type, faiss::METRIC_INNER_PRODUCT);
        const auto found = searchAll(*made, queries_, 4);
        // Of equal ones a merge may take others.
        for (size_t i = 0; i < found.labels.size(); ++i) {
            ASSERT_EQ(found.distances[i], wanted.distances[i]) << i;
        }
    }
}

TEST_F(CosineTest, an_id_map_passes_vectors_and_ids_on) {
    auto index = makeIndex();
    faiss::IndexIDMap map(&*index);
    std::vector<faiss_ext::gpu::idx_t> ids(kVectors);
    std::iota(ids.begin(), ids.end(), 1000);
    map.add_with_ids(kVectors, base_.data(), ids.data());
    auto wanted = right(base_, queries_);
    for (auto& label : wanted.labels) {
        label = label < 0 ? label : label + 1000;
    }
    expectSameBits(searchAll(map, queries_), wanted, kNearest);
}

TEST_F(CosineTest, errors_leave_the_index_as_it_was) {
    auto index = makeIndex();
    index->add(10, base_.data());
    EXPECT_THROW(index->add(3, nullptr), faiss::FaissException);
    EXPECT_THROW(index->copyFrom(nullptr), faiss::FaissException);
    const faiss_ext::gpu::idx_t ids[1] = {7};
    EXPECT_THROW(
            index->add_with_ids(1, base_.data(), ids), faiss::FaissException);
    GpuIndexFlatCosine other(&resources(), kDims + 1);
    EXPECT_THROW(other.addFrom(*index, 0, 10), faiss::FaissException);
    GpuIndexFlatCosine same(&resources(), kDims);
    const std::pair<int64_t, int64_t> wrong[] = {
            {5, 10},
            {11, 0},
            {-1, 0},
            {-1, 3},
            {0, -1},
            {0, INT64_MAX},
            {INT64_MAX, 1}};
    for (const auto& [i0, n] : wrong) {
        try {
            same.addFrom(*index, i0, n);
            ADD_FAILURE() << i0 << ", " << n << " was taken";
        } catch (const faiss::FaissException& e) {
            EXPECT_NE(std::string(e.what()).find("i0, n: "), std::string::npos)
                    << e.what();
        }
    }
    EXPECT_EQ(same.ntotal, 0);
    EXPECT_THROW(GpuIndexFlatCosine(&resources(), 0), faiss::FaissException);
    EXPECT_THROW(
            GpuIndexFlatCosine(
                    &resources(), static_cast<faiss::IndexFlat*>(nullptr)),
            faiss::FaissException);
    auto nowhere = storage(false);
    nowhere.device = 99;
    EXPECT_THROW(
            GpuIndexFlatCosine(&resources(), kDims, nowhere),
            faiss_ext::gpu::InvalidDevice);
    const std::vector<float> ten(base_.begin(), base_.begin() + 10 * kDims);
    EXPECT_EQ(Bits(stored(*index)), Bits(asDocumented(ten, kDims)));
    index->reset();
    EXPECT_EQ(index->ntotal, 0);
    const auto none = searchAll(*index, queries_);
    EXPECT_EQ(none.labels, std::vector<int64_t>(kQueries * kNearest, -1));
}

TEST_F(CosineTest, without_temporary_memory_it_answers_the_same) {
    faiss::gpu::StandardGpuResources small;
    small.setTempMemory(0);
    for (bool float16 : {false, true}) {
        GpuIndexFlatCosine index(&small, kDims, storage(float16), exactly());
        index.add(kVectors, base_.data());
        expectSameBits(
                searchAll(index, queries_),
                right(base_, queries_, float16),
                kNearest);
    }
}

} // namespace
