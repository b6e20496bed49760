// The memory that a pipeline keeps from call to call: how it grows, and when it
// is freed.

#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/host/PinnedBlock.h>

#include <memory>
#include <numeric>
#include <vector>

#include "support/Calls.h"
#include "support/FlatIndexTest.h"

namespace {

using faiss_ext::gpu::PinnedBlock;
using faiss_ext::gpu::PinnedBlockPool;
using namespace test;

class StagingMemory : public FlatIndexTest {
   protected:
    /// Device results of the first n queries; the work is left in flight.
    void leaveInFlight(const Index& index, int64_t n) {
        index.search(
                n,
                queries_.data(),
                kNearest,
                distances_->data(),
                labels_->data());
        EXPECT_GT(cuda_sim_pending(), 0u);
    }

    void resultsOn(int device) {
        distances_ =
                std::make_unique<Array<float>>(onGpu<float>(device, kResults));
        labels_ = std::make_unique<Array<int64_t>>(
                onGpu<int64_t>(device, kResults));
    }

    void TearDown() override {
        distances_.reset();
        labels_.reset();
        FlatIndexTest::TearDown();
    }

    std::unique_ptr<Array<float>> distances_;
    std::unique_ptr<Array<int64_t>> labels_;
};

// Resources other than Faiss' own need not wait when they are given memory
// back, as cudaFree does.
constexpr int kFreeingNeverWaits = 2;

TEST_F(StagingMemory, is_not_freed_in_use_when_it_grows) {
    for (int device : {0, 1}) {
        auto index = makeIndex(15, device);
        resultsOn(device);
        cuda_sim_set_free_policy(kFreeingNeverWaits);
        // Tiles of 10 rows, then of 15.
        for (int64_t n : {20, 90}) {
            leaveInFlight(*index, n);
        }
        synchronize(device);
        cuda_sim_set_free_policy(0);
    }
}

TEST_F(StagingMemory, is_not_freed_in_use_when_its_index_is_destroyed) {
    for (int device : {0, 1}) {
        auto index = makeIndex(15, device);
        resultsOn(device);
        cuda_sim_set_free_policy(kFreeingNeverWaits);
        leaveInFlight(*index, 90);
        index.reset();
        cuda_sim_set_free_policy(0);
        synchronize(device);
        expectRight({distances_->get(), labels_->get()});
    }
}

TEST_F(StagingMemory, makes_room_once_nothing_uses_it) {
    // Blocks for queries are freed for those for results, and the other way
    // round.
    auto index = makeIndex(15);
    resultsOn(0);
    Array<float> onDevice(Memory::Device, queries_);
    Neighbours found{
            std::vector<float>(kResults), std::vector<int64_t>(kResults)};
    leaveInFlight(*index, 90);
    cuda_sim_set_free_policy(kFreeingNeverWaits);
    cuda_sim_set_device_memory(counts().live_device_bytes);
    for (int round = 0; round < 2; ++round) {
        index->resetTransferStats();
        search(*index,
               onDevice.data(),
               found.distances.data(),
               found.labels.data());
        expectRight(found);
        EXPECT_EQ(index->getTransferStats().deviceAllocations, 3u);
        index->resetTransferStats();
        leaveInFlight(*index, 90);
        EXPECT_EQ(index->getTransferStats().deviceAllocations, 3u);
    }
    synchronize(0);
    cuda_sim_set_free_policy(0);
    expectRight({distances_->get(), labels_->get()});
}

TEST_F(StagingMemory, of_many_queries_holds_them_where_they_are_said_to_be) {
    constexpr int64_t kRows = 3000;
    constexpr size_t kRowBytes = 300;
    std::vector<char> rows(kRows * kRowBytes);
    std::iota(rows.begin(), rows.end(), char(0));
    for (int64_t tileRows : {int64_t(0), kRows / 3}) {
        for (Memory memory : {Memory::Pageable, Memory::Pinned}) {
            TunedConfig config;
            config.tileRows = tileRows;
            CallRunner runner(resources_->getResources(), 0, config);
            Array<char> in(memory, rows);
            Array<char> out(Memory::Pageable, rows.size());
            runRows(runner,
                    kRows,
                    {{"in", in.data(), kRowBytes}},
                    {{"out", out.data(), kRowBytes}},
                    [&](auto& on, auto, auto count, auto* from, auto* to) {
                        check(cudaMemcpyAsync(
                                to[0],
                                from[0],
                                count * kRowBytes,
                                cudaMemcpyDeviceToDevice,
                                on.stream));
                    });
            EXPECT_TRUE(out.get() == rows) << nameOf(memory) << tileRows;
        }
    }
}

TEST_F(StagingMemory, is_freed_before_it_grows) {
    TunedConfig config;
    config.tileRows = 2;
    CallRunner runner(resources_->getResources(), 0, config);
    // Two tiles, each of one bucket.
    const size_t bucket = size_t(1) << 20;
    const auto runWith = [&](size_t rowBytes) {
        const std::vector<char> rows(4 * rowBytes);
        runRows(runner,
                4,
                {{"rows", rows.data(), rowBytes}},
                {},
                [](auto&, auto, auto, auto*, auto*) {});
    };
    runWith(bucket / 2);
    const uint64_t before = counts().live_device_bytes;
    cuda_sim_reset_counters();
    runWith(bucket);
    EXPECT_EQ(counts().live_device_bytes, before + 2 * bucket);
    EXPECT_EQ(counts().peak_device_bytes, before + 2 * bucket);
    EXPECT_EQ(runner.counters().snapshot().deviceAllocations, 4u);
}

TEST_F(StagingMemory, keeps_what_it_was_allocated_from) {
    auto own = std::make_unique<faiss::gpu::StandardGpuResources>();
    std::weak_ptr<faiss::gpu::GpuResources> resources = own->getResources();
    {
        CallRunner runner(own->getResources(), 0, TunedConfig());
        own.reset();
        EXPECT_FALSE(resources.expired());
    }
    EXPECT_TRUE(resources.expired());

    // For ever where the GPU is lost: Faiss would abort the process when it
    // could not free.
    own = std::make_unique<faiss::gpu::StandardGpuResources>();
    resources = own->getResources();
    own->getDefaultStream(0);
    Array<char> memory(Memory::Device, 64);
    {
        CallRunner runner(own->getResources(), 0, TunedConfig());
        own.reset();
        cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
        check(cudaMemsetAsync(memory.data(), 0, 64, nullptr));
        EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
    }
    EXPECT_FALSE(resources.expired());
    check(cudaDeviceReset());

    auto pool = std::make_shared<PinnedBlockPool>(4096);
    std::weak_ptr<PinnedBlockPool> blocks = pool;
    {
        auto block = PinnedBlock::tryMake(pool, 100);
        EXPECT_EQ(PinnedBlock::tryMake(pool, 100), nullptr);
        pool.reset();
        EXPECT_FALSE(blocks.expired());
    }
    EXPECT_TRUE(blocks.expired());
}

} // namespace
