// What the exact engine enqueues, keeps and waits for; mistakes of its kernels
// that its results survive; and its self-test. The stand-ins of the kernels
// check what is read and written.

#include <cuda_sim_exact.h>
#include <faiss/IndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/ExactPlan.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
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
using faiss_ext::gpu::ExactWay;
using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::idx_t;
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
    static TunedConfig small(ExactWay way = ExactWay::Scores) {
        TunedConfig config;
        config.search = "exact";
        config.exactWay = static_cast<int>(way);
        config.exactVectors = 128;
        config.exactQueries = 5;
        // Of few vectors a sample guesses badly.
        const bool guesses = way == ExactWay::FusedFilter;
        config.exactSurvivors = guesses ? 60 : 20;
        config.exactSample = guesses ? 20 : 0;
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

    void expectLaunches(const std::map<std::string, uint64_t>& expected) {
        for (const auto& [kernel, count] : expected) {
            EXPECT_EQ(launches(kernel.c_str()), count) << kernel;
        }
    }

    void expectPaths(uint64_t certified, uint64_t widened, uint64_t last) {
        EXPECT_EQ(stats().certifiedQueries, certified);
        EXPECT_EQ(stats().widenedQueries, widened);
        EXPECT_EQ(stats().lastPathQueries, last);
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

/// By each way to search; where a fallback differs, so do its counts.
class ExactWays : public ExactEngine,
                  public ::testing::WithParamInterface<ExactWay> {
   protected:
    /// Of vectors that a scan by tensor cores can read, or of such whose copies
    /// have padding.
    static int dims() {
        return GetParam() == ExactWay::TensorScan ? 8 : kDims;
    }

    static bool scans() {
        return GetParam() != ExactWay::FusedFilter &&
               GetParam() != ExactWay::Scores;
    }

    void makeSmall(faiss::MetricType metric = faiss::METRIC_L2) {
        make(small(GetParam()), dims(), false, metric);
    }

    void expectWay() {
        const bool tensor = GetParam() == ExactWay::TensorScan;
        const bool scores = GetParam() == ExactWay::Scores;
        EXPECT_EQ(launches("exactScan") > 0, scans() && !tensor);
        EXPECT_EQ(launches("exactTensorScan") > 0, tensor);
        EXPECT_EQ(
                launches("exactFusedFilter") > 0,
                GetParam() == ExactWay::FusedFilter);
        EXPECT_EQ(launches("exactFilter") > 0, scores);
    }
};

const char* nameOfWay(ExactWay way) {
    switch (way) {
        case ExactWay::Best:
            return "Best";
        case ExactWay::Scan:
            return "Scan";
        case ExactWay::TensorScan:
            return "TensorScan";
        case ExactWay::FusedFilter:
            return "FusedFilter";
        case ExactWay::Scores:
            return "Scores";
    }
    return "";
}

INSTANTIATE_TEST_SUITE_P(
        ,
        ExactWays,
        ::testing::Values(
                ExactWay::Best,
                ExactWay::Scan,
                ExactWay::TensorScan,
                ExactWay::FusedFilter,
                ExactWay::Scores),
        [](const auto& way) { return nameOfWay(way.param); });

TEST_P(ExactWays, are_those_that_are_asked_for) {
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        makeSmall(metric);
        cuda_sim_reset_counters();
        searchAndExpectRight();
        expectWay();
        expectPaths(kQueries, 0, 0);
        EXPECT_EQ(stats().searchedBy, "the exact engine");
    }
}

TEST_P(ExactWays, are_right_for_float16_vectors) {
    for (int d : {8, 5}) {
        make(small(GetParam()), d, true);
        searchAndExpectRight();
        expectPaths(kQueries, 0, 0);
    }
}

TEST_P(ExactWays, in_steady_state_neither_wait_nor_allocate) {
    makeSmall();
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
    expectPaths(kQueries, 0, 0);
    cuda_sim_release_all();
    expectRight(arrays.found());
    expectPaths(2 * kQueries, 0, 0);
}

TEST_P(ExactWays, do_not_wait_in_their_fallbacks_either) {
    makeSmall();
    GpuArrays arrays(queries_);
    arrays.search(*index_);
    expectRight(arrays.found());
    index_->resetTransferStats();
    for (int overflow : {1, 2}) {
        cuda_sim_exact_faults wrong{};
        wrong.overflow = overflow;
        cuda_sim_set_exact_faults(&wrong);
        check(cudaDeviceSynchronize());
        cuda_sim_reset_counters();
        cuda_sim_hold_stream(resources_.getDefaultStream(0));
        arrays.search(*index_);
        EXPECT_EQ(hostWaits(), 0u);
        EXPECT_EQ(allocations(), 0u);
        cuda_sim_release_all();
        expectRight(arrays.found());
        EXPECT_EQ(stats().certifiedQueries, 0u);
    }
}

TEST_P(ExactWays, in_a_pool_do_not_wait_whatever_they_may_plan_with) {
    faiss_ext::gpu::PooledGpuResources pool(std::make_shared<CachingPool>());
    pool.noTempMemory();
    const int d = dims();
    GpuIndexFlat index(
            &pool,
            d,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            small(GetParam()));
    base_ = uniform(kVectors, d, 1);
    queries_ = uniform(kQueries, d, 2);
    index.add(kVectors, base_.data());
    GpuArrays arrays(queries_);
    const auto search = [&] { arrays.search(index); };
    search();
    check(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    search();
    EXPECT_EQ(hostWaits(), 0u);
    expectWay();
    expectRight(arrays.found(), d, faiss::METRIC_L2);
}

TEST_P(ExactWays, tell_of_each_wait_for_memory_that_faiss_allocates) {
    resources_.setTempMemory(0);
    makeSmall();
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

TEST_P(ExactWays, find_again_what_a_list_has_lost) {
    cuda_sim_exact_faults wrong{};
    wrong.overflow = 1;
    cuda_sim_set_exact_faults(&wrong);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        makeSmall(metric);
        searchAndExpectRight();
        // Scores by cuBLAS have no second round.
        if (GetParam() == ExactWay::Scores) {
            expectPaths(0, 0, kQueries);
        } else {
            expectPaths(0, kQueries, 0);
        }
    }
}

TEST_P(ExactWays, compare_all_vectors_where_lists_run_over_twice) {
    cuda_sim_exact_faults wrong{};
    wrong.overflow = 2;
    cuda_sim_set_exact_faults(&wrong);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        makeSmall(metric);
        searchAndExpectRight();
        expectPaths(0, 0, kQueries);
    }
}

TEST_P(ExactWays, compare_all_vectors_where_the_first_cuts_are_too_small) {
    cuda_sim_exact_faults wrong{};
    wrong.small_cuts = 1;
    cuda_sim_set_exact_faults(&wrong);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        makeSmall(metric);
        searchAndExpectRight();
        // The cuts of a scan are no guesses. Of the fused filter they are, and
        // where k vectors have passed all are filtered again.
        if (scans()) {
            expectPaths(kQueries, 0, 0);
        } else if (GetParam() == ExactWay::FusedFilter) {
            EXPECT_GT(
                    stats().widenedQueries + stats().lastPathQueries,
                    kQueries / 2);
        } else {
            expectPaths(0, 0, kQueries);
        }
    }
}

