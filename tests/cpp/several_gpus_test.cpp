// An index on one GPU, arrays and streams of another.

#include <thread>

#include "support/FlatIndexTest.h"

namespace {

using namespace test;

using SeveralGpus = FlatIndexTest;

TEST_F(SeveralGpus, arrays_may_lie_on_another_gpu_and_the_current_one_stays) {
    for (int device : {0, 1}) {
        for (int64_t tileRows : {0, 9}) {
            auto index = makeIndex(tileRows, device);
            for (int x : {0, 1}) {
                for (int out : {0, 1}) {
                    auto queries = onGpu<float>(x, queries_.size());
                    queries.set(queries_);
                    auto distances = onGpu<float>(out, kResults);
                    auto labels = onGpu<int64_t>(1 - out, kResults);
                    search(*index,
                           queries.data(),
                           distances.data(),
                           labels.data());
                    expectCurrent(0);
                    check(cudaStreamSynchronize(defaultStream(device)));
                    expectRight({distances.get(), labels.get()});
                }
            }
            searchAndExpectRight(*index);
            expectCurrent(0);
            Neighbours found{
                    std::vector<float>(kResults),
                    std::vector<int64_t>(kResults)};
            index->profile_search(
                    kQueries,
                    queries_.data(),
                    kNearest,
                    found.distances.data(),
                    found.labels.data());
            expectRight(found);
            expectCurrent(0);
        }
    }
}

TEST_F(SeveralGpus, a_producers_stream_of_another_gpu_is_joined) {
    auto index = makeIndex(9);
    check(cudaSetDevice(1));
    cudaStream_t own;
    check(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
    check(cudaSetDevice(0));
    // A stream of its own; the default stream, which each GPU has one of.
    for (cudaStream_t producer : {own, cudaStreamLegacy}) {
        auto source = onGpu<float>(1, queries_.size());
        source.set(queries_);
        auto xs = onGpu<float>(1, queries_.size());
        auto distances = onGpu<float>(1, kResults);
        auto labels = onGpu<int64_t>(1, kResults);
        Array<int64_t> later(Memory::Pinned, kResults);

        copyOn(producer, 1, xs, source, queries_.size());
        index->waitForStream(producer, 1);
        search(*index, xs.data(), distances.data(), labels.data());
        index->makeStreamWait(producer, 1);
        expectCurrent(0);
        copyOn(producer, 1, later, labels, kResults);
        check(cudaSetDevice(1));
        check(cudaStreamSynchronize(producer));
        check(cudaSetDevice(0));
        expectRight({distances.get(), later.peek()});
    }
    check(cudaStreamDestroy(own));
}

TEST_F(SeveralGpus, the_legacy_streams_of_two_gpus_are_joined) {
    // Both have the same handle: which one is meant tells the current GPU.
    for (int earlier : {0, 1}) {
        const int later = 1 - earlier;
        auto source = onGpu<float>(earlier, queries_.size());
        source.set(queries_);
        auto between = onGpu<float>(earlier, queries_.size());
        auto end = onGpu<float>(later, queries_.size());
        copyOn(cudaStreamLegacy, earlier, between, source, queries_.size());
        faiss_ext::gpu::orderStreams(
                cudaStreamLegacy, earlier, cudaStreamLegacy, later);
        expectCurrent(0);
        copyOn(cudaStreamLegacy, later, end, between, queries_.size());
        synchronize(later);
        EXPECT_EQ(end.get(), queries_);
    }
}

TEST_F(SeveralGpus, indexes_on_two_gpus_share_one_resources_object) {
    auto first = makeIndex(9, 0);
    auto second = makeIndex(9, 1);
    std::vector<std::thread> threads;
    for (Index* index : {first.get(), second.get()}) {
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

TEST_F(SeveralGpus, an_index_is_changed_while_another_gpu_is_current) {
    cudaStream_t own;
    check(cudaSetDevice(1));
    check(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking));
    check(cudaSetDevice(0));
    // Each GPU has a legacy stream, and the same handle means both.
    for (cudaStream_t stream : {own, cudaStreamLegacy}) {
        auto index = makeIndex(0, 1);
        check(cudaSetDevice(1));
        resources_->setDefaultStream(1, stream);
        check(cudaSetDevice(0));
        auto distances = onGpu<float>(1, kResults);
        auto labels = onGpu<int64_t>(1, kResults);
        search(*index, queries_.data(), distances.data(), labels.data());
        EXPECT_GT(cuda_sim_pending(), 0u);
        index->reset();
        EXPECT_EQ(cuda_sim_pending(), 0u);
        expectCurrent(0);
        expectRight({distances.get(), labels.get()});
        check(cudaSetDevice(1));
        resources_->revertDefaultStream(1);
        check(cudaSetDevice(0));
    }
    check(cudaStreamDestroy(own));
}

TEST_F(SeveralGpus, an_index_is_destroyed_while_another_gpu_is_current) {
    auto index = makeIndex(9, 1);
    auto distances = onGpu<float>(1, kResults);
    auto labels = onGpu<int64_t>(1, kResults);
    search(*index, queries_.data(), distances.data(), labels.data());
    index.reset();
    expectCurrent(0);
    synchronize(1);
    expectRight({distances.get(), labels.get()});
}

} // namespace
