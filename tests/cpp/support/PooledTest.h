#pragma once

// The fixture of tests of PooledGpuResources: a pool that is watched, vectors,
// and what is near them.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <memory>
#include <vector>

#include "Arrays.h"
#include "CachingPool.h"
#include "Neighbours.h"
#include "SimTest.h"

namespace test {

using faiss::gpu::AllocRequest;
using faiss::gpu::AllocType;
using faiss::gpu::MemorySpace;
using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::PooledGpuResources;

constexpr int kDims = 8;
constexpr int kNearest = 4;
constexpr size_t kQueries = 60;
constexpr size_t kResults = kQueries * kNearest;

/// Each test must end with all memory back in the pool.
class PooledTest : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        cuda_sim_set_device_count(2);
        check(cudaSetDevice(0));
        pool_ = std::make_shared<CachingPool>();
        pooled_ = std::make_unique<PooledGpuResources>(pool_);
        pooled_->setPinnedMemory(1 << 16);
    }

    void TearDown() override {
        pooled_.reset();
        EXPECT_EQ(pool_->bytesInUse(), 0u);
        EXPECT_EQ(pool_->wronglyGivenBack(), 0);
        EXPECT_EQ(pool_.use_count(), 1) << "somebody holds the pool";
        pool_.reset();
        SimTest::TearDown();
    }

    std::unique_ptr<GpuIndexFlatL2> makeIndex(int device = 0) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.device = device;
        auto index =
                std::make_unique<GpuIndexFlatL2>(pooled_.get(), kDims, config);
        index->add(base_.size() / kDims, base_.data());
        return index;
    }

    void expectAnswers(const faiss::gpu::GpuIndexFlatL2& index) {
        Neighbours found{
                std::vector<float>(kResults), std::vector<int64_t>(kResults)};
        index.search(
                kQueries,
                queries_.data(),
                kNearest,
                found.distances.data(),
                found.labels.data());
        check(cudaDeviceSynchronize());
        expectNeighbours(found, oracle_, base_, queries_, kDims, kNearest);
    }

    /// Bytes in use on the GPU, as the resources tell.
    size_t told(int device = 0) const {
        auto info = pooled_->getMemoryInfo();
        size_t sum = 0;
        for (const auto& [type, use] : info[device]) {
            sum += use.second;
        }
        return sum;
    }

    AllocRequest request(
            MemorySpace space,
            size_t bytes,
            cudaStream_t stream,
            int device = 0) {
        return {AllocType::Other, device, space, stream, bytes};
    }

    void* allocate(MemorySpace space, size_t bytes, cudaStream_t stream) {
        return pooled_->getResources()->allocMemory(
                request(space, bytes, stream));
    }

    void giveBack(void* memory, int device = 0) {
        pooled_->getResources()->deallocMemory(device, memory);
    }

    cudaStream_t defaultStream() {
        return pooled_->getDefaultStream(0);
    }

    std::shared_ptr<CachingPool> pool_;
    std::unique_ptr<PooledGpuResources> pooled_;
    const std::vector<float> base_ = randomVectors(300, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    const Neighbours oracle_ = searchOnCpu(base_, queries_, kDims, kNearest);
};

} // namespace test