TEST_P(ExactWays, are_right_whatever_tensor_cores_lose_within_the_bound) {
    cuda_sim_exact_faults wrong{};
    wrong.score_error = 3.99;
    cuda_sim_set_exact_faults(&wrong);
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        makeSmall(metric);
        searchAndExpectRight();
        expectPaths(kQueries, 0, 0);
    }
}

TEST_P(ExactWays, follow_the_vectors_and_the_metric) {
    makeSmall();
    searchAndExpectRight();
    const auto more = uniform(40, dims(), 3);
    index_->add(40, more.data());
    base_.insert(base_.end(), more.begin(), more.end());
    searchAndExpectRight();
    index_->metric_type = faiss::METRIC_INNER_PRODUCT;
    searchAndExpectRight();
    index_->reset();
    base_ = uniform(340, dims(), 4);
    index_->add(340, base_.data());
    searchAndExpectRight();
}

TEST_P(ExactWays, make_ready_only_what_they_read) {
    makeSmall();
    const bool plain = scans() && GetParam() != ExactWay::TensorScan;
    for (uint64_t prepared : {1, 0}) {
        check(cudaDeviceSynchronize());
        index_->resetTransferStats();
        cuda_sim_reset_counters();
        searchAndExpectRight();
        // A plain scan reads the vectors alone.
        EXPECT_EQ(launches("exactPrepareVectors"), plain ? 0 : prepared);
        EXPECT_EQ(stats().deviceAllocations, plain ? 0 : prepared);
    }
}

