// What the exact engine enqueues, keeps and waits for; mistakes of its kernels
// that its results survive; and its self-test. The stand-ins of the kernels
// check what is read and written.

#include <cuda_sim_exact.h>
#include <faiss/IndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/compute/SearchChoice.h>
#include <faiss_ext/gpu/compute/TensorCoreSelfTest.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "support/Arrays.h"
#include "support/CachingPool.h"
#include "support/Calls.h"
#include "support/ExactNeighbours.h"
#include "support/Interrupting.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::rememberSelfTest;
using namespace test;

constexpr int kDims = 5;
constexpr int kNearest = 3;
constexpr size_t kVectors = 300;
constexpr size_t kQueries = 10;

std::vector<float> uniform(size_t rows, int d, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> unit(-1, 1);
    std::vector<float> made(rows * d);
    for (float& value : made) {
        value = unit(random);
    }
    return made;
}

class ExactEngine : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        cuda_sim_set_exact_faults(nullptr);
        rememberSelfTest(0, true);
        resources_.setTempMemory(size_t(16) << 20);
    }

    void TearDown() override {
        index_.reset();
        cuda_sim_set_exact_faults(nullptr);
        SimTest::TearDown();
    }

    /// 300 vectors are three chunks, ten queries two tiles.
    static TunedConfig small() {
        TunedConfig config;
        config.search = "exact";
        config.exactVectors = 128;
        config.exactQueries = 5;
        config.exactSurvivors = 20;
        return config;
    }

    void make(
            const TunedConfig& config = small(),
            int d = kDims,
            bool float16 = false,
            faiss::MetricType metric = faiss::METRIC_L2) {
        faiss::gpu::GpuIndexFlatConfig storage;
        storage.useFloat16 = float16;
        base_ = asStored(uniform(kVectors, d, 1), float16);
        queries_ = uniform(kQueries, d, 2);
        index_ = std::make_unique<GpuIndexFlat>(
                &resources_, d, metric, storage, config);
        index_->add(kVectors, base_.data());
    }

    /// Queries and their results, on the GPU.
    struct GpuArrays {
        explicit GpuArrays(const std::vector<float>& queries)
                : x(Memory::Device, queries) {}

        void search(const GpuIndexFlat& index) {
            index.search(
                    kQueries,
                    x.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
        }

        Neighbours found() const {
            return {distances.get(), labels.get()};
        }

        Array<float> x;
        Array<float> distances{Memory::Device, kQueries* kNearest};
        Array<int64_t> labels{Memory::Device, kQueries* kNearest};
    };

    Neighbours search() {
        Neighbours found{
                std::vector<float>(kQueries * kNearest),
                std::vector<int64_t>(kQueries * kNearest)};
        index_->search(
                kQueries,
                queries_.data(),
                kNearest,
                found.distances.data(),
                found.labels.data());
        return found;
    }

    void expectRight(const Neighbours& found) {
        expectRight(found, index_->d, index_->metric_type);
    }

    void expectRight(const Neighbours& found, int d, faiss::MetricType metric) {
        expectSameBits(
                found,
                searchExactly(base_, queries_, d, kNearest, metric),
                kNearest);
    }

    void searchAndExpectRight() {
        expectRight(search());
    }

    faiss_ext::gpu::TransferStats stats() {
        return index_->getTransferStats();
    }

    static uint64_t launches(const char* kernel) {
        return cuda_sim_calls((std::string("kernel:") + kernel).c_str());
    }

    faiss::gpu::StandardGpuResources resources_;
    std::unique_ptr<GpuIndexFlat> index_;
    std::vector<float> base_;
    std::vector<float> queries_;
};

