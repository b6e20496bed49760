// Exactly the bytes, copies, waits and allocations that a search needs.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <faiss/gpu/StandardGpuResources.h>

#include <memory>
#include <numeric>
#include <tuple>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Lanes.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::GpuIndexFlatL2;
using namespace test;

constexpr int kDims = 16;
constexpr int kNearest = 5;
constexpr uint64_t kQueries = 90;
constexpr uint64_t kQueryBytes = kQueries * kDims * sizeof(float);
constexpr uint64_t kResults = kQueries * kNearest;

class TransferCounts : public SimTest,
                       public ::testing::WithParamInterface<
                               std::tuple<Memory, Memory, Memory, int64_t>> {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        TunedConfig config;
        config.tileRows = std::get<3>(GetParam());
        config.mappedBytes = 1;
        index_ = std::make_unique<GpuIndexFlatL2>(
                &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
        index_->add(200, randomVectors(200, kDims, 1).data());
    }

    /// 0 and 9 rows a tile: 1 and 10 tiles.
    uint64_t tiles() const {
        return std::get<3>(GetParam()) == 0 ? 1 : 10;
    }

    faiss::gpu::StandardGpuResources resources_;
    std::unique_ptr<GpuIndexFlatL2> index_;
};

TEST_P(TransferCounts, are_the_least_that_the_placement_allows) {
    const auto [x, distances, labels, tileRows] = GetParam();
    Array<float> xs(x, randomVectors(kQueries, kDims, 2));
    Array<float> ds(distances, kResults);
    Array<int64_t> is(labels, kResults);
    const auto search = [&, index = index_.get()] {
        index->search(kQueries, xs.data(), kNearest, ds.data(), is.data());
    };
    // The first searches make what later ones use again; several at once need
    // more than one alone.
    for (int i = 0; i < 3; ++i) {
        search();
    }
    check(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    index_->resetTransferStats();

    search();

    const auto now = counts();
    const bool waits = distances != Memory::Device || labels != Memory::Device;
    const uint64_t up = x == Memory::Device ? 0 : kQueryBytes;
    const uint64_t down = (distances == Memory::Device ? 0 : kResults * 4) +
                          (labels == Memory::Device ? 0 : kResults * 8);
    // The simulator counts copies of managed memory as within the device.
    const uint64_t managed = (x == Memory::Managed ? kQueryBytes : 0) +
                             (distances == Memory::Managed ? kResults * 4 : 0) +
                             (labels == Memory::Managed ? kResults * 8 : 0);
    EXPECT_EQ(bytesUp() + bytesDown() + now.bytes_d2d, up + down);
    EXPECT_EQ(now.bytes_d2d, managed);
    EXPECT_EQ(now.bytes_p2p, 0u);
    EXPECT_EQ(hostWaits(), waits ? 1u : 0u);
    EXPECT_EQ(now.waits_event, waits ? 1u : 0u);
    EXPECT_EQ(allocations(), 0u);

    // One copy up a tile; one down for all pageable results of a tile together
    // and one for each pinned or managed array.
    const bool pageable =
            distances == Memory::Pageable || labels == Memory::Pageable;
    const auto direct = [](Memory memory) {
        return memory == Memory::Pinned || memory == Memory::Managed;
    };
    const uint64_t copiesATile = (x == Memory::Device ? 0 : 1) +
                                 (pageable ? 1 : 0) + direct(distances) +
                                 direct(labels);
    EXPECT_EQ(copies(), tiles() * copiesATile);
    // Nothing moves through memory that CUDA would have to stage itself.
    EXPECT_EQ(now.bytes_h2d_pageable + now.bytes_d2h_pageable, 0u);

    const auto stats = index_->getTransferStats();
    EXPECT_EQ(stats.bytesToDevice, up);
    EXPECT_EQ(stats.bytesToHost, down);
    EXPECT_EQ(stats.copiesToDevice + stats.copiesToHost, copies());
    EXPECT_EQ(stats.hostWaits, hostWaits());
    EXPECT_EQ(stats.deviceAllocations + stats.pinnedAllocations, 0u);
}

INSTANTIATE_TEST_SUITE_P(
        All,
        TransferCounts,
        ::testing::Combine(
                ::testing::ValuesIn(kAllMemories),
                ::testing::ValuesIn(kAllMemories),
                ::testing::ValuesIn(kAllMemories),
                ::testing::Values<int64_t>(0, 9)),
        [](const auto& info) {
            return std::string(nameOf(std::get<0>(info.param))) + "_" +
                   nameOf(std::get<1>(info.param)) + "_" +
                   nameOf(std::get<2>(info.param)) +
                   (std::get<3>(info.param) ? "_many_tiles" : "_one_tile");
        });

class TransferCountsOnLanes
        : public SimTest,
          public ::testing::WithParamInterface<std::tuple<Memory, int64_t>> {};

TEST_P(TransferCountsOnLanes, are_one_wait_or_none) {
    const auto [memory, tileRows] = GetParam();
    faiss::gpu::StandardGpuResources resources;
    TunedConfig config;
    config.search = "faiss";
    config.computeLanes = 3;
    config.tileRows = tileRows;
    GpuIndexFlatL2 index(
            &resources, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
    index.add(200, randomVectors(200, kDims, 1).data());
    constexpr int64_t kMany = 1536;
    Array<float> x(memory, randomVectors(kMany, kDims, 2));
    Array<float> distances(memory, kMany * kNearest);
    Array<int64_t> labels(memory, kMany * kNearest);
    const auto search = [&] {
        index.search(
                kMany, x.data(), kNearest, distances.data(), labels.data());
    };
    search();
    check(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    search();
    EXPECT_EQ(hostWaits(), memory == Memory::Device ? 0u : 1u);
    EXPECT_EQ(allocations(), 0u);
    const auto profile = index.profile_search(
            kMany, x.data(), kNearest, distances.data(), labels.data());
    EXPECT_EQ(lanesOf(profile).size(), 3u);
}

INSTANTIATE_TEST_SUITE_P(
        All,
        TransferCountsOnLanes,
        ::testing::Combine(
                ::testing::Values(
                        Memory::Device, Memory::Pinned, Memory::Pageable),
                ::testing::Values(0, 600)));

class TransferCountsOfOneTile : public SimTest {
   protected:
    /// Its results are copied, however few they are.
    static TunedConfig copied() {
        TunedConfig config;
        config.mappedBytes = 1;
        return config;
    }

    GpuIndexFlatL2 makeIndex(const TunedConfig& config) {
        return {&resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config};
    }

    faiss::gpu::StandardGpuResources resources_;
};

TEST_F(TransferCountsOfOneTile, assign_brings_back_labels_alone) {
    GpuIndexFlatL2 index = makeIndex(copied());
    index.add(200, randomVectors(200, kDims, 1).data());
    const auto queries = randomVectors(kQueries, kDims, 2);
    std::vector<int64_t> labels(kResults);
    index.assign(kQueries, queries.data(), labels.data(), kNearest);
    cuda_sim_reset_counters();
    index.assign(kQueries, queries.data(), labels.data(), kNearest);
    EXPECT_EQ(bytesUp(), kQueryBytes);
    EXPECT_EQ(bytesDown(), kResults * 8);
    EXPECT_EQ(hostWaits(), 1u);
}

TEST_F(TransferCountsOfOneTile,
       one_query_is_one_upload_one_download_one_event) {
    GpuIndexFlatL2 index = makeIndex(copied());
    index.add(200, randomVectors(200, kDims, 1).data());
    const auto query = randomVectors(1, kDims, 2);
    float distance;
    int64_t label;
    index.search(1, query.data(), 1, &distance, &label);
    cuda_sim_reset_counters();
    index.search(1, query.data(), 1, &distance, &label);
    const auto now = counts();
    EXPECT_EQ(now.copies_h2d_pinned, 1u);
    EXPECT_EQ(now.copies_d2h_pinned, 1u);
    EXPECT_EQ(copies(), 2u);
    EXPECT_EQ(now.event_records, 1u);
    EXPECT_EQ(now.event_waits, 0u);
    EXPECT_EQ(now.host_functions, 0u);
    EXPECT_EQ(hostWaits(), 1u);
}

TEST_F(TransferCountsOfOneTile, float16_storage_is_searched_without_a_wait) {
    faiss::gpu::GpuIndexFlatConfig storage;
    storage.useFloat16 = true;
    GpuIndexFlatL2 index(&resources_, kDims, storage);
    index.add(200, randomVectors(200, kDims, 1).data());
    Array<float> x(Memory::Device, randomVectors(kQueries, kDims, 2));
    Array<float> distances(Memory::Device, kResults);
    Array<int64_t> labels(Memory::Device, kResults);
    cuda_sim_reset_counters();
    index.search(kQueries, x.data(), kNearest, distances.data(), labels.data());
    EXPECT_EQ(hostWaits(), 0u);
    EXPECT_TRUE(cuda_sim_is_poison(labels.data(), kResults * 8));
}

TEST_F(TransferCountsOfOneTile, pinned_results_that_touch_are_two_copies) {
    GpuIndexFlatL2 index = makeIndex(copied());
    const auto base = randomVectors(200, kDims, 1);
    const auto queries = randomVectors(kQueries, kDims, 2);
    index.add(200, base.data());
    Array<char> both(Memory::Pinned, kResults * 12);
    auto* labels = reinterpret_cast<int64_t*>(both.data());
    auto* distances = reinterpret_cast<float*>(both.data() + kResults * 8);
    index.search(kQueries, queries.data(), kNearest, distances, labels);
    cuda_sim_reset_counters();
    index.search(kQueries, queries.data(), kNearest, distances, labels);
    // They may be two allocations, which one copy may not span.
    EXPECT_EQ(counts().copies_d2h_pinned, 2u);
    EXPECT_EQ(bytesDown(), kResults * 12);
    expectNeighbours(
            {std::vector<float>(distances, distances + kResults),
             std::vector<int64_t>(labels, labels + kResults)},
            searchOnCpu(base, queries, kDims, kNearest),
            base,
            queries,
            kDims,
            kNearest);
}

// Memory for what is converted is allocated then, and its end waited for.
TEST_F(TransferCountsOfOneTile, without_temporary_memory_a_search_waits) {
    resources_.noTempMemory();
    faiss::gpu::GpuIndexFlatConfig storage;
    storage.useFloat16 = true;
    GpuIndexFlatL2 index(&resources_, kDims, storage);
    const auto base = randomVectors(200, kDims, 1);
    index.add(200, base.data());
    Array<float> x(Memory::Device, base);
    Array<float> distances(Memory::Device, 200);
    Array<int64_t> labels(Memory::Device, 200);
    cuda_sim_reset_counters();
    index.search(200, x.data(), 1, distances.data(), labels.data());
    EXPECT_GT(hostWaits(), 0u);
    std::vector<int64_t> themselves(200);
    std::iota(themselves.begin(), themselves.end(), 0);
    EXPECT_EQ(labels.get(), themselves);
}

TEST_F(TransferCountsOfOneTile, few_results_are_no_copy_unless_asked_for) {
    GpuIndexFlatL2 index(&resources_, kDims);
    index.add(200, randomVectors(200, kDims, 1).data());
    const auto query = randomVectors(1, kDims, 2);
    float distance;
    int64_t label;
    cuda_sim_reset_counters();
    index.search(1, query.data(), 1, &distance, &label);
    EXPECT_EQ(bytesDown(), 0u);
    EXPECT_EQ(hostWaits(), 1u);
}

TEST_F(TransferCountsOfOneTile, mapped_results_are_no_copy) {
    const auto base = randomVectors(200, kDims, 1);
    const auto queries = randomVectors(kQueries, kDims, 2);
    for (Memory memory : {Memory::Pinned, Memory::Pageable, Memory::Managed}) {
        for (bool fits : {true, false}) {
            SCOPED_TRACE(nameOf(memory) + std::to_string(fits));
            TunedConfig config;
            config.mappedBytes = kResults * 12 - !fits;
            GpuIndexFlatL2 index(
                    &resources_,
                    kDims,
                    faiss::gpu::GpuIndexFlatConfig(),
                    config);
            index.add(200, base.data());
            Array<float> distances(memory, kResults);
            Array<int64_t> labels(memory, kResults);
            const auto search = [&] {
                index.search(
                        kQueries,
                        queries.data(),
                        kNearest,
                        distances.data(),
                        labels.data());
            };
            search();
            cuda_sim_reset_counters();
            index.resetTransferStats();
            search();
            const uint64_t down = memory == Memory::Managed  ? 2
                                  : fits                     ? 0
                                  : memory == Memory::Pinned ? 2
                                                             : 1;
            EXPECT_EQ(copies(), 1 + down);
            EXPECT_EQ(index.getTransferStats().copiesToHost, down);
            EXPECT_EQ(index.getTransferStats().bytesToHost, kResults * 12);
            EXPECT_EQ(hostWaits(), 1u);
            EXPECT_EQ(counts().event_records, 1u);
            // What is written before the call returns is there without a wait.
            expectNeighbours(
                    {distances.peek(), labels.peek()},
                    searchOnCpu(base, queries, kDims, kNearest),
                    base,
                    queries,
                    kDims,
                    kNearest);
        }
    }
}

TEST_F(TransferCountsOfOneTile, mapping_is_for_what_faiss_computes_at_once) {
    GpuIndexFlatL2 index(&resources_, kDims);
    index.add(200, randomVectors(200, kDims, 1).data());
    for (int64_t n : {512, 513}) {
        const auto queries = randomVectors(n, kDims, 2);
        Array<float> distances(Memory::Pinned, n);
        Array<int64_t> labels(Memory::Pinned, n);
        index.resetTransferStats();
        index.search(n, queries.data(), 1, distances.data(), labels.data());
        EXPECT_EQ(index.getTransferStats().copiesToHost, n == 512 ? 0u : 2u);
    }
}

TEST_F(TransferCountsOfOneTile, mapping_is_for_search_alone) {
    TunedConfig config;
    config.mappedBytes = size_t(1) << 20;
    GpuIndexFlatL2 index(
            &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
    index.add(200, randomVectors(200, kDims, 1).data());
    Array<float> out(Memory::Pinned, 200 * kDims);
    index.reconstruct_n(0, 200, out.data());
    cuda_sim_reset_counters();
    index.reconstruct_n(0, 200, out.data());
    EXPECT_EQ(counts().copies_d2h_pinned, 1u);
    config.tileRows = 9;
    GpuIndexFlatL2 tiled(
            &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
    tiled.add(200, randomVectors(200, kDims, 1).data());
    std::vector<int64_t> labels(kResults);
    const auto queries = randomVectors(kQueries, kDims, 2);
    tiled.assign(kQueries, queries.data(), labels.data(), kNearest);
    cuda_sim_reset_counters();
    tiled.assign(kQueries, queries.data(), labels.data(), kNearest);
    EXPECT_EQ(counts().copies_d2h_pinned, 10u);
}

TEST_F(TransferCountsOfOneTile, reconstruct_uploads_no_output) {
    GpuIndexFlatL2 index(&resources_, kDims);
    index.add(200, randomVectors(200, kDims, 1).data());
    std::vector<float> out(200 * kDims);
    index.reconstruct_n(0, 200, out.data());
    cuda_sim_reset_counters();
    index.reconstruct_n(0, 200, out.data());
    EXPECT_EQ(bytesUp(), 0u);
    EXPECT_EQ(bytesDown(), 200u * kDims * 4);
    EXPECT_EQ(hostWaits(), 1u);
}

TEST_F(TransferCountsOfOneTile, stock_faiss_does_move_more) {
    // The test instrument sees what this library is there to avoid.
    faiss::gpu::GpuIndexFlatL2 index(&resources_, kDims);
    index.add(200, randomVectors(200, kDims, 1).data());
    const auto queries = randomVectors(kQueries, kDims, 2);
    std::vector<float> distances(kResults);
    std::vector<int64_t> labels(kResults);
    cuda_sim_reset_counters();
    index.search(
            kQueries,
            queries.data(),
            kNearest,
            distances.data(),
            labels.data());
    EXPECT_EQ(bytesUp(), kQueryBytes + kResults * 12);
    EXPECT_GT(counts().bytes_d2h_pageable, 0u);
}

} // namespace