TEST_P(ExactWays, search_where_their_counts_cannot_be_pinned) {
    makeSmall();
    cuda_sim_fail_call("cudaHostAlloc", 1, cudaErrorMemoryAllocation);
    GpuArrays arrays(queries_);
    arrays.search(*index_);
    expectRight(arrays.found());
    expectPaths(0, 0, 0);
    cuda_sim_clear_faults();
    searchAndExpectRight();
    expectPaths(kQueries, 0, 0);
}

TEST_P(ExactWays, take_what_temporary_memory_a_full_gpu_has) {
    resources_.setTempMemory(size_t(1) << 20);
    makeSmall();
    search();
    check(cudaDeviceSynchronize());
    cuda_sim_set_device_memory(counts().live_device_bytes);
    searchAndExpectRight();
    cuda_sim_set_device_memory(size_t(1) << 34);
}

TEST_F(ExactEngine, scores_each_chunk_for_each_tile) {
    make();
    searchAndExpectRight();
    cuda_sim_reset_counters();
    searchAndExpectRight();
    // The sample is of all chunks.
    expectLaunches(
            {{"exactPrepareVectors", 0},
             {"exactPrepareQueries", 2},
             {"exactCopyVectors", 8},
             {"exactScores", 8},
             {"exactSampleCut", 2},
             {"exactFilter", 6},
             {"exactSelect", 6},
             {"exactCollectAgain", 0},
             {"exactCollectLast", 2},
             {"exactLosses", 6},
             {"exactSelectLosses", 6},
             {"exactWriteResults", 2}});
}

TEST_F(ExactEngine, filters_in_stages_of_vectors_that_are_copied_once) {
    make(small(ExactWay::FusedFilter));
    searchAndExpectRight();
    cuda_sim_reset_counters();
    searchAndExpectRight();
    // One vector in three, and then the other two; and all of them for queries
    // that need it, of which there are none.
    expectLaunches(
            {{"exactPrepareVectors", 0},
             {"exactPrepareQueries", 2},
             {"exactCopyVectors", 1},
             {"exactCopyVectorsAgain", 0},
             {"exactScores", 2},
             {"exactSampleCut", 2},
             {"exactFusedFilter", 6},
             {"exactSelect", 6},
             {"exactCollectAgain", 2},
             {"exactFusedFilterAgain", 2},
             {"exactCollectLast", 2},
             {"exactLosses", 6},
             {"exactSelectLosses", 6},
             {"exactWriteResults", 2}});
}

TEST_F(ExactEngine, copies_pieces_where_not_all_may_be_copied_at_once) {
    TunedConfig config = small(ExactWay::FusedFilter);
    config.exactVectors = 64;
    config.exactCopied = 110;
    make(config);
    searchAndExpectRight();
    cuda_sim_reset_counters();
    searchAndExpectRight();
    expectPaths(2 * kQueries, 0, 0);
    // Of each tile the sample, one vector in three of 300 once and twice, and
    // three thirds of all: these only for queries that need them.
    expectLaunches(
            {{"exactPrepareQueries", 2},
             {"exactCopyVectors", 2 * (1 + launches("exactFusedFilter") / 2)},
             {"exactCopyVectorsAgain", 2 * 3},
             {"exactFusedFilterAgain", 2 * 3},
             {"exactCollectAgain", 2}});
    EXPECT_GE(launches("exactFusedFilter"), 2u * 3);
    cuda_sim_exact_faults wrong{};
    wrong.overflow = 1;
    cuda_sim_set_exact_faults(&wrong);
    searchAndExpectRight();
    expectPaths(2 * kQueries, kQueries, 0);
}