TEST_F(ExactEngine, enqueues_each_step_of_each_tile_and_chunk) {
    make();
    searchAndExpectRight();
    cuda_sim_reset_counters();
    searchAndExpectRight();
    const std::map<std::string, uint64_t> expected{
            {"exactPrepareVectors", 0},
            {"exactPrepareQueries", 2},
            {"exactCopyVectors", 6},
            {"exactScores", 6},
            {"exactSampleCut", 2},
            {"exactFilter", 6},
            {"exactSelect", 6},
            {"exactFilterAgain", 6},
            {"exactSelectAgain", 6},
            {"exactCollectLast", 2},
            {"exactLosses", 6},
            {"exactSelectLosses", 6},
            {"exactWriteResults", 2}};
    for (const auto& [kernel, count] : expected) {
        EXPECT_EQ(launches(kernel.c_str()), count) << kernel;
    }
}

TEST_F(ExactEngine, a_single_chunk_is_scored_once) {
    TunedConfig config = small();
    config.exactVectors = 1000;
    make(config);
    searchAndExpectRight();
    EXPECT_EQ(launches("exactScores"), 2u);
    EXPECT_EQ(launches("exactCopyVectors"), 2u);
    EXPECT_EQ(launches("exactFilter"), 2u);
}

TEST_F(ExactEngine, float16_vectors_of_whole_loads_are_their_own_copies) {
    make(small(), 8, true);
    searchAndExpectRight();
    EXPECT_EQ(launches("exactCopyVectors"), 0u);
    make(small(), 5, true);
    cuda_sim_reset_counters();
    searchAndExpectRight();
    EXPECT_EQ(launches("exactCopyVectors"), 6u);
}

