// An index on one GPU, arrays and streams of another.

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/StreamOrder.h>
#include <faiss_ext/gpu/index/BruteForce.h>
#include <faiss_ext/gpu/index/GpuCloner.h>
#include <faiss_ext/gpu/index/IndexShards.h>

#include <faiss/IndexFlat.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexShards.h>

#include <chrono>
#include <limits>
#include <set>
#include <string>
#include <thread>
#include <tuple>

#include "support/Calls.h"
#include "support/FlatIndexFixture.h"
#include "support/GpuTest.h"

namespace {

using faiss_ext::gpu::DeviceGuard;
using faiss_ext::gpu::orderStreams;
using faiss_ext::gpu::Stage;
using namespace test;

class SeveralGpus : public FlatIndexFixture<TwoGpusTest> {
   protected:
    /// A stream of its GPU that no default stream waits for.
    class OwnStream {
       public:
        explicit OwnStream(int device) {
            const DeviceGuard current(device);
            check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
        }
        ~OwnStream() {
            EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
        }
        operator cudaStream_t() const {
            return stream_;
        }

       private:
        cudaStream_t stream_ = nullptr;
    };

    /// Holds up a stream: what is not put behind it is long done before. (The
    /// simulator is as late as possible anyway.)
    static void holdUp(cudaStream_t stream, int device) {
        const DeviceGuard current(device);
        const auto wait = [](void*) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        };
        check(cudaLaunchHostFunc(stream, wait, nullptr));
    }

    static void synchronizeBoth() {
        synchronize(0);
        synchronize(1);
    }

    template <typename T>
    static Array<T> onGpu(int device, const std::vector<T>& values) {
        auto array = FlatIndexFixture::onGpu<T>(device, values.size());
        array.set(values);
        return array;
    }
    using FlatIndexFixture::onGpu;
};

struct Way {
    const char* name;
    size_t queries;
    int64_t tileRows;
    int lanes;
};

constexpr Way kWays[] = {
        {"one_tile", 90, 0, 1},
        {"many_tiles", 90, 9, 1},
        {"lanes", 1600, 0, 4},
        {"many_tiles_on_lanes", 1600, 1100, 4}};

/// The GPUs of the index, the queries, the distances and the labels.
using Gpus = std::tuple<int, int, int, int>;

class EveryPlacement
        : public SeveralGpus,
          public ::testing::WithParamInterface<std::tuple<Gpus, Way>> {};

