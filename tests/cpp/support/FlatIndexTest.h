#pragma once

// The fixture of tests that search a flat index and look into the simulator.

#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/GpuIndexFlat.h>

#include <memory>
#include <vector>

#include "Arrays.h"
#include "Neighbours.h"
#include "SimTest.h"

namespace test {

/// Two GPUs, of which the test's thread has GPU 0 current; vectors, queries,
/// and what Faiss finds on the CPU.
class FlatIndexTest : public SimTest {
   protected:
    using Index = faiss_ext::gpu::GpuIndexFlatL2;

    static constexpr int kDims = 16;
    static constexpr int kNearest = 5;
    static constexpr size_t kVectors = 400;
    static constexpr size_t kQueries = 90;
    static constexpr size_t kResults = kQueries * kNearest;

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

    /// Of the vectors, on a GPU; tileRows 0: the queries are one tile.
    std::unique_ptr<Index> makeIndex(int64_t tileRows, int device = 0) {
        faiss::gpu::GpuIndexFlatConfig where;
        where.device = device;
        faiss_ext::gpu::StagedConfig config;
        config.tileRows = tileRows;
        auto index =
                std::make_unique<Index>(resources_.get(), kDims, where, config);
        index->add(kVectors, base_.data());
        expectCurrent(0);
        synchronize(device);
        return index;
    }

    cudaStream_t defaultStream(int device = 0) {
        return resources_->getDefaultStream(device);
    }

    static void search(
            const Index& index,
            const float* queries,
            float* distances,
            int64_t* labels) {
        index.search(kQueries, queries, kNearest, distances, labels);
    }

    /// The queries in pageable memory, and so the results.
    void searchAndExpectRight(const Index& index) {
        Neighbours found{
                std::vector<float>(kResults),
                std::vector<int64_t>(kResults, -5)};
        search(index,
               queries_.data(),
               found.distances.data(),
               found.labels.data());
        expectRight(found);
    }

    void expectRight(const Neighbours& found) {
        expectNeighbours(found, oracle_, base_, queries_, kDims, kNearest);
    }

    template <typename T>
    static Array<T> onGpu(int device, size_t size) {
        check(cudaSetDevice(device));
        Array<T> array(Memory::Device, size);
        check(cudaSetDevice(0));
        return array;
    }

    /// `from` to `to` in the order of `stream`, which may be a default stream
    /// of that GPU.
    template <typename T>
    static void copyOn(
            cudaStream_t stream,
            int device,
            Array<T>& to,
            Array<T>& from,
            size_t size) {
        check(cudaSetDevice(device));
        check(cudaMemcpyAsync(
                to.data(),
                from.data(),
                size * sizeof(T),
                cudaMemcpyDefault,
                stream));
        check(cudaSetDevice(0));
    }

    static void synchronize(int device) {
        check(cudaSetDevice(device));
        check(cudaDeviceSynchronize());
        check(cudaSetDevice(0));
    }

    std::unique_ptr<faiss::gpu::StandardGpuResources> resources_;
    const std::vector<float> base_ = randomVectors(kVectors, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    const Neighbours oracle_ = searchOnCpu(base_, queries_, kDims, kNearest);
};

} // namespace test