TEST_F(ExactEngine, in_steady_state_neither_waits_nor_allocates) {
    make();
    GpuArrays arrays(queries_);
    const auto search = [&] { arrays.search(*index_); };
    search();
    check(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    cuda_sim_hold_stream(resources_.getDefaultStream(0));
    search();
    EXPECT_EQ(hostWaits(), 0u);
    EXPECT_EQ(allocations(), 0u);
    EXPECT_EQ(counts().queries, 0u);
    EXPECT_EQ(stats().certifiedQueries, kQueries);
    cuda_sim_release_all();
    expectRight(arrays.found());
    EXPECT_EQ(stats().certifiedQueries, 2 * kQueries);
}

TEST_F(ExactEngine, its_fallbacks_do_not_wait_either) {
    make();
    searchAndExpectRight();
    cuda_sim_exact_faults wrong{};
    wrong.small_cuts = 1;
    cuda_sim_set_exact_faults(&wrong);
    GpuArrays arrays(queries_);
    cuda_sim_reset_counters();
    arrays.search(*index_);
    EXPECT_EQ(hostWaits(), 0u);
    expectRight(arrays.found());
    EXPECT_EQ(stats().lastPathQueries, kQueries);
}

TEST_F(ExactEngine, keeps_eight_bytes_a_vector_and_little_more) {
    make();
    check(cudaDeviceSynchronize());
    const size_t before = counts().live_device_bytes;
    searchAndExpectRight();
    const size_t kept = counts().live_device_bytes - before;
    EXPECT_GE(kept, 8 * kVectors);
    EXPECT_LE(kept, 8 * kVectors + 5 * 256);
    EXPECT_EQ(stats().deviceAllocations, 1u);
}

TEST_F(ExactEngine, in_a_pool_neither_waits_whatever_it_may_plan_with) {
    faiss_ext::gpu::PooledGpuResources pool(std::make_shared<CachingPool>());
    pool.noTempMemory();
    GpuIndexFlat index(
            &pool,
            kDims,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            small());
    base_ = uniform(kVectors, kDims, 1);
    queries_ = uniform(kQueries, kDims, 2);
    index.add(kVectors, base_.data());
    GpuArrays arrays(queries_);
    const auto search = [&] { arrays.search(index); };
    search();
    check(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    search();
    EXPECT_EQ(hostWaits(), 0u);
    expectRight(arrays.found(), kDims, faiss::METRIC_L2);
}

TEST_F(ExactEngine, tells_of_each_wait_for_memory_that_faiss_allocates) {
    resources_.setTempMemory(0);
    make();
    GpuArrays arrays(queries_);
    const auto search = [&] { arrays.search(*index_); };
    search();
    check(cudaDeviceSynchronize());
    index_->resetTransferStats();
    cuda_sim_reset_counters();
    search();
    // Asking, so in no call of CUDA, but for that to free, which waits by
    // itself.
    EXPECT_EQ(hostWaits() - counts().waits_free, 0u);
    EXPECT_EQ(stats().hostWaits, 1u);
    EXPECT_EQ(stats().deviceAllocations, 1u);
}

TEST_F(ExactEngine, can_be_interrupted_where_it_waits_to_free_memory) {
    resources_.setTempMemory(0);
    make();
    GpuArrays arrays(queries_);
    const cudaStream_t stream = resources_.getDefaultStream(0);
    // Before anything is kept, and after.
    for (int times = 0; times < 2; ++times) {
        check(cudaDeviceSynchronize());
        cuda_sim_hold_stream(stream);
        {
            Interrupting interrupting([&](int) {
                // What is under way is waited for before the call ends.
                cuda_sim_release_stream(stream);
                return true;
            });
            EXPECT_THROW(arrays.search(*index_), faiss_ext::gpu::Interrupted);
            EXPECT_TRUE(interrupting.fired());
            EXPECT_EQ(cuda_sim_pending(), 0u);
        }
        searchAndExpectRight();
    }
}

TEST_F(ExactEngine, keeps_memory_of_a_gpu_that_is_lost_after_an_interrupt) {
    // Which Faiss would abort on; so whether it is lost is asked once the work
    // that uses the memory is over.
    auto resources = std::make_unique<faiss::gpu::StandardGpuResources>();
    resources->setTempMemory(0);
    auto index = std::make_unique<GpuIndexFlat>(
            resources.get(),
            kDims,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            small());
    queries_ = uniform(kQueries, kDims, 2);
    index->add(kVectors, uniform(kVectors, kDims, 1).data());
    GpuArrays arrays(queries_);
    arrays.search(*index);
    const cudaStream_t stream = resources->getDefaultStream(0);
    check(cudaDeviceSynchronize());
    cuda_sim_hold_stream(stream);
    {
        Interrupting interrupting([&](int) {
            // The last one.
            cuda_sim_fail_operation(
                    cuda_sim_pending(), cudaErrorIllegalAddress);
            cuda_sim_release_stream(stream);
            return true;
        });
        EXPECT_ANY_THROW(arrays.search(*index));
        EXPECT_TRUE(interrupting.fired());
    }
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorIllegalAddress);
    index.reset();
    resources.reset();
    check(cudaDeviceReset());
}

TEST_F(ExactEngine, frees_nothing_that_an_index_left_to_others_may_use) {
    // Dropped while Faiss asks and another thread has the lock, an index waits
    // for nothing, and is kept.
    faiss::gpu::StandardGpuResources resources;
    auto index = std::make_unique<GpuIndexFlat>(
            &resources,
            kDims,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            small());
    base_ = uniform(kVectors, kDims, 1);
    queries_ = uniform(kQueries, kDims, 2);
    index->add(kVectors, base_.data());
    GpuArrays arrays(queries_);
    arrays.search(*index);
    check(cudaDeviceSynchronize());
    const cudaStream_t stream = resources.getDefaultStream(0);
    cuda_sim_hold_stream(stream);
    arrays.search(*index);
    const auto lock = faiss_ext::gpu::lockOf(resources.getResources().get());
    std::promise<void> dropped, held;
    std::thread holder([&] {
        const std::lock_guard<faiss_ext::gpu::ResourcesLock> guard(*lock);
        held.set_value();
        dropped.get_future().wait();
    });
    held.get_future().wait();
    const auto frees = [] {
        return cuda_sim_calls("cudaFree") + cuda_sim_calls("cudaFreeHost");
    };
    {
        const faiss_ext::gpu::Question ofFaiss;
        const uint64_t before = frees();
        index.reset();
        EXPECT_EQ(frees(), before);
    }
    dropped.set_value();
    holder.join();
    cuda_sim_release_stream(stream);
    expectRight(arrays.found(), kDims, faiss::METRIC_L2);
}

TEST_F(ExactEngine, can_be_interrupted_while_its_state_is_in_scratch_memory) {
    // Which the state alone does not fit into.
    make();
    GpuArrays arrays(queries_);
    const cudaStream_t stream = resources_.getDefaultStream(0);
    check(cudaDeviceSynchronize());
    resources_.setTempMemory(2048);
    cuda_sim_fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
    cuda_sim_hold_stream(stream);
    {
        Interrupting interrupting([&](int) {
            cuda_sim_release_stream(stream);
            return true;
        });
        EXPECT_THROW(arrays.search(*index_), faiss_ext::gpu::Interrupted);
        EXPECT_TRUE(interrupting.fired());
    }
    // No wait but those.
    cuda_sim_fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
    cuda_sim_reset_counters();
    arrays.search(*index_);
    EXPECT_EQ(hostWaits() - counts().waits_free, 0u);
    searchAndExpectRight();
}

TEST_F(ExactEngine, small_adds_do_not_make_each_search_allocate) {
    make();
    searchAndExpectRight();
    const auto more = uniform(1, kDims, 3);
    index_->resetTransferStats();
    for (int round = 0; round < 30; ++round) {
        index_->add(1, more.data());
        base_.insert(base_.end(), more.begin(), more.end());
        searchAndExpectRight();
    }
    EXPECT_LE(stats().deviceAllocations, 2u);
}

TEST_F(ExactEngine, follows_a_metric_that_is_set_between_searches) {
    make();
    searchAndExpectRight();
    index_->metric_type = faiss::METRIC_INNER_PRODUCT;
    searchAndExpectRight();
    index_->metric_type = faiss::METRIC_L2;
    searchAndExpectRight();
}

TEST_F(ExactEngine, searches_where_its_counts_cannot_be_pinned) {
    make();
    cuda_sim_fail_call("cudaHostAlloc", 1, cudaErrorMemoryAllocation);
    GpuArrays arrays(queries_);
    arrays.search(*index_);
    expectRight(arrays.found());
    EXPECT_EQ(stats().certifiedQueries, 0u);
    cuda_sim_clear_faults();
    searchAndExpectRight();
    EXPECT_EQ(stats().certifiedQueries, kQueries);
}

TEST_F(ExactEngine, is_made_ready_by_the_first_search_after_a_change) {
    make();
    const auto expectPrepared = [&](int times) {
        cuda_sim_reset_counters();
        searchAndExpectRight();
        searchAndExpectRight();
        EXPECT_EQ(launches("exactPrepareVectors"), uint64_t(times));
    };
    expectPrepared(1);
    expectPrepared(0);
    const auto more = uniform(40, kDims, 3);
    index_->add(40, more.data());
    base_.insert(base_.end(), more.begin(), more.end());
    expectPrepared(1);
    index_->reset();
    base_ = uniform(340, kDims, 4);
    index_->add(340, base_.data());
    expectPrepared(1);
    base_ = uniform(340, kDims, 5);
    faiss::IndexFlat cpu(kDims);
    cpu.add(340, base_.data());
    index_->copyFrom(&cpu);
    expectPrepared(1);
}

TEST_F(ExactEngine, is_made_ready_for_other_vectors_in_the_same_memory) {
    faiss_ext::gpu::PooledGpuResources pool(std::make_shared<CachingPool>());
    GpuIndexFlat index(
            &pool,
            kDims,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            small());
    queries_ = uniform(kQueries, kDims, 2);
    for (unsigned seed : {4, 5}) {
        base_ = uniform(kVectors, kDims, seed);
        faiss::IndexFlat cpu(kDims);
        cpu.add(kVectors, base_.data());
        index.copyFrom(&cpu);
        GpuArrays arrays(queries_);
        arrays.search(index);
        expectRight(arrays.found(), kDims, faiss::METRIC_L2);
    }
    EXPECT_EQ(launches("exactPrepareVectors"), 2u);
}

TEST_F(ExactEngine, is_made_ready_again_after_an_add_that_failed) {
    make();
    searchAndExpectRight();
    cuda_sim_set_device_memory(counts().live_device_bytes);
    const auto more = uniform(5000, kDims, 3);
    EXPECT_THROW(index_->add(5000, more.data()), faiss::FaissException);
    cuda_sim_set_device_memory(size_t(1) << 34);
    cuda_sim_reset_counters();
    searchAndExpectRight();
    EXPECT_EQ(launches("exactPrepareVectors"), 1u);
}

TEST_F(ExactEngine, has_its_state_in_scratch_memory_where_it_cannot_keep_it) {
    make();
    check(cudaDeviceSynchronize());
    cuda_sim_set_device_memory(counts().live_device_bytes);
    searchAndExpectRight();
    searchAndExpectRight();
    EXPECT_EQ(launches("exactPrepareVectors"), 2u);
    EXPECT_EQ(stats().deviceAllocations, 0u);
    cuda_sim_set_device_memory(size_t(1) << 34);
    searchAndExpectRight();
    searchAndExpectRight();
    EXPECT_EQ(launches("exactPrepareVectors"), 3u);
    EXPECT_EQ(stats().deviceAllocations, 1u);
}

TEST_F(ExactEngine, names_a_way_out_where_the_gpu_has_no_room_for_its_state) {
    resources_.setTempMemory(2048);
    make();
    check(cudaDeviceSynchronize());
    cuda_sim_set_device_memory(counts().live_device_bytes);
    try {
        search();
        ADD_FAILURE() << "no exception";
    } catch (const faiss_ext::gpu::OutOfMemory& e) {
        for (const char* part :
             {"300 vectors", "GPU 0", "StagedConfig::search \"faiss\""}) {
            EXPECT_NE(std::string(e.what()).find(part), std::string::npos)
                    << e.what();
        }
    }
    cuda_sim_set_device_memory(size_t(1) << 34);
    searchAndExpectRight();
}

TEST_F(ExactEngine, takes_what_temporary_memory_a_full_gpu_has) {
    resources_.setTempMemory(size_t(1) << 16);
    make();
    search();
    check(cudaDeviceSynchronize());
    cuda_sim_set_device_memory(counts().live_device_bytes);
    searchAndExpectRight();
    cuda_sim_set_device_memory(size_t(1) << 34);
}

TEST_F(ExactEngine, survives_vectors_that_pass_though_they_need_not) {
    cuda_sim_exact_faults wrong{};
    wrong.extra_survivors = 7;
    cuda_sim_set_exact_faults(&wrong);
    TunedConfig config = small();
    config.exactSurvivors = 128;
    make(config);
    searchAndExpectRight();
    EXPECT_EQ(stats().certifiedQueries, kQueries);
}

TEST_F(ExactEngine, makes_lists_that_ran_over_anew) {
    cuda_sim_exact_faults wrong{};
    wrong.overflow = 1;
    cuda_sim_set_exact_faults(&wrong);
    make();
    searchAndExpectRight();
    EXPECT_EQ(stats().certifiedQueries, 0u);
    EXPECT_EQ(stats().widenedQueries, kQueries);
    EXPECT_EQ(stats().lastPathQueries, 0u);
}

TEST_F(ExactEngine, compares_all_vectors_where_a_list_runs_over_twice) {
    cuda_sim_exact_faults wrong{};
    wrong.overflow = 2;
    cuda_sim_set_exact_faults(&wrong);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        make(small(), kDims, false, metric);
        searchAndExpectRight();
        EXPECT_EQ(stats().widenedQueries, 0u);
        EXPECT_EQ(stats().lastPathQueries, kQueries);
    }
}