TEST_P(EveryPlacement, results_are_right_and_the_current_gpu_stays) {
    const auto& [gpus, way] = GetParam();
    const auto [here, x, d, l] = gpus;
    TunedConfig config;
    config.tileRows = way.tileRows;
    config.computeLanes = way.lanes;
    auto index = makeIndex(config, here);
    const auto values = randomVectors(way.queries, kDims, 3);
    const auto oracle = searchOnCpu(base_, values, kDims, kNearest);
    const size_t results = way.queries * kNearest;
    auto queries = onGpu(x, values);
    auto distances = onGpu<float>(d, results);
    auto labels = onGpu<int64_t>(l, results);
    // Twice: the second time every buffer has been used before.
    for (int current : {0, 1}) {
        distances.set(std::vector<float>(results, -12345));
        labels.set(std::vector<int64_t>(results, -12345));
        index->resetTransferStats();
        {
            const DeviceGuard guard(current);
            index->search(
                    way.queries,
                    queries.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
            expectCurrent(current);
        }
        const auto stats = index->getTransferStats();
        EXPECT_TRUE(current == 0 || stats.hostWaits == 0);
        EXPECT_EQ(
                stats.bytesAcrossDevices,
                (x == here ? 0 : values.size() * sizeof(float)) +
                        (d == here ? 0 : results * sizeof(float)) +
                        (l == here ? 0 : results * sizeof(int64_t)));
        check(cudaStreamSynchronize(defaultStream(here)));
        expectNeighbours(
                {distances.get(), labels.get()},
                oracle,
                base_,
                values,
                kDims,
                kNearest);
    }
}

std::string nameOfPlacement(
        const ::testing::TestParamInfo<EveryPlacement::ParamType>& info) {
    const auto& [gpus, way] = info.param;
    const auto [index, x, distances, labels] = gpus;
    return "index_on_" + std::to_string(index) + "_x_on_" + std::to_string(x) +
           "_D_on_" + std::to_string(distances) + "_I_on_" +
           std::to_string(labels) + "_" + way.name;
}

INSTANTIATE_TEST_SUITE_P(
        All,
        EveryPlacement,
        ::testing::Combine(
                ::testing::Combine(
                        ::testing::Values(0, 1),
                        ::testing::Values(0, 1),
                        ::testing::Values(0, 1),
                        ::testing::Values(0, 1)),
                ::testing::ValuesIn(kWays)),
        nameOfPlacement);

TEST_F(SeveralGpus, host_results_are_complete_while_another_gpu_is_current) {
    // 1: no results that the kernels write there themselves.
    for (size_t mappedBytes : {0, 1}) {
        for (int device : {0, 1}) {
            const DeviceGuard current(1 - device);
            for (int64_t tileRows : {0, 9}) {
                TunedConfig config;
                config.tileRows = tileRows;
                config.mappedBytes = mappedBytes;
                auto index = makeIndex(config, device);
                auto queries = onGpu(1 - device, queries_);
                for (Memory memory : {Memory::Pageable, Memory::Pinned}) {
                    Array<float> distances(
                            memory, std::vector<float>(kResults, -5));
                    Array<int64_t> labels(
                            memory, std::vector<int64_t>(kResults, -5));
                    search(*index,
                           queries.data(),
                           distances.data(),
                           labels.data());
                    expectRight({distances.peek(), labels.peek()});
                }
                searchAndExpectRight(*index);
                expectCurrent(1 - device);
            }
        }
    }
}

TEST_F(SeveralGpus, packed_results_are_complete_while_another_gpu_is_current) {
    for (int device : {0, 1}) {
        const DeviceGuard current(1 - device);
        for (int64_t tileRows : {0, 9}) {
            auto index = makeIndex(tileRows, device);
            auto queries = onGpu(1 - device, queries_);
            // Labels, then distances.
            Array<char> block(Memory::Pinned, kResults * 12);
            searchPacked(
                    *index, kQueries, queries.data(), kNearest, block.data());
            const auto* labels = reinterpret_cast<int64_t*>(block.data());
            const auto* distances =
                    reinterpret_cast<const float*>(labels + kResults);
            expectRight(
                    {{distances, distances + kResults},
                     {labels, labels + kResults}});
            expectCurrent(1 - device);
        }
    }
}

TEST_F(SeveralGpus, a_search_is_profiled_while_another_gpu_is_current) {
    for (int device : {0, 1}) {
        const int other = 1 - device;
        const DeviceGuard current(other);
        for (int64_t tileRows : {0, 9}) {
            auto index = makeIndex(tileRows, device);
            auto queries = onGpu(other, queries_);
            auto distances = onGpu<float>(other, kResults);
            auto labels = onGpu<int64_t>(other, kResults);
            const auto profile = index->profile_search(
                    kQueries,
                    queries.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
            expectCurrent(other);
            std::set<Stage> stages;
            for (const auto& span : profile.spans) {
                stages.insert(span.stage);
                EXPECT_LE(span.begin, span.end);
            }
            EXPECT_TRUE(stages.count(Stage::Compute));
            synchronizeBoth();
            expectRight({distances.get(), labels.get()});
        }
    }
}

TEST_F(SeveralGpus, a_stream_of_another_gpu_is_joined) {
    for (int device : {0, 1}) {
        const int other = 1 - device;
        const OwnStream own(other);
        // A stream of its own; the default stream, which each GPU has one of.
        for (cudaStream_t stream : {cudaStream_t(own), cudaStreamLegacy}) {
            for (int64_t tileRows : {0, 9}) {
                auto index = makeIndex(tileRows, device);
                auto source = onGpu(other, queries_);
                auto xs = onGpu<float>(other, queries_.size());
                auto distances = onGpu<float>(other, kResults);
                auto labels = onGpu<int64_t>(other, kResults);
                Array<int64_t> later(Memory::Pinned, kResults);

                holdUp(stream, other);
                copyOn(stream, other, xs, source, queries_.size());
                index->waitForStream(stream, other);
                search(*index, xs.data(), distances.data(), labels.data());
                expectCurrent(0);
                synchronizeBoth();
                expectRight({distances.get(), labels.get()});

                labels.set(std::vector<int64_t>(kResults, -5));
                holdUp(defaultStream(device), device);
                search(*index, xs.data(), distances.data(), labels.data());
                index->makeStreamWait(stream, other);
                expectCurrent(0);
                copyOn(stream, other, later, labels, kResults);
                synchronize(other);
                expectRight({distances.get(), later.peek()});
            }
        }
    }
}

TEST_F(SeveralGpus, the_legacy_streams_of_two_gpus_are_joined) {
    // Both have the same handle: which one is meant tells the current GPU.
    for (int earlier : {0, 1}) {
        const int later = 1 - earlier;
        auto source = onGpu(earlier, queries_);
        auto between = onGpu<float>(earlier, queries_.size());
        auto end = onGpu<float>(later, queries_.size());
        holdUp(cudaStreamLegacy, earlier);
        copyOn(cudaStreamLegacy, earlier, between, source, queries_.size());
        orderStreams(cudaStreamLegacy, earlier, cudaStreamLegacy, later);
        expectCurrent(0);
        copyOn(cudaStreamLegacy, later, end, between, queries_.size());
        synchronizeBoth();
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

TEST_F(SeveralGpus, an_index_is_filled_from_another_gpu) {
    for (int device : {0, 1}) {
        faiss::gpu::GpuIndexFlatConfig where;
        where.device = device;
        Index index(&resources(), kDims, where);
        auto vectors = onGpu(1 - device, base_);
        index.add(kVectors, vectors.data());
        expectCurrent(0);
        searchAndExpectRight(index);
    }
}

TEST_F(SeveralGpus, pinned_keys_are_looked_at_on_the_gpu_of_the_index) {
    auto index = makeIndex(0, 1);
    const std::vector<int64_t> keys = {3, -1, 0};
    Array<int64_t> pinned(Memory::Pinned, keys);
    std::vector<float> expected(keys.size() * kDims), found(expected.size());
    // The first call makes the event that is waited for.
    index->reconstruct_batch(keys.size(), pinned.data(), found.data());
    expectCurrent(0);
    index->reconstruct_batch(keys.size(), keys.data(), expected.data());
    expectCurrent(0);
    EXPECT_EQ(found, expected);
}

TEST_F(SeveralGpus, replicas_and_shards_lie_on_both) {
    faiss::IndexFlatL2 cpu(kDims);
    cpu.add(kVectors, base_.data());
    faiss::gpu::StandardGpuResources second;
    std::vector<faiss::gpu::GpuResourcesProvider*> providers{
            &resources(), &second};
    std::vector<int> devices{0, 1};
    for (bool shard : {false, true}) {
        faiss::gpu::GpuMultipleClonerOptions options;
        options.shard = shard;
        const std::unique_ptr<faiss::Index> both(
                faiss_ext::gpu::index_cpu_to_gpu_multiple(
                        providers, devices, &cpu, &options));
        for (int device : devices) {
            faiss::Index* part =
                    shard ? dynamic_cast<faiss::IndexShards&>(*both).at(device)
                          : dynamic_cast<faiss::IndexReplicas&>(*both).at(
                                    device);
            const auto* ours =
                    dynamic_cast<faiss_ext::gpu::GpuIndexFlat*>(part);
            ASSERT_TRUE(ours);
            EXPECT_EQ(ours->getDevice(), device);
        }
        searchAndExpectRight(*both);
        expectCurrent(0);
    }
}

TEST_F(SeveralGpus, an_index_is_changed_while_another_gpu_is_current) {
    const OwnStream own(1);
    // Each GPU has a legacy stream, and the same handle means both.
    for (cudaStream_t stream : {cudaStream_t(own), cudaStreamLegacy}) {
        auto index = makeIndex(0, 1);
        {
            const DeviceGuard there(1);
            resources().setDefaultStream(1, stream);
        }
        auto distances = onGpu<float>(1, kResults);
        auto labels = onGpu<int64_t>(1, kResults);
        holdUp(stream, 1);
        search(*index, queries_.data(), distances.data(), labels.data());
        index->reset();
        expectCurrent(0);
        {
            const DeviceGuard there(1);
            EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
        }
        expectRight({distances.get(), labels.get()});
        index.reset();
        const DeviceGuard there(1);
        resources().revertDefaultStream(1);
    }
}

TEST_F(SeveralGpus, an_index_is_destroyed_while_another_gpu_is_current) {
    auto index = makeIndex(9, 1);
    auto distances = onGpu<float>(1, kResults);
    auto labels = onGpu<int64_t>(1, kResults);
    holdUp(defaultStream(1), 1);
    search(*index, queries_.data(), distances.data(), labels.data());
    index.reset();
    expectCurrent(0);
    synchronize(1);
    expectRight({distances.get(), labels.get()});
}

TEST_F(SeveralGpus, brute_force_among_no_vectors) {
    Array<float> distances = onGpu<float>(1, kResults);
    Array<int64_t> labels = onGpu<int64_t>(0, kResults);
    faiss::gpu::GpuDistanceParams arguments;
    arguments.k = kNearest;
    arguments.dims = kDims;
    arguments.numQueries = kQueries;
    arguments.queries = queries_.data();
    arguments.outIndices = labels.data();
    const auto find = [&] {
        faiss_ext::gpu::bfKnn(&resources(), arguments);
        synchronize(0);
    };
    arguments.outDistances = distances.data();
    EXPECT_THROW(find(), faiss_ext::gpu::InvalidArray);
    arguments.outDistances = nullptr;
    EXPECT_THROW(find(), faiss_ext::gpu::InvalidArray);
    arguments.ignoreOutDistances = true;
    find();
    EXPECT_EQ(labels.get(), std::vector<int64_t>(kResults, -1));
}

TEST_F(SeveralGpus, shards_of_none_find_none) {
    for (bool successive : {false, true}) {
        const faiss_ext::gpu::IndexShards shards(kDims, false, successive);
        std::vector<float> distances(kResults);
        std::vector<int64_t> labels(kResults);
        const auto find = [&](int64_t k) {
            shards.search(
                    kQueries,
                    queries_.data(),
                    k,
                    distances.data(),
                    labels.data());
        };
        find(kNearest);
        EXPECT_EQ(labels, std::vector<int64_t>(kResults, -1));
        EXPECT_EQ(
                distances,
                std::vector<float>(
                        kResults, std::numeric_limits<float>::max()));
        EXPECT_THROW(find(0), faiss::FaissException);
    }
}

} // namespace
