// An index on one GPU, arrays and streams of another.

#include <faiss_ext/gpu/GpuIndexFlat.h>

#include <faiss/gpu/StandardGpuResources.h>

#include <memory>
#include <thread>

#include "support/Arrays.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::StagedConfig;
using namespace test;

constexpr int kDims = 16;
constexpr int kNearest = 5;
constexpr size_t kQueries = 90;
constexpr size_t kResults = kQueries * kNearest;

/// Two GPUs; the test's thread has GPU 0 current.
class SeveralGpus : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        cuda_sim_set_device_count(2);
        check(cudaSetDevice(0));
        resources_ = std::make_unique<faiss::gpu::StandardGpuResources>();
    }

    void TearDown() override {
        resources_.reset();
        SimTest::TearDown();
    }

    std::unique_ptr<GpuIndexFlatL2> makeIndex(int device, int64_t tileRows) {
        faiss::gpu::GpuIndexFlatConfig where;
        where.device = device;
        StagedConfig config;
        config.tileRows = tileRows;
        auto index = std::make_unique<GpuIndexFlatL2>(
                resources_.get(), kDims, where, config);
        index->add(400, base_.data());
        expectCurrent(0);
        return index;
    }

    template <typename T>
    static Array<T> onGpu(int device, size_t size) {
        check(cudaSetDevice(device));
        Array<T> array(Memory::Device, size);
        check(cudaSetDevice(0));
        return array;
    }

    static void expectCurrent(int device) {
        int current = -1;
        check(cudaGetDevice(&current));
        EXPECT_EQ(current, device);
    }

    void expectRight(const Neighbours& found) {
        expectNeighbours(found, oracle_, base_, queries_, kDims, kNearest);
    }

    std::unique_ptr<faiss::gpu::StandardGpuResources> resources_;
    const std::vector<float> base_ = randomVectors(400, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    const Neighbours oracle_ = searchOnCpu(base_, queries_, kDims, kNearest);
};

TEST_F(SeveralGpus, arrays_may_lie_on_another_gpu_and_the_current_one_stays) {
    for (int device : {0, 1}) {
        for (int64_t tileRows : {0, 9}) {
            auto index = makeIndex(device, tileRows);
            for (int x : {0, 1}) {
                for (int out : {0, 1}) {
                    auto queries = onGpu<float>(x, queries_.size());
                    queries.set(queries_);
                    auto distances = onGpu<float>(out, kResults);
                    auto labels = onGpu<int64_t>(1 - out, kResults);
                    index->search(
                            kQueries,
                            queries.data(),
                            kNearest,
                            distances.data(),
                            labels.data());
                    expectCurrent(0);
                    check(cudaStreamSynchronize(
                            resources_->getDefaultStream(device)));
                    expectRight({distances.get(), labels.get()});
                }
            }
            Neighbours found{
                    std::vector<float>(kResults),
                    std::vector<int64_t>(kResults)};
            index->search(
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
    auto index = makeIndex(0, 9);
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

        check(cudaSetDevice(1));
        check(cudaMemcpyAsync(
                xs.data(),
                source.data(),
                queries_.size() * 4,
                cudaMemcpyDefault,
                producer));
        check(cudaSetDevice(0));
        index->waitForStream(producer, 1);
        index->search(
                kQueries, xs.data(), kNearest, distances.data(), labels.data());
        index->makeStreamWait(producer, 1);
        expectCurrent(0);
        check(cudaSetDevice(1));
        check(cudaMemcpyAsync(
                later.data(),
                labels.data(),
                kResults * 8,
                cudaMemcpyDefault,
                producer));
        check(cudaStreamSynchronize(producer));
        check(cudaSetDevice(0));
        expectRight({distances.get(), later.peek()});
    }
    check(cudaStreamDestroy(own));
}

TEST_F(SeveralGpus, indexes_on_two_gpus_share_one_resources_object) {
    auto first = makeIndex(0, 9);
    auto second = makeIndex(1, 9);
    std::vector<std::thread> threads;
    for (GpuIndexFlatL2* index : {first.get(), second.get()}) {
        threads.emplace_back([this, index] {
            for (int round = 0; round < 10; ++round) {
                Neighbours found{
                        std::vector<float>(kResults),
                        std::vector<int64_t>(kResults)};
                index->search(
                        kQueries,
                        queries_.data(),
                        kNearest,
                        found.distances.data(),
                        found.labels.data());
                expectRight(found);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

TEST_F(SeveralGpus, an_index_is_destroyed_while_another_gpu_is_current) {
    auto index = makeIndex(1, 9);
    auto distances = onGpu<float>(1, kResults);
    auto labels = onGpu<int64_t>(1, kResults);
    index->search(
            kQueries,
            queries_.data(),
            kNearest,
            distances.data(),
            labels.data());
    index.reset();
    expectCurrent(0);
    check(cudaSetDevice(1));
    check(cudaDeviceSynchronize());
    check(cudaSetDevice(0));
    expectRight({distances.get(), labels.get()});
}

} // namespace