TEST_F(ExactEngine, compares_all_vectors_where_there_is_no_certificate) {
    cuda_sim_exact_faults wrong{};
    wrong.small_cuts = 1;
    cuda_sim_set_exact_faults(&wrong);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        make(small(), kDims, false, metric);
        searchAndExpectRight();
        EXPECT_EQ(stats().lastPathQueries, kQueries);
    }
}

TEST_F(ExactEngine, is_right_whatever_the_tensor_cores_lose_within_the_bound) {
    cuda_sim_exact_faults wrong{};
    wrong.score_error = 3.99;
    cuda_sim_set_exact_faults(&wrong);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        make(small(), kDims, false, metric);
        searchAndExpectRight();
        EXPECT_EQ(stats().certifiedQueries, kQueries);
    }
}

TEST_F(ExactEngine, tests_the_tensor_cores_once_with_two_waits) {
    rememberSelfTest(0, std::nullopt);
    for (uint64_t tests : {1, 0}) {
        make();
        check(cudaDeviceSynchronize());
        cuda_sim_reset_counters();
        searchAndExpectRight();
        const uint64_t ofSearch = 6;
        EXPECT_EQ(launches("exactScores") > ofSearch, tests == 1);
        // But for what is unpinned; the self-test first waits, asking, for what
        // is enqueued, and then for itself.
        EXPECT_EQ(hostWaits() - counts().waits_free, 1 + tests);
        EXPECT_EQ(stats().hostWaits, 1 + 2 * tests);
        EXPECT_EQ(stats().searchedBy, "the exact engine");
    }
}

