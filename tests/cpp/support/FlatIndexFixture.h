#pragma once

// What tests that search a flat index share; portable between the simulator and
// a GPU.

#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <memory>
#include <vector>

#include "Arrays.h"
#include "Calls.h"
#include "Neighbours.h"

namespace test {

/// Vectors, queries, and what Faiss finds on the CPU. `Gpus` is the fixture
/// that has the GPUs, and gives Faiss' resources of them by `resources()`. What
/// takes a GPU leaves the current one as it is.
template <typename Gpus>
class FlatIndexFixture : public Gpus {
   protected:
    using Index = faiss_ext::gpu::GpuIndexFlatL2;

    static constexpr int kDims = 16;
    static constexpr int kNearest = 5;
    static constexpr size_t kVectors = 400;
    static constexpr size_t kQueries = 90;
    static constexpr size_t kResults = kQueries * kNearest;

    /// Of the vectors, on a GPU; tileRows 0: the queries are one tile.
    std::unique_ptr<Index> makeIndex(int64_t tileRows, int device = 0) {
        TunedConfig config;
        config.tileRows = tileRows;
        return makeIndex(config, device);
    }

    std::unique_ptr<Index> makeIndex(const TunedConfig& config, int device) {
        faiss::gpu::GpuIndexFlatConfig where;
        where.device = device;
        auto index = std::make_unique<Index>(
                &this->resources(), kDims, where, config);
        index->add(kVectors, base_.data());
        synchronize(device);
        return index;
    }

    cudaStream_t defaultStream(int device = 0) {
        return this->resources().getDefaultStream(device);
    }

    static void search(
            const Index& index,
            const float* queries,
            float* distances,
            int64_t* labels) {
        index.search(kQueries, queries, kNearest, distances, labels);
    }

    /// The queries in pageable memory, and so the results.
    void searchAndExpectRight(const faiss::Index& index) {
        Neighbours found{
                std::vector<float>(kResults),
                std::vector<int64_t>(kResults, -5)};
        index.search(
                kQueries,
                queries_.data(),
                kNearest,
                found.distances.data(),
                found.labels.data());
        expectRight(found);
    }

    void expectRight(const Neighbours& found) {
        expectNeighbours(found, oracle_, base_, queries_, kDims, kNearest);
    }

    template <typename T>
    static Array<T> onGpu(int device, size_t size) {
        const faiss_ext::gpu::DeviceGuard current(device);
        return Array<T>(Memory::Device, size);
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
        const faiss_ext::gpu::DeviceGuard current(device);
        check(cudaMemcpyAsync(
                to.data(),
                from.data(),
                size * sizeof(T),
                cudaMemcpyDefault,
                stream));
    }

    static void synchronize(int device) {
        const faiss_ext::gpu::DeviceGuard current(device);
        check(cudaDeviceSynchronize());
    }

    const std::vector<float> base_ = randomVectors(kVectors, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    const Neighbours oracle_ = searchOnCpu(base_, queries_, kDims, kNearest);
};

} // namespace test