TEST_F(ExactEngine, scans_in_three_kernels_whatever_the_tiles) {
    for (ExactWay way : {ExactWay::Scan, ExactWay::TensorScan}) {
        make(small(way), 8);
        searchAndExpectRight();
        cuda_sim_reset_counters();
        searchAndExpectRight();
        const bool tensor = way == ExactWay::TensorScan;
        expectLaunches(
                {{"exactPrepareVectors", 0},
                 {"exactPrepareQueries", 0},
                 {"exactCopyVectors", 0},
                 {"exactScores", 0},
                 {"exactScanCut", 1},
                 {"exactScan", tensor ? 0 : 1},
                 {"exactTensorScan", tensor ? 1 : 0},
                 {"exactScanResults", 1},
                 {"exactWriteResults", 0}});
    }
}

TEST_F(ExactEngine, lists_that_have_room_for_all_vectors_need_no_cut) {
    for (ExactWay way : {ExactWay::Scan, ExactWay::TensorScan}) {
        TunedConfig config = small(way);
        config.exactSurvivors = 0;
        make(config, 8);
        cuda_sim_reset_counters();
        searchAndExpectRight();
        expectLaunches(
                {{"exactScanCut", 0},
                 {"exactScan", 1},
                 {"exactTensorScan", 0},
                 {"exactScanResults", 1}});
        expectPaths(kQueries, 0, 0);
    }
}

TEST_F(ExactEngine, scans_by_another_way_where_tensor_cores_cannot) {
    // Of rows that are no whole loads.
    make(small(ExactWay::TensorScan), 6);
    searchAndExpectRight();
    EXPECT_EQ(launches("exactScan"), 1u);
    make(small(ExactWay::TensorScan), 4, true);
    searchAndExpectRight();
    EXPECT_EQ(launches("exactScan"), 2u);
    make(small(ExactWay::TensorScan), 8, true);
    searchAndExpectRight();
    EXPECT_EQ(launches("exactScan"), 2u);
    EXPECT_EQ(launches("exactTensorScan"), 1u);
}

TEST_F(ExactEngine, a_single_chunk_is_scored_once_and_for_the_sample) {
    TunedConfig config = small();
    config.exactVectors = 1000;
    make(config);
    searchAndExpectRight();
    EXPECT_EQ(launches("exactScores"), 4u);
    EXPECT_EQ(launches("exactCopyVectors"), 4u);
    EXPECT_EQ(launches("exactFilter"), 2u);
}