TEST_F(ExactEngine, leaves_the_search_to_Faiss_where_that_test_fails) {
    cuda_sim_exact_faults wrong{};
    wrong.score_error = 1.1;
    cuda_sim_set_exact_faults(&wrong);
    rememberSelfTest(0, std::nullopt);
    make();
    base_ = randomVectors(kVectors, kDims, 1);
    queries_ = randomVectors(kQueries, kDims, 2);
    index_->reset();
    index_->add(kVectors, base_.data());
    for (int times = 0; times < 2; ++times) {
        expectNeighbours(
                search(),
                searchOnCpu(base_, queries_, kDims, kNearest),
                base_,
                queries_,
                kDims,
                kNearest);
        EXPECT_EQ(
                stats().searchedBy,
                "Faiss' kernels: this GPU's tensor cores have failed the exact "
                "engine's self-test");
    }
    EXPECT_EQ(launches("exactFilter"), 0u);
    // It is known from now on.
    cuda_sim_set_exact_faults(nullptr);
    make();
    search();
    EXPECT_NE(stats().searchedBy, "the exact engine");
}

TEST_F(ExactEngine, passes_that_test_with_all_that_is_known_to_be_lost) {
    cuda_sim_exact_faults wrong{};
    // And a rounding.
    wrong.score_error = 0.9;
    cuda_sim_set_exact_faults(&wrong);
    rememberSelfTest(0, std::nullopt);
    make();
    searchAndExpectRight();
    EXPECT_EQ(stats().searchedBy, "the exact engine");
}

