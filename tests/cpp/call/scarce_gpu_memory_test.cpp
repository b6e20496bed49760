// Searches on a GPU that is nearly full: fewer rows at once, one tile after
// another in Faiss' temporary memory, before memory is said to be exhausted.

#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <faiss/gpu/StandardGpuResources.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::InvalidArray;
using faiss_ext::gpu::OutOfMemory;
using faiss_ext::gpu::Stage;
using faiss_ext::gpu::Unsupported;
using namespace test;

constexpr size_t MiB = size_t(1) << 20;
constexpr int kDims = 4;
constexpr int kNearest = 100;
constexpr int64_t kQueries = 6000;
// 6000 * 100 * 12 bytes of results: 6.9 MiB.

class ScarceGpuMemory : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        resources_.setTempMemory(8 * MiB);
        remake({});
        search();
        oracle_ = found_;
        expectNeighbours(
                found_,
                searchOnCpu(base_, queries_, kDims, kNearest),
                base_,
                queries_,
                kDims,
                kNearest);
        remake({});
    }

    void TearDown() override {
        index_.reset();
        SimTest::TearDown();
    }

    /// An index that cuts its searches into tiles of 4 MiB.
    void remake(TunedConfig config) {
        // The exact engine keeps something, and needs other scratch memory.
        config.search = "faiss";
        if (config.tileRows == 0) {
            config.oneTileBytes = config.tileBytes = 4 * MiB;
        }
        index_ = std::make_unique<GpuIndexFlatL2>(
                &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
        index_->add(150, base_.data());
        liveBefore_ = counts().live_device_bytes;
    }

    /// The GPU has so many bytes left from now on.
    void leave(size_t bytes) {
        check(cudaDeviceSynchronize());
        cuda_sim_set_device_memory(counts().live_device_bytes + bytes);
    }

    void leaveEnough() {
        cuda_sim_set_device_memory(size_t(1) << 34);
    }

    void search(int64_t n = kQueries) {
        found_.distances.assign(n * kNearest, -1);
        found_.labels.assign(n * kNearest, -2);
        index_->search(
                n,
                queries_.data(),
                kNearest,
                found_.distances.data(),
                found_.labels.data());
    }

    void expectAnswers(int64_t n = kQueries) {
        // What `add` left in flight would be waited for before a free.
        check(cudaDeviceSynchronize());
        cuda_sim_reset_counters();
        search(n);
        // Where Faiss has no temporary memory, it waits for what it converts.
        EXPECT_EQ(
                hostWaits() - counts().waits_free - counts().waits_stream, 1u);
        // On the simulator each query has one answer, also among equals.
        EXPECT_TRUE(std::equal(
                found_.distances.begin(),
                found_.distances.end(),
                oracle_.distances.begin()));
        EXPECT_TRUE(std::equal(
                found_.labels.begin(),
                found_.labels.end(),
                oracle_.labels.begin()));
    }

    /// Bytes of the GPU that the index keeps for its tiles.
    size_t kept() {
        return counts().live_device_bytes - liveBefore_;
    }

    faiss::gpu::StandardGpuResources resources_;
    const std::vector<float> base_ = randomVectors(150, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    /// Found with memory enough.
    Neighbours oracle_;
    std::unique_ptr<GpuIndexFlatL2> index_;
    size_t liveBefore_ = 0;
    Neighbours found_;
};

TEST_F(ScarceGpuMemory, whatever_is_left_a_search_answers) {
    for (size_t left = 0; left <= 13 * MiB; left += MiB) {
        SCOPED_TRACE(std::to_string(left / MiB) + " MiB left");
        remake({});
        leave(left);
        expectAnswers();
        EXPECT_LE(kept(), left);
        expectAnswers();
        leaveEnough();
        expectAnswers();
        index_.reset();
    }
}

TEST_F(ScarceGpuMemory, a_full_gpu_has_faiss_temporary_memory_still) {
    leave(0);
    expectAnswers();
    EXPECT_EQ(kept(), 0u);
    EXPECT_EQ(index_->getTransferStats().deviceAllocations, 0u);
}

TEST_F(ScarceGpuMemory, blocks_of_other_slots_make_room) {
    TunedConfig config;
    config.tileRows = 200; // 240 000 bytes of results
    remake(config);
    expectAnswers(1000);
    constexpr size_t kQueryBlock = 4096;
    EXPECT_EQ(kept(), 3 * (MiB / 4 + kQueryBlock));
    // Half as many neighbours again, in two tiles: their blocks fit once that
    // of the third slot is gone.
    leave(400 << 10);
    const std::vector<float> queries(
            queries_.begin(), queries_.begin() + 400 * kDims);
    Neighbours found{
            std::vector<float>(400 * 150), std::vector<int64_t>(400 * 150)};
    const auto profile = index_->profile_search(
            400,
            queries.data(),
            150,
            found.distances.data(),
            found.labels.data());
    EXPECT_NE(profile.plan.find("2 tiles"), std::string::npos) << profile.plan;
    EXPECT_EQ(kept(), 2 * (MiB / 2 + kQueryBlock));
    expectNeighbours(
            found,
            searchOnCpu(base_, queries, kDims, 150),
            base_,
            queries,
            kDims,
            150);
}

TEST_F(ScarceGpuMemory, a_call_of_one_tile_is_cut_where_it_does_not_fit) {
    resources_.setTempMemory(2 * MiB);
    remake({});
    leave(2 * MiB);      // what Faiss computes with
    expectAnswers(3000); // 3.4 MiB of results, and as much within Faiss
    EXPECT_EQ(kept(), 0u);
    EXPECT_GT(counts().kernels, 2u);
}

TEST_F(ScarceGpuMemory, no_memory_at_all_is_said_and_survived) {
    resources_.noTempMemory();
    for (int64_t n : {kQueries, int64_t(10), int64_t(1)}) {
        remake({});
        leave(0);
        try {
            search(n);
            ADD_FAILURE() << "nothing thrown";
        } catch (const CudaError& e) {
            ADD_FAILURE() << e.what();
        } catch (const faiss::FaissException& e) {
            EXPECT_NE(
                    std::string(e.what()).find("alloc fail"),
                    std::string::npos);
        }
        EXPECT_EQ(cuda_sim_pending(), 0u);
        EXPECT_EQ(cudaGetLastError(), cudaSuccess);
        EXPECT_EQ(kept(), 0u);
        leaveEnough();
        expectAnswers();
    }
}

class ScarceFaissMemory
        : public ScarceGpuMemory,
          public ::testing::WithParamInterface<std::tuple<Memory, size_t>> {
   protected:
    /// Of a search with all arrays in the memory of the parameter, as many
    /// bytes of temporary memory, and `left` on the GPU; whether it answered.
    bool answers(int64_t n, size_t left) {
        const auto [memory, temporary] = GetParam();
        faiss::gpu::StandardGpuResources resources;
        resources.setTempMemory(temporary);
        GpuIndexFlatL2 index(&resources, kDims);
        index.add(150, base_.data());
        Array<float> queries(
                memory, {queries_.begin(), queries_.begin() + n * kDims});
        Array<float> distances(memory, n * kNearest);
        Array<int64_t> labels(memory, n * kNearest);
        leave(left);
        try {
            index.search(
                    n,
                    queries.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
        } catch (const CudaError& e) {
            ADD_FAILURE() << e.what();
            return false;
        } catch (const faiss::FaissException&) {
            leaveEnough();
            return false;
        }
        check(cudaDeviceSynchronize());
        leaveEnough();
        const auto distancesFound = distances.get();
        const auto labelsFound = labels.get();
        EXPECT_TRUE(std::equal(
                distancesFound.begin(),
                distancesFound.end(),
                oracle_.distances.begin()));
        EXPECT_TRUE(std::equal(
                labelsFound.begin(),
                labelsFound.end(),
                oracle_.labels.begin()));
        return true;
    }
};

TEST_P(ScarceFaissMemory, searches_many_queries_where_it_searches_one) {
    int answered = 0;
    for (size_t left = 0; left <= 3 * MiB; left += MiB / 2) {
        SCOPED_TRACE(std::to_string(left >> 10) + " KiB left");
        const bool one = answers(1, left);
        answered += one;
        for (int64_t n : {100, 500, 1000, 3000, 6000}) {
            EXPECT_EQ(answers(n, left), one) << n << " queries";
        }
    }
    EXPECT_GT(answered, 5);
}

INSTANTIATE_TEST_SUITE_P(
        All,
        ScarceFaissMemory,
        ::testing::Combine(
                ::testing::Values(Memory::Pageable, Memory::Device),
                ::testing::Values(0, MiB / 4, 2 * MiB)),
        [](const auto& info) {
            return std::string(nameOf(std::get<0>(info.param))) + "_" +
                   std::to_string(std::get<1>(info.param) >> 10) + "_KiB";
        });

TEST_F(ScarceGpuMemory, many_queries_need_no_more_than_one) {
    // In steps of what the simulator gives out.
    resources_.noTempMemory();
    for (size_t left = 0; left <= 48 << 10; left += 4096) {
        SCOPED_TRACE(std::to_string(left >> 10) + " KiB left");
        std::vector<bool> answered;
        for (int64_t n : {1, 10, 1000}) {
            remake({});
            leave(left);
            try {
                search(n);
                answered.push_back(true);
            } catch (const faiss::FaissException&) {
                answered.push_back(false);
            }
            leaveEnough();
        }
        EXPECT_EQ(answered, std::vector<bool>(3, answered[0]));
    }
}

TEST_F(ScarceGpuMemory, blocks_that_are_kept_make_room_for_faiss) {
    resources_.noTempMemory();
    TunedConfig config;
    config.tileRows = 1000;
    remake(config);
    search();
    EXPECT_GT(kept(), 0u);
    leave(0);
    expectAnswers();
}

TEST_F(ScarceGpuMemory, what_is_no_lack_of_memory_is_not_tried_again) {
    CallRunner runner(resources_.getResources(), 0, {});
    int attempts = 0;
    const auto run = [&](const auto& thrown) {
        std::vector<int> out(1000);
        attempts = 0;
        runRows(runner,
                out.size(),
                {},
                {{"out", out.data(), sizeof(int)}},
                [&](auto&, auto, auto, auto*, auto*) {
                    ++attempts;
                    throw thrown;
                });
    };
    EXPECT_THROW(run(Unsupported("nor is this")), Unsupported);
    EXPECT_EQ(attempts, 1);
    EXPECT_THROW(run(InvalidArray("nor this")), InvalidArray);
    EXPECT_EQ(attempts, 1);
    EXPECT_THROW(
            run(faiss::FaissException("who knows")), faiss::FaissException);
    EXPECT_EQ(attempts, 1);
    EXPECT_THROW(run(OutOfMemory("of one row too")), OutOfMemory);
    EXPECT_GT(attempts, 5);
}

TEST_F(ScarceGpuMemory, nothing_is_computed_side_by_side_at_another_attempt) {
    const auto resources = resources_.getResources();
    TunedConfig config;
    config.computeLanes = 3;
    CallRunner runner(resources, 0, config);
    std::vector<int> out(4096);
    bool scarce = true;
    std::set<int> usedAfterwards;
    ComputeNeeds needs;
    needs.laneBytes = 4096;
    needs.lanes = 3;
    const auto work = [&](auto& on, auto, auto rows, auto*, auto* outputs) {
        check(cudaMemsetAsync(outputs[0], 1, rows * sizeof(int), on.stream));
        if (scarce && on.lane >= 0) {
            scarce = false;
            throw OutOfMemory("no memory");
        }
        usedAfterwards.insert(on.lane);
    };
    const auto run = [&] {
        usedAfterwards.clear();
        runRows(runner,
                out.size(),
                {},
                {{"out", out.data(), sizeof(int)}},
                work,
                needs);
    };
    run();
    EXPECT_FALSE(scarce);
    EXPECT_EQ(usedAfterwards, std::set<int>{-1});
    EXPECT_EQ(out, std::vector<int>(out.size(), 0x01010101));
}

TEST_F(ScarceGpuMemory, a_profile_is_of_the_tiles_that_fitted) {
    resources_.setTempMemory(MiB);
    remake({});
    leave(MiB);
    found_.distances.assign(kQueries * kNearest, -1);
    found_.labels.assign(kQueries * kNearest, -2);
    const auto profile = index_->profile_search(
            kQueries,
            queries_.data(),
            kNearest,
            found_.distances.data(),
            found_.labels.data());
    EXPECT_TRUE(found_.distances == oracle_.distances);
    EXPECT_TRUE(found_.labels == oracle_.labels);
    EXPECT_GT(profile.tiles, 2);
    EXPECT_EQ(
            std::count_if(
                    profile.spans.begin(),
                    profile.spans.end(),
                    [](const auto& span) {
                        return span.stage == Stage::Compute;
                    }),
            profile.tiles);
}

TEST_F(ScarceGpuMemory, a_row_larger_than_the_smallest_tile_is_a_tile) {
    constexpr int kManyDims = 300000; // 1.2 MB a row
    constexpr int64_t kRows = 12;
    const auto vectors = randomVectors(kRows, kManyDims, 3);
    TunedConfig config;
    config.oneTileBytes = config.tileBytes = 4 * MiB;
    GpuIndexFlatL2 index(
            &resources_, kManyDims, faiss::gpu::GpuIndexFlatConfig(), config);
    index.add(kRows, vectors.data());
    std::vector<float> found(vectors.size());
    leave(0);
    index.reconstruct_n(0, kRows, found.data());
    EXPECT_TRUE(found == vectors);
    // Nor in Faiss' temporary memory.
    resources_.noTempMemory();
    leave(0);
    EXPECT_THROW(
            index.reconstruct_n(0, kRows, found.data()), faiss::FaissException);
    leaveEnough();
    index.reconstruct_n(0, kRows, found.data());
    EXPECT_TRUE(found == vectors);
}

TEST_F(ScarceGpuMemory, one_allocation_that_fails_is_evaded) {
    for (uint64_t nth = 1; nth <= 7; ++nth) {
        SCOPED_TRACE(nth);
        remake({});
        cuda_sim_fail_call("cudaMalloc", nth, cudaErrorMemoryAllocation);
        expectAnswers();
        cuda_sim_clear_faults();
        expectAnswers();
    }
}

TEST_F(ScarceGpuMemory, blocks_in_use_are_not_freed_for_others) {
    // Device results: nothing is waited for when they are short of blocks.
    cuda_sim_set_free_policy(2);
    TunedConfig config;
    config.tileRows = 1000;
    remake(config);
    Array<float> queries(Memory::Pinned, queries_);
    Array<float> distances(Memory::Device, kQueries * kNearest);
    Array<int64_t> labels(Memory::Device, kQueries * kNearest);
    liveBefore_ = counts().live_device_bytes;
    const auto toDevice = [&] {
        index_->search(
                kQueries,
                queries.data(),
                kNearest,
                distances.data(),
                labels.data());
    };
    toDevice();
    leave(100000);
    toDevice();
    search();
    EXPECT_EQ(found_.distances, distances.get());
    EXPECT_EQ(found_.labels, labels.get());
}

} // namespace