TEST_F(ExactEngine, float16_vectors_of_whole_loads_are_their_own_copies) {
    for (ExactWay way : {ExactWay::Scores, ExactWay::FusedFilter}) {
        for (int64_t copied : {0, 110}) {
            TunedConfig config = small(way);
            config.exactCopied = copied;
            make(config, 8, true);
            cuda_sim_reset_counters();
            searchAndExpectRight();
            EXPECT_EQ(launches("exactCopyVectors"), 0u);
            EXPECT_EQ(launches("exactCopyVectorsAgain"), 0u);
            make(config, 5, true);
            cuda_sim_reset_counters();
            searchAndExpectRight();
            EXPECT_GT(launches("exactCopyVectors"), 0u);
        }
    }
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

TEST_F(ExactEngine, tests_the_tensor_cores_once_with_two_waits) {
    rememberSelfTest(0, std::nullopt);
    for (uint64_t tests : {1, 0}) {
        make();
        check(cudaDeviceSynchronize());
        cuda_sim_reset_counters();
        searchAndExpectRight();
        const uint64_t ofSearch = 8;
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
    const size_t nb = 60000, n = 200;
    base_ = uniform(nb, kDims, 1);
    queries_ = uniform(n, kDims, 2);
    const auto right =
            searchExactly(base_, queries_, kDims, kNearest, faiss::METRIC_L2);
    // All of them at once; with copies of all vectors, half of them.
    for (const auto& [way, tiles] :
         {std::pair(ExactWay::Scores, 1), {ExactWay::FusedFilter, 2}}) {
        const auto pool = std::make_shared<ScarcePool>();
        faiss_ext::gpu::PooledGpuResources resources(pool);
        TunedConfig config;
        config.search = "exact";
        config.exactWay = static_cast<int>(way);
        GpuIndexFlat index(
                &resources,
                kDims,
                faiss::METRIC_L2,
                faiss::gpu::GpuIndexFlatConfig(),
                config);
        index.add(nb, base_.data());
        // Of what the scores of 200 queries take, 48 MB.
        pool->most = size_t(9) << 20;
        Neighbours found{
                std::vector<float>(n * kNearest),
                std::vector<int64_t>(n * kNearest)};
        cuda_sim_reset_counters();
        index.search(
                n,
                queries_.data(),
                kNearest,
                found.distances.data(),
                found.labels.data());
        expectSameBits(found, right, kNearest);
        EXPECT_EQ(launches("exactPrepareQueries"), uint64_t(tiles));
    }
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
    for (ExactWay way : {ExactWay::Scores, ExactWay::FusedFilter}) {
        make(small(way));
        searchAndExpectRight();
        cuda_sim_fail_call("kernel:exactScores", 2, cudaErrorMemoryAllocation);
        searchAndExpectRight();
        EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    }
}

TEST_F(ExactEngine, throws_where_cublas_fails) {
    for (ExactWay way : {ExactWay::Scores, ExactWay::FusedFilter}) {
        make(small(way));
        searchAndExpectRight();
        cuda_sim_fail_call("kernel:exactScores", 2, cudaErrorInvalidValue);
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
}

TEST_P(ExactWays, throw_where_a_kernel_cannot_be_launched) {
    const std::map<ExactWay, std::vector<const char*>> kernels{
            {ExactWay::Best, {"exactScanCut", "exactScan"}},
            {ExactWay::Scan, {"exactScanCut", "exactScan", "exactScanResults"}},
            {ExactWay::TensorScan,
             {"exactScanCut", "exactTensorScan", "exactScanResults"}},
            {ExactWay::FusedFilter,
             {"exactPrepareQueries",
              "exactCopyVectors",
              "exactSampleCut",
              "exactFusedFilter",
              "exactSelect",
              "exactCollectAgain",
              "exactFusedFilterAgain",
              "exactCollectLast",
              "exactLosses",
              "exactSelectLosses",
              "exactWriteResults"}},
            {ExactWay::Scores,
             {"exactPrepareQueries",
              "exactCopyVectors",
              "exactSampleCut",
              "exactFilter",
              "exactSelect",
              "exactCollectLast",
              "exactLosses",
              "exactSelectLosses",
              "exactWriteResults"}}};
    makeSmall();
    searchAndExpectRight();
    for (const char* kernel : kernels.at(GetParam())) {
        SCOPED_TRACE(kernel);
        cuda_sim_fail_call(
                (std::string("kernel:") + kernel).c_str(),
                1,
                cudaErrorInvalidValue);
        EXPECT_THROW(search(), CudaError);
        cuda_sim_clear_faults();
        EXPECT_EQ(cudaGetLastError(), cudaSuccess);
        searchAndExpectRight();
    }
}

TEST_F(ExactEngine, can_be_interrupted_between_tiles) {
    for (ExactWay way : {ExactWay::Scores, ExactWay::FusedFilter}) {
        SCOPED_TRACE(nameOfWay(way));
        TunedConfig config = small(way);
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
        cuda_sim_reset_counters();
        searchAndExpectRight();
    }
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
    for (ExactWay way : {ExactWay::Scores, ExactWay::FusedFilter}) {
        SCOPED_TRACE(nameOfWay(way));
        TunedConfig config = small(way);
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

/// Searches of a size of their own, by filters.
class ExactFilters : public ExactEngine {
   protected:
    void make(
            size_t vectors, size_t queries, int d, const TunedConfig& config) {
        base_ = uniform(vectors, d, 1);
        queries_ = uniform(queries, d, 2);
        index_ = std::make_unique<GpuIndexFlat>(
                &resources_,
                d,
                faiss::METRIC_L2,
                faiss::gpu::GpuIndexFlatConfig(),
                config);
        index_->add(vectors, base_.data());
    }

    Neighbours searchFor(int k) {
        const size_t n = queries_.size() / index_->d;
        Neighbours found{
                std::vector<float>(n * k), std::vector<int64_t>(n * k)};
        index_->search(
                n,
                queries_.data(),
                k,
                found.distances.data(),
                found.labels.data());
        return found;
    }

    void searchForAndExpectRight(int k) {
        expectSameBits(
                searchFor(k),
                searchExactly(base_, queries_, index_->d, k, faiss::METRIC_L2),
                k);
    }

    static TunedConfig by(ExactWay way) {
        TunedConfig config;
        config.search = "exact";
        config.exactWay = static_cast<int>(way);
        return config;
    }
};

TEST_F(ExactFilters, make_up_for_guesses_that_were_too_small) {
    TunedConfig config = by(ExactWay::FusedFilter);
    config.exactSample = 24;
    config.exactSurvivors = 200;
    const int k = 16;
    // Copies of all, and of pieces.
    for (int64_t copied : {0, 200}) {
        config.exactVectors = copied;
        config.exactCopied = copied;
        make(1000, 20, kDims, config);
        searchForAndExpectRight(k);
        expectPaths(20, 0, 0);
        index_->resetTransferStats();
        cuda_sim_exact_faults wrong{};
        wrong.small_guesses = 1;
        cuda_sim_set_exact_faults(&wrong);
        searchForAndExpectRight(k);
        // (Where no guess is made, too few having passed, none is too small.)
        EXPECT_LT(stats().certifiedQueries, 10u);
        EXPECT_GE(stats().widenedQueries, 5u);
        cuda_sim_set_exact_faults(nullptr);
    }
    // And if that does not help.
    config.exactVectors = 0;
    config.exactCopied = 0;
    make(1000, 20, kDims, config);
    cuda_sim_exact_faults wrong{};
    wrong.small_guesses = 1;
    wrong.overflow = 2;
    cuda_sim_set_exact_faults(&wrong);
    searchForAndExpectRight(k);
    expectPaths(0, 0, 20);
}

TEST_F(ExactFilters, guess_by_more_of_the_best_with_each_stage) {
    TunedConfig config = by(ExactWay::FusedFilter);
    config.exactSample = 50;
    config.exactSurvivors = 200;
    make(1000, 20, kDims, config);
    // By 12 of the sample's 44, and 35 of 334 vectors: the first number would
    // not let all of the forty pass in the end.
    searchForAndExpectRight(40);
    expectPaths(20, 0, 0);
    EXPECT_EQ(launches("exactSelect"), 2u + 1);
}

TEST_F(ExactFilters, by_scores_make_no_guesses) {
    TunedConfig config = by(ExactWay::Scores);
    config.exactSample = 50;
    config.exactSurvivors = 400;
    config.exactVectors = 200;
    make(1000, 20, kDims, config);
    cuda_sim_exact_faults wrong{};
    wrong.small_guesses = 1;
    cuda_sim_set_exact_faults(&wrong);
    searchForAndExpectRight(16);
    expectPaths(20, 0, 0);
}

/// What the search has enqueued so far when it asks.
enum class Phase { Filter, Again, Last, Other };

class ExactInterrupts : public ExactFilters {
   protected:
    /// Enough pieces for each phase to take about as long as what passes
    /// between two questions; one tile.
    static constexpr size_t kMany = 100000;

    void makeMany(ExactWay way) {
        TunedConfig config = by(way);
        config.exactVectors = 64;
        config.exactCopied = 64;
        config.exactSurvivors = 64;
        make(kMany, 2, kDims, config);
        searchForAndExpectRight(kNearest);
        check(cudaDeviceSynchronize());
        cuda_sim_reset_counters();
    }

    static Phase phase() {
        if (launches("exactWriteResults") > 0) {
            return Phase::Other;
        }
        if (launches("exactCollectLast") > 0) {
            return Phase::Last;
        }
        if (launches("exactCollectAgain") > 0) {
            return Phase::Again;
        }
        return launches("exactSampleCut") > 0 ? Phase::Filter : Phase::Other;
    }

    /// Some time passes between two questions, so that a search of a fast
    /// machine may go through a phase without any.
    void expectInterruptedIn(Phase wanted) {
        bool fired = false;
        for (int attempt = 0; attempt < 20 && !fired; ++attempt) {
            cuda_sim_reset_counters();
            Interrupting interrupting([&](int) { return phase() == wanted; });
            try {
                searchFor(kNearest);
                EXPECT_FALSE(interrupting.fired());
            } catch (const faiss_ext::gpu::Interrupted&) {
                EXPECT_EQ(launches("exactWriteResults"), 0u);
            }
            fired = interrupting.fired();
        }
        EXPECT_TRUE(fired) << int(wanted);
        check(cudaDeviceSynchronize());
    }
};

TEST_F(ExactInterrupts, come_between_the_pieces_of_each_round) {
    makeMany(ExactWay::FusedFilter);
    for (Phase wanted : {Phase::Filter, Phase::Again, Phase::Last}) {
        expectInterruptedIn(wanted);
    }
    searchForAndExpectRight(kNearest);
}

TEST_F(ExactInterrupts, come_between_the_chunks_of_scores) {
    makeMany(ExactWay::Scores);
    for (Phase wanted : {Phase::Filter, Phase::Last}) {
        expectInterruptedIn(wanted);
    }
    searchForAndExpectRight(kNearest);
}

TEST_F(ExactFilters, follow_their_plan_where_memory_is_short) {
    // Queries and results take some of the temporary memory, too.
    constexpr size_t kOfTheCall = 2048;
    const size_t nb = 20000, n = 8;
    const int d = 8;
    const TunedConfig config = by(ExactWay::FusedFilter);
    const faiss_ext::gpu::ExactSizes most =
            faiss_ext::gpu::complete(config).exact;
    const faiss_ext::gpu::ExactShape shape{
            idx_t(n), idx_t(nb), d, kNearest, false, true, true};
    const auto planned = [&](size_t bytes) {
        return faiss_ext::gpu::planExact(shape, most, bytes);
    };
    // All copies at once; pieces of them; smaller tiles; smaller chunks.
    std::vector<faiss_ext::gpu::ExactPlan> plans;
    for (size_t bytes = size_t(8) << 20; bytes > 4096; bytes -= bytes / 50) {
        const auto plan = planned(bytes);
        if (plans.empty() || plan.wholeCopies != plans.back().wholeCopies ||
            plan.queries != plans.back().queries) {
            plans.push_back(plan);
        }
    }
    ASSERT_GE(plans.size(), 3u);
    plans.resize(3);
    EXPECT_TRUE(plans.front().wholeCopies);
    EXPECT_FALSE(plans[1].wholeCopies);
    EXPECT_EQ(plans[1].queries, idx_t(n));
    EXPECT_LT(plans.back().queries, idx_t(n));
    for (const auto& plan : plans) {
        index_.reset();
        cuda_sim_set_device_memory(size_t(1) << 34);
        resources_.setTempMemory(
                faiss_ext::gpu::ScratchMemory::bytesOf(plan.bytes) +
                kOfTheCall);
        make(nb, n, d, config);
        // Made ready.
        searchFor(1);
        check(cudaDeviceSynchronize());
        cuda_sim_set_device_memory(counts().live_device_bytes);
        const size_t free =
                resources_.getResources()->getTempMemoryAvailable(0);
        const auto expected =
                planned(free - faiss_ext::gpu::ScratchMemory::bytesOf(0));
        EXPECT_EQ(expected.queries, plan.queries);
        EXPECT_EQ(expected.wholeCopies, plan.wholeCopies);
        cuda_sim_reset_counters();
        searchForAndExpectRight(kNearest);
        const uint64_t tiles = (n + expected.queries - 1) / expected.queries;
        uint64_t filters = 0;
        for (const auto& stage : expected.stages) {
            filters += stage.rows.size();
        }
        const bool whole = expected.wholeCopies;
        expectLaunches(
                {{"exactPrepareQueries", tiles},
                 {"exactCopyVectors", whole ? 1 : tiles * (1 + filters)},
                 {"exactCopyVectorsAgain",
                  whole ? 0 : tiles * expected.again.size()},
                 {"exactFusedFilter", tiles * filters},
                 {"exactFusedFilterAgain", tiles * expected.again.size()},
                 {"exactSelect", tiles * (expected.stages.size() + 1)},
                 {"exactLosses", tiles * expected.chunks.size()}});
    }
    cuda_sim_set_device_memory(size_t(1) << 34);
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