TEST_F(ExactEngine, leaves_the_search_to_Faiss_while_cublas_cannot_make_it) {
    rememberSelfTest(0, std::nullopt);
    make();
    cuda_sim_fail_call("kernel:exactScores", 2, cudaErrorInvalidValue);
    search();
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(
            stats().searchedBy,
            "Faiss' kernels: cuBLAS has failed in the exact engine's "
            "self-test, which the next search makes again");
    searchAndExpectRight();
    EXPECT_EQ(stats().searchedBy, "the exact engine");
}

/// With less memory than may be planned with.
class ScarcePool : public CachingPool {
   public:
    void* allocate(size_t bytes, int device, cudaStream_t stream) override {
        if (bytes > most) {
            throw std::runtime_error("the pool is exhausted");
        }
        return CachingPool::allocate(bytes, device, stream);
    }

    size_t most = size_t(1) << 40;
};

TEST_F(ExactEngine, takes_smaller_chunks_where_a_pool_has_less_than_planned) {
    const auto pool = std::make_shared<ScarcePool>();
    faiss_ext::gpu::PooledGpuResources resources(pool);
    TunedConfig config;
    config.search = "exact";
    GpuIndexFlat index(
            &resources,
            kDims,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            config);
    const size_t nb = 60000, n = 200;
    base_ = uniform(nb, kDims, 1);
    queries_ = uniform(n, kDims, 2);
    index.add(nb, base_.data());
    // Of what the scores of 200 queries take, 48 MB.
    pool->most = size_t(9) << 20;
    Neighbours found{
            std::vector<float>(n * kNearest),
            std::vector<int64_t>(n * kNearest)};
    index.search(
            n,
            queries_.data(),
            kNearest,
            found.distances.data(),
            found.labels.data());
    expectSameBits(
            found,
            searchExactly(base_, queries_, kDims, kNearest, faiss::METRIC_L2),
            kNearest);
    // All of them at once.
    EXPECT_EQ(launches("exactPrepareQueries"), 1u);
}

