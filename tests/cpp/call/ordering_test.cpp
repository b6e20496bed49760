// The ordering contract, line by line, proven by holding streams.

#include <faiss_ext/gpu/resources/DeviceBuffer.h>

#include <atomic>
#include <thread>

#include "support/FlatIndexTest.h"

namespace {

using namespace test;

using Ordering = FlatIndexTest;

TEST_F(Ordering, host_outputs_return_only_when_complete) {
    for (int64_t tile : {0, 9}) {
        auto index = makeIndex(tile);
        Neighbours found{
                std::vector<float>(kResults), std::vector<int64_t>(kResults)};
        cuda_sim_hold_stream(defaultStream());
        std::atomic<bool> returned{false};
        std::thread caller([&] {
            search(*index,
                   queries_.data(),
                   found.distances.data(),
                   found.labels.data());
            returned = true;
        });
        // It has got to its wait, which the hold cannot satisfy.
        while (hostWaits() == 0) {
            std::this_thread::yield();
        }
        EXPECT_FALSE(returned);
        cuda_sim_release_stream(defaultStream());
        caller.join();
        expectRight(found);
        cuda_sim_reset_counters();
    }
}

TEST_F(Ordering, device_outputs_return_at_once) {
    for (Memory x : kAllMemories) {
        for (int64_t tile : {0, 9}) {
            auto index = makeIndex(tile);
            auto xs = std::make_unique<Array<float>>(x, queries_);
            Array<float> distances(Memory::Device, kResults);
            Array<int64_t> labels(Memory::Device, kResults);
            cuda_sim_reset_counters();
            cuda_sim_hold_stream(defaultStream());
            search(*index, xs->data(), distances.data(), labels.data());
            EXPECT_GT(cuda_sim_pending(), 0u);
            EXPECT_EQ(hostWaits(), 0u) << nameOf(x);
            if (x == Memory::Pageable) {
                // Pageable queries have been read.
                std::fill_n(xs->data(), queries_.size(), -1000.f);
            }
            cuda_sim_release_stream(defaultStream());
            expectRight({distances.get(), labels.get()});
        }
    }
}

TEST_F(Ordering, device_results_come_before_later_work_of_the_default_stream) {
    for (int64_t tile : {0, 9}) {
        auto index = makeIndex(tile);
        Array<float> xs(Memory::Pageable, queries_);
        Array<float> distances(Memory::Device, kResults);
        Array<int64_t> labels(Memory::Device, kResults);
        Array<float> copiedDistances(Memory::Pinned, kResults);
        Array<int64_t> copiedLabels(Memory::Pinned, kResults);
        search(*index, xs.data(), distances.data(), labels.data());
        copyOn(defaultStream(), 0, copiedDistances, distances, kResults);
        copyOn(defaultStream(), 0, copiedLabels, labels, kResults);
        check(cudaStreamSynchronize(defaultStream()));
        expectRight({copiedDistances.peek(), copiedLabels.peek()});
    }
}

TEST_F(Ordering, queries_are_read_after_earlier_work_of_the_default_stream) {
    for (Memory x : {Memory::Pinned, Memory::Device}) {
        for (int64_t tile : {0, 9}) {
            auto index = makeIndex(tile);
            Array<float> source(Memory::Device, queries_);
            Array<float> xs(x, queries_.size());
            Neighbours found{
                    std::vector<float>(kResults),
                    std::vector<int64_t>(kResults)};
            copyOn(defaultStream(), 0, xs, source, queries_.size());
            search(*index,
                   xs.data(),
                   found.distances.data(),
                   found.labels.data());
            expectRight(found);
        }
    }
}

TEST_F(Ordering, a_producers_stream_is_joined_without_a_host_wait) {
    cudaStream_t producer;
    check(cudaStreamCreateWithFlags(&producer, cudaStreamNonBlocking));
    auto index = makeIndex(9);
    Array<float> source(Memory::Device, queries_);
    Array<float> xs(Memory::Device, queries_.size());
    Array<float> distances(Memory::Device, kResults);
    Array<int64_t> labels(Memory::Device, kResults);
    Array<int64_t> later(Memory::Pinned, kResults);
    cuda_sim_reset_counters();
    cuda_sim_hold_stream(producer);
    copyOn(producer, 0, xs, source, queries_.size());
    index->waitForStream(producer);
    search(*index, xs.data(), distances.data(), labels.data());
    index->makeStreamWait(producer);
    copyOn(producer, 0, later, labels, kResults);
    EXPECT_EQ(hostWaits(), 0u);
    cuda_sim_release_stream(producer);
    check(cudaStreamSynchronize(producer));
    expectRight({distances.get(), later.peek()});
    check(cudaStreamDestroy(producer));
}

TEST_F(Ordering, outputs_are_never_read) {
    // Uninitialised device outputs hold poison, which the simulator would
    // report if it were copied anywhere; so here only the bytes are counted.
    auto index = makeIndex(0);
    Array<float> xs(Memory::Device, queries_);
    std::vector<float> distances(kResults);
    std::vector<int64_t> labels(kResults);
    cuda_sim_reset_counters();
    search(*index, xs.data(), distances.data(), labels.data());
    EXPECT_EQ(bytesUp(), 0u);
}

TEST_F(Ordering, a_new_default_stream_is_followed) {
    auto index = makeIndex(9);
    cudaStream_t mine;
    check(cudaStreamCreateWithFlags(&mine, cudaStreamNonBlocking));
    searchAndExpectRight(*index);
    resources_->setDefaultStream(0, mine);
    searchAndExpectRight(*index);
    resources_->revertDefaultStream(0);
    searchAndExpectRight(*index);
    check(cudaStreamDestroy(mine));
}

TEST_F(Ordering, an_index_may_outlive_the_default_stream_that_was_set) {
    for (int device : {0, 1}) {
        const auto before = counts().live_device_bytes;
        resources_ = std::make_unique<faiss::gpu::StandardGpuResources>();
        check(cudaSetDevice(device));
        cudaStream_t mine;
        check(cudaStreamCreateWithFlags(&mine, cudaStreamNonBlocking));
        resources_->setDefaultStream(device, mine);
        check(cudaSetDevice(0));
        {
            auto index = makeIndex(9, device);
            searchAndExpectRight(*index);
            faiss_ext::gpu::DeviceBuffer buffer(
                    resources_->getResources(), device, 100);
            check(cudaStreamDestroy(mine));
        }
        resources_.reset();
        EXPECT_EQ(counts().live_device_bytes, before);
    }
}

TEST_F(Ordering, destroying_an_index_waits_for_its_searches) {
    for (int64_t tile : {0, 9}) {
        auto index = makeIndex(tile);
        Array<float> distances(Memory::Device, kResults);
        Array<int64_t> labels(Memory::Device, kResults);
        search(*index, queries_.data(), distances.data(), labels.data());
        index.reset();
        expectRight({distances.get(), labels.get()});
    }
}

TEST_F(Ordering, changing_an_index_comes_after_its_searches) {
    for (int64_t tile : {0, 9}) {
        auto index = makeIndex(tile);
        Array<float> distances(Memory::Device, kResults);
        Array<int64_t> labels(Memory::Device, kResults);
        search(*index, queries_.data(), distances.data(), labels.data());
        index->reset();
        index->add(50, randomVectors(50, kDims, 77).data());
        expectRight({distances.get(), labels.get()});
    }
}

TEST_F(Ordering, pinned_vectors_may_change_when_add_returns) {
    auto index = makeIndex(0);
    index->reset();
    Array<float> pinned(Memory::Pinned, base_);
    index->add(kVectors, pinned.data());
    std::fill_n(pinned.data(), base_.size(), 0.f);
    std::vector<float> stored(base_.size());
    index->reconstruct_n(0, kVectors, stored.data());
    EXPECT_EQ(stored, base_);
}

TEST_F(Ordering, many_threads_share_one_index) {
    auto index = makeIndex(9);
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            const auto queries = randomVectors(40, kDims, 100 + t);
            const auto oracle = searchOnCpu(base_, queries, kDims, kNearest);
            for (int round = 0; round < 5; ++round) {
                std::vector<float> distances(40 * kNearest);
                std::vector<int64_t> labels(40 * kNearest);
                index->search(
                        40,
                        queries.data(),
                        kNearest,
                        distances.data(),
                        labels.data());
                right += distances == oracle.distances;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(right, 40);
}

TEST_F(Ordering, two_indexes_on_one_resources_object_may_be_used_at_once) {
    auto first = makeIndex(9);
    auto second = makeIndex(0);
    std::vector<std::thread> threads;
    for (auto* index : {first.get(), second.get()}) {
        threads.emplace_back([this, index] {
            for (int round = 0; round < 10; ++round) {
                searchAndExpectRight(*index);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

} // namespace