TEST_F(ExactEngine, asks_Faiss_while_there_is_no_memory_for_that_test) {
    rememberSelfTest(0, std::nullopt);
    make();
    cuda_sim_fail_call(
            "libfaiss_ext/cudaHostAlloc", 1, cudaErrorMemoryAllocation);
    search();
    EXPECT_EQ(
            stats().searchedBy,
            "Faiss' kernels: there was no memory for the exact engine's "
            "self-test");
    searchAndExpectRight();
    EXPECT_EQ(stats().searchedBy, "the exact engine");
}

TEST_F(ExactEngine, that_test_is_over_before_its_memory_whatever_fails) {
    rememberSelfTest(0, std::nullopt);
    make();
    check(cudaDeviceSynchronize());
    cuda_sim_fail_call("kernel:exactScores", 2, cudaErrorMemoryAllocation);
    cuda_sim_fail_call(
            "libfaiss_ext/cudaStreamSynchronize", 1, cudaErrorInvalidValue);
    search();
    EXPECT_EQ(cuda_sim_last_fault(), std::string("cudaStreamSynchronize"));
    EXPECT_EQ(
            stats().searchedBy,
            "Faiss' kernels: there was no memory for the exact engine's "
            "self-test");
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    // Nothing is known of it.
    searchAndExpectRight();
    EXPECT_EQ(stats().searchedBy, "the exact engine");
}

TEST_F(ExactEngine, other_failures_of_that_test_are_the_searchs) {
    rememberSelfTest(0, std::nullopt);
    make();
    cuda_sim_fail_call("libfaiss_ext/cudaHostAlloc", 1, cudaErrorInvalidValue);
    EXPECT_THROW(search(), CudaError);
    searchAndExpectRight();
}

TEST_F(ExactEngine, begins_anew_where_cublas_has_no_memory) {
    make();
    searchAndExpectRight();
    cuda_sim_fail_call("kernel:exactScores", 3, cudaErrorMemoryAllocation);
    searchAndExpectRight();
}

TEST_F(ExactEngine, throws_where_cublas_fails) {
    make();
    searchAndExpectRight();
    cuda_sim_fail_call("kernel:exactScores", 3, cudaErrorInvalidValue);
    try {
        search();
        ADD_FAILURE() << "no exception";
    } catch (const faiss::FaissException& e) {
        EXPECT_NE(
                std::string(e.what()).find("cuBLAS has failed: scores"),
                std::string::npos)
                << e.what();
    }
    // The error is told once.
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    searchAndExpectRight();
}

TEST_F(ExactEngine, can_be_interrupted_between_tiles) {
    TunedConfig config = small();
    config.exactQueries = 1;
    make(config);
    const size_t many = 2000;
    Array<float> x(Memory::Device, uniform(many, kDims, 9));
    Array<float> distances(Memory::Device, many);
    Array<int64_t> labels(Memory::Device, many);
    {
        Interrupting interrupting([](int) { return true; });
        EXPECT_THROW(
                index_->search(
                        many, x.data(), 1, distances.data(), labels.data()),
                faiss_ext::gpu::Interrupted);
    }
    EXPECT_LT(launches("exactWriteResults"), many);
    searchAndExpectRight();
}

TEST_F(ExactEngine, can_be_interrupted_before_its_self_test) {
    make();
    rememberSelfTest(0, std::nullopt);
    {
        const cudaStream_t stream = resources_.getDefaultStream(0);
        check(cudaDeviceSynchronize());
        cuda_sim_hold_stream(stream);
        Interrupting interrupting([&](int) {
            // What is under way is waited for before the call ends.
            cuda_sim_release_stream(stream);
            return true;
        });
        EXPECT_THROW(search(), faiss_ext::gpu::Interrupted);
        EXPECT_TRUE(interrupting.fired());
    }
    searchAndExpectRight();
}

TEST_F(ExactEngine, an_interrupt_may_leave_cublas_on_another_stream) {
    TunedConfig config = small();
    config.exactQueries = 1;
    make(config);
    const cublasHandle_t blas = resources_.getResources()->getBlasHandle(0);
    const cudaStream_t other =
            resources_.getResources()->getAlternateStreams(0)[0];
    const size_t many = 400;
    queries_ = uniform(many, kDims, 9);
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, many);
    Array<int64_t> labels(Memory::Device, many);
    // What is enqueued there comes too late.
    cuda_sim_hold_stream(other);
    {
        Interrupting interrupting([&](int) {
            cublasSetStream(blas, other);
            return false;
        });
        index_->search(many, x.data(), 1, distances.data(), labels.data());
        EXPECT_GT(interrupting.asked(), 0);
        check(cudaStreamSynchronize(resources_.getDefaultStream(0)));
    }
    cuda_sim_release_stream(other);
    expectSameBits(
            {distances.get(), labels.get()},
            searchExactly(base_, queries_, kDims, 1, faiss::METRIC_L2),
            1);
}

TEST_F(ExactEngine, an_empty_index_finds_nothing) {
    make();
    index_->reset();
    cuda_sim_reset_counters();
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        make(small(), kDims, false, metric);
        index_->reset();
        const auto found = search();
        for (int64_t label : found.labels) {
            EXPECT_EQ(label, -1);
        }
        for (float distance : found.distances) {
            EXPECT_EQ(distance, faiss_ext::gpu::distanceOfMissing(metric));
        }
    }
    EXPECT_EQ(launches("exactPrepareVectors"), 0u);
}

TEST_F(ExactEngine, leaves_the_stream_of_cublas_to_whoever_uses_it_next) {
    make();
    searchAndExpectRight();
    cudaStream_t stream = nullptr;
    cublasGetStream(resources_.getResources()->getBlasHandle(0), &stream);
    EXPECT_EQ(stream, resources_.getDefaultStream(0));
}

TEST(TensorCores, are_known_of_some_gpus) {
    using faiss_ext::gpu::tensorArithmeticOf;
    ASSERT_TRUE(tensorArithmeticOf(9, 0));
    EXPECT_EQ(tensorArithmeticOf(9, 0)->group, 16);
    for (int minor : {0, 6, 9}) {
        ASSERT_TRUE(tensorArithmeticOf(8, minor));
        EXPECT_EQ(tensorArithmeticOf(8, minor)->group, 8);
    }
    for (const auto& [major, minor] :
         {std::pair(7, 5), {7, 0}, {10, 0}, {12, 0}}) {
        EXPECT_FALSE(tensorArithmeticOf(major, minor));
    }
}

} // namespace
