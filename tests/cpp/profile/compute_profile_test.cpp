// What profile_search tells of the exact engine's stages, on the simulated GPU:
// their names, order and work; of times that they are consistent.

#include <cuda_sim_exact.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/compute/TensorCoreSelfTest.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/ExactNeighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::ComputeStage;
using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::ExactWay;
using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::Lane;
using faiss_ext::gpu::rememberSelfTest;
using faiss_ext::gpu::SearchProfile;
using faiss_ext::gpu::Stage;
using namespace test;

// Of 8 dimensions scans by tensor cores can read the vectors.
constexpr int kDims = 8;
constexpr int kNearest = 3;
constexpr size_t kVectors = 300;
constexpr size_t kQueries = 10;

// The simulated GPU: 132 multiprocessors of 1.98 GHz, 5120 bits of 2.619 GHz.
constexpr double kTensorOperations = 132 * 1.98e9 * 4096;
constexpr double kFloatInstructions = 132 * 1.98e9 * 128;
constexpr double kBytes = 2.619e9 * 2 * 5120 / 8;

using Names = std::vector<std::string>;

std::vector<float> uniform(size_t rows, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> unit(-1, 1);
    std::vector<float> made(rows * kDims);
    for (float& value : made) {
        value = unit(random);
    }
    return made;
}

Names namesOf(const SearchProfile& profile) {
    Names names;
    for (const auto& span : profile.computeSpans) {
        names.push_back(span.name);
    }
    return names;
}

const ComputeStage& stageOf(
        const SearchProfile& profile, const std::string& name) {
    for (const ComputeStage& stage : profile.computeStages) {
        if (stage.name == name) {
            return stage;
        }
    }
    ADD_FAILURE() << "no stage " << name;
    static const ComputeStage none;
    return none;
}

Names operator+(Names a, const Names& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

class ComputeProfile : public SimTest {
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

    /// Two stages of fused filters, three chunks of scores.
    static TunedConfig by(ExactWay way) {
        TunedConfig config;
        config.search = "exact";
        config.exactWay = static_cast<int>(way);
        config.exactVectors = 128;
        const bool guesses = way == ExactWay::FusedFilter;
        config.exactSurvivors = guesses ? 60 : 20;
        config.exactSample = guesses ? 20 : 0;
        return config;
    }

    void make(const TunedConfig& config, bool float16 = false) {
        faiss::gpu::GpuIndexFlatConfig storage;
        storage.useFloat16 = float16;
        index_ = std::make_unique<GpuIndexFlat>(
                &resources_, kDims, faiss::METRIC_L2, storage, config);
        index_->add(kVectors, base_.data());
        check(cudaDeviceSynchronize());
    }

    void makeBy(ExactWay way) {
        make(by(way));
    }

    /// A profiled search, on the GPU or of host memory, with right results.
    SearchProfile profile(Memory memory = Memory::Device) {
        Array<float> x(memory, queries_);
        Array<float> distances(memory, kQueries * kNearest);
        Array<int64_t> labels(memory, kQueries * kNearest);
        const auto found = index_->profile_search(
                kQueries, x.data(), kNearest, distances.data(), labels.data());
        EXPECT_EQ(cuda_sim_pending(), 0u);
        expectSameBits(
                {distances.get(), labels.get()},
                searchExactly(
                        base_, queries_, kDims, kNearest, faiss::METRIC_L2),
                kNearest);
        return found;
    }

    /// After the first search, which makes the index's state.
    SearchProfile profileAgain() {
        profile();
        return profile();
    }

    /// How often each of the engine's kernels was launched.
    static std::vector<uint64_t> launches() {
        std::vector<uint64_t> counts;
        for (const char* kernel :
             {"PrepareQueries",
              "CopyVectors",
              "Scores",
              "SampleCut",
              "Filter",
              "FusedFilter",
              "Select",
              "CollectAgain",
              "CollectLast",
              "Losses",
              "SelectLosses",
              "WriteResults",
              "ScanCut",
              "Scan",
              "TensorScan",
              "ScanResults"}) {
            counts.push_back(cuda_sim_calls(
                    (std::string("kernel:exact") + kernel).c_str()));
        }
        return counts;
    }

    faiss::gpu::StandardGpuResources resources_;
    std::unique_ptr<GpuIndexFlat> index_;
    const std::vector<float> base_ = uniform(kVectors, 1);
    const std::vector<float> queries_ = uniform(kQueries, 2);
};

TEST_F(ComputeProfile, has_the_stages_of_a_scan) {
    make(by(ExactWay::Scan));
    EXPECT_EQ(namesOf(profile()), (Names{"scan cut", "scan", "scan results"}));
}

TEST_F(ComputeProfile, has_the_stages_of_a_scan_by_tensor_cores) {
    makeBy(ExactWay::TensorScan);
    const Names each{"scan cut", "tensor scan", "scan results"};
    EXPECT_EQ(namesOf(profile()), Names{"prepare index"} + each);
    EXPECT_EQ(namesOf(profile()), each);
}

TEST_F(ComputeProfile, has_the_stages_of_fused_filters) {
    makeBy(ExactWay::FusedFilter);
    const Names each{
            "copy vectors",
            "prepare queries",
            "sample scores",
            "first cut",
            "filter 1",
            "select 1",
            // Two of each three vectors, no progression.
            "filter 2",
            "filter 2",
            "select 2",
            "second filter",
            "second select",
            "last path",
            "write results"};
    EXPECT_EQ(namesOf(profile()), Names{"prepare index"} + each);
    EXPECT_EQ(namesOf(profile()), each);
}

TEST_F(ComputeProfile, has_the_stages_of_scores_and_filters) {
    makeBy(ExactWay::Scores);
    const Names chunk{"copy vectors", "scores", "filter", "select"};
    EXPECT_EQ(
            namesOf(profileAgain()),
            (Names{"prepare queries",
                   "copy vectors",
                   "sample scores",
                   "first cut"} +
             chunk + chunk + chunk + Names{"last path", "write results"}));
}

TEST_F(ComputeProfile, copies_no_float16_vectors_and_tells_copies_of_parts) {
    make(by(ExactWay::FusedFilter), true);
    std::vector<float> distances(kQueries * kNearest);
    std::vector<int64_t> labels(kQueries * kNearest);
    const auto own = index_->profile_search(
            kQueries,
            queries_.data(),
            kNearest,
            distances.data(),
            labels.data());
    for (const auto& span : own.computeSpans) {
        EXPECT_NE(span.name, "copy vectors");
    }
    TunedConfig config = by(ExactWay::FusedFilter);
    config.exactCopied = 110;
    make(config);
    const auto parts = profileAgain();
    // Of the sample, of one part of the first stage and of two of the second;
    // those of the second round are made for those alone that need it.
    EXPECT_EQ(stageOf(parts, "copy vectors").spans, 4);
}

TEST_F(ComputeProfile,
       of_queries_compared_with_all_has_neither_cuts_nor_filters) {
    makeBy(ExactWay::FusedFilter);
    std::vector<float> distances(kQueries * 100);
    std::vector<int64_t> labels(kQueries * 100);
    const auto found = index_->profile_search(
            kQueries, queries_.data(), 100, distances.data(), labels.data());
    EXPECT_EQ(
            namesOf(found),
            (Names{"prepare index",
                   "prepare queries",
                   "last path",
                   "write results"}));
    EXPECT_NE(
            found.computePlan.find("all 300 vectors compared"),
            std::string::npos)
            << found.computePlan;
    EXPECT_EQ(found.paths.last, int64_t(kQueries));
}

TEST_F(ComputeProfile, stages_follow_each_other_within_their_tile) {
    TunedConfig config = by(ExactWay::FusedFilter);
    config.tileRows = 4;
    config.oneTileBytes = 1;
    config.mappedBytes = 1;
    make(config);
    const auto found = profile(Memory::Pageable);
    ASSERT_EQ(found.tiles, 3);
    size_t part = 0;
    for (const auto& span : found.spans) {
        if (span.stage != Stage::Compute) {
            continue;
        }
        double end = span.begin;
        for (; part < found.computeSpans.size() &&
               found.computeSpans[part].tile == span.tile;
             ++part) {
            const auto& inside = found.computeSpans[part];
            EXPECT_EQ(inside.lane, Lane::DefaultStream);
            EXPECT_EQ(inside.begin, end) << inside.name;
            EXPECT_LE(inside.begin, inside.end) << inside.name;
            end = inside.end;
        }
        EXPECT_EQ(found.computeSpans[part - 1].name, "write results");
        EXPECT_LE(end, span.end);
    }
    EXPECT_EQ(part, found.computeSpans.size());
    // All spans of one name are one stage.
    EXPECT_EQ(stageOf(found, "write results").spans, 3);
    double seconds = 0;
    for (const ComputeStage& stage : found.computeStages) {
        seconds += stage.seconds;
    }
    EXPECT_LE(seconds, found.secondsIn(Stage::Compute) * (1 + 1e-9));
    // Tiles of 4, 4 and 2 queries.
    EXPECT_EQ(found.computePlan.find("4 queries in 1 tile, "), 0u)
            << found.computePlan;
    EXPECT_NE(
            found.computePlan.find("\n2 queries in 1 tile, "),
            std::string::npos)
            << found.computePlan;
}

TEST_F(ComputeProfile, says_in_a_line_what_was_planned) {
    const auto expectPlan = [&](ExactWay way, const std::string& plan) {
        makeBy(way);
        const std::string text = profile().computePlan;
        EXPECT_EQ(text.find(plan), 0u) << text;
        EXPECT_EQ(text.find('\n'), std::string::npos);
        EXPECT_NE(text.find(" bytes of scratch memory"), std::string::npos);
    };
    expectPlan(
            ExactWay::Scan, "10 queries by a scan of 300 vectors, lists of 20");
    expectPlan(
            ExactWay::TensorScan,
            "10 queries by a scan of 300 vectors by tensor cores, lists of 20");
    expectPlan(
            ExactWay::Scores,
            "10 queries in 1 tile, by scores of cuBLAS and filters of 300 "
            "vectors: sample of 100 (rank 3), 3 stages, no second round, lists "
            "of 20, last path in 3 chunks; copies of the rows of each filter");
    expectPlan(
            ExactWay::FusedFilter,
            "10 queries in 1 tile, by fused filters of 300 vectors: sample of");
}

TEST_F(ComputeProfile, tells_the_queries_paths) {
    const auto expectPaths =
            [&](int64_t certified, int64_t widened, int64_t last) {
                const auto found = profile();
                EXPECT_TRUE(found.paths.counted);
                EXPECT_EQ(found.paths.certified, certified);
                EXPECT_EQ(found.paths.widened, widened);
                EXPECT_EQ(found.paths.last, last);
            };
    makeBy(ExactWay::FusedFilter);
    expectPaths(kQueries, 0, 0);
    // Of this search alone, whatever was counted before.
    expectPaths(kQueries, 0, 0);
    cuda_sim_exact_faults wrong{};
    wrong.overflow = 1;
    cuda_sim_set_exact_faults(&wrong);
    expectPaths(0, kQueries, 0);
    wrong.overflow = 2;
    cuda_sim_set_exact_faults(&wrong);
    expectPaths(0, 0, kQueries);
}

TEST_F(ComputeProfile, has_floors_of_what_is_known) {
    makeBy(ExactWay::FusedFilter);
    auto found = profileAgain();
    EXPECT_NE(found.peaks.find("1071 Tflop/s"), std::string::npos)
            << found.peaks;
    const double pairs = double(kQueries) * kVectors;
    const auto expectFloor = [&](const char* name, double floor) {
        EXPECT_NEAR(stageOf(found, name).floor, floor, 1e-6 * floor) << name;
    };
    const double copyBytes = kDims * 2;
    expectFloor("copy vectors", kVectors * (kDims * 4 + copyBytes) / kBytes);
    expectFloor("write results", kQueries * kNearest * 20 / kBytes);
    // So few are bound by memory.
    expectFloor(
            "filter 1",
            (kQueries * copyBytes + 100 * (copyBytes + 8)) / kBytes);
    EXPECT_EQ(stageOf(found, "second filter").floor, 0);
    EXPECT_EQ(stageOf(found, "last path").floor, 0);
    EXPECT_EQ(stageOf(found, "select 1").floor, -1);
    EXPECT_EQ(stageOf(found, "first cut").floor, -1);
    EXPECT_NEAR(
            found.floor,
            (kVectors * kDims * 4 + kQueries * (kDims * 4 + kNearest * 12)) /
                    kBytes,
            1e-12);
    EXPECT_DOUBLE_EQ(
            found.roofline(), found.floor / found.secondsIn(Stage::Compute));

    cuda_sim_exact_faults wrong{};
    wrong.overflow = 1;
    cuda_sim_set_exact_faults(&wrong);
    found = profile();
    expectFloor("second filter", 2 * pairs * kDims / kTensorOperations);
    EXPECT_EQ(stageOf(found, "last path").floor, 0);
    wrong.overflow = 2;
    cuda_sim_set_exact_faults(&wrong);
    found = profile();
    EXPECT_EQ(stageOf(found, "filter 1").floor, 0);
    expectFloor("last path", 2 * pairs * kDims / kFloatInstructions);

    cuda_sim_set_exact_faults(nullptr);
    makeBy(ExactWay::Scan);
    found = profile();
    expectFloor("scan", kVectors * kDims * 4 / kBytes);
    EXPECT_EQ(stageOf(found, "scan cut").floor, -1);
}

TEST_F(ComputeProfile, says_nothing_of_paths_that_cannot_be_counted) {
    makeBy(ExactWay::FusedFilter);
    cuda_sim_fail_call("cudaHostAlloc", 1, cudaErrorMemoryAllocation);
    const auto found = profile();
    EXPECT_FALSE(found.paths.counted);
    EXPECT_EQ(stageOf(found, "last path").floor, -1);
    EXPECT_GT(stageOf(found, "copy vectors").floor, 0);
}

TEST_F(ComputeProfile, of_other_kernels_tells_nothing_of_this) {
    TunedConfig config;
    config.search = "faiss";
    make(config);
    std::vector<float> distances(kQueries * kNearest);
    std::vector<int64_t> labels(kQueries * kNearest);
    const auto found = index_->profile_search(
            kQueries,
            queries_.data(),
            kNearest,
            distances.data(),
            labels.data());
    EXPECT_TRUE(found.computeSpans.empty());
    EXPECT_TRUE(found.computeStages.empty());
    EXPECT_EQ(found.computePlan, "");
    EXPECT_EQ(found.peaks, "");
    EXPECT_EQ(found.floor, -1);
    EXPECT_EQ(found.roofline(), -1);
    EXPECT_FALSE(found.paths.counted);
}

class ComputeProfileBy : public ComputeProfile,
                         public ::testing::WithParamInterface<ExactWay> {};

INSTANTIATE_TEST_SUITE_P(
        ,
        ComputeProfileBy,
        ::testing::Values(
                ExactWay::Scan,
                ExactWay::TensorScan,
                ExactWay::FusedFilter,
                ExactWay::Scores));

TEST_P(ComputeProfileBy, costs_other_searches_nothing) {
    makeBy(GetParam());
    profile();
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, kQueries * kNearest);
    Array<int64_t> labels(Memory::Device, kQueries * kNearest);
    const auto search = [&] {
        index_->search(
                kQueries, x.data(), kNearest, distances.data(), labels.data());
    };
    search();
    check(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    search();
    EXPECT_EQ(counts().event_records, 0u);
    EXPECT_EQ(hostWaits(), 0u);
    EXPECT_EQ(cuda_sim_calls("cudaEventElapsedTime"), 0u);
    check(cudaDeviceSynchronize());
}

TEST_P(ComputeProfileBy, enqueues_what_a_search_does_and_waits_no_more) {
    makeBy(GetParam());
    profileAgain();
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, kQueries * kNearest);
    Array<int64_t> labels(Memory::Device, kQueries * kNearest);
    cuda_sim_reset_counters();
    index_->search(
            kQueries, x.data(), kNearest, distances.data(), labels.data());
    check(cudaDeviceSynchronize());
    const auto launched = launches();
    EXPECT_NE(launched, std::vector<uint64_t>(launched.size()));
    cuda_sim_reset_counters();
    index_->resetTransferStats();
    const auto found = profile();
    EXPECT_EQ(launches(), launched);
    // Five for the clocks, and one for the search.
    EXPECT_EQ(index_->getTransferStats().hostWaits, 6u);
    EXPECT_EQ(counts().events_created, 0u);
    // An event for each stage: beside five for the clocks, two for the whole,
    // and the one that is waited for.
    EXPECT_EQ(counts().event_records, found.computeSpans.size() + 5 + 2 + 1);
}

TEST_P(ComputeProfileBy, after_one_that_failed_is_right) {
    makeBy(GetParam());
    const Names names = namesOf(profileAgain());
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, kQueries * kNearest);
    Array<int64_t> labels(Memory::Device, kQueries * kNearest);
    // At each stage's event.
    for (size_t i = 1; i <= names.size(); ++i) {
        cuda_sim_fail_call(
                "libfaiss_ext/cudaEventRecord",
                5 + 1 + i,
                cudaErrorInvalidValue);
        EXPECT_THROW(
                index_->profile_search(
                        kQueries,
                        x.data(),
                        kNearest,
                        distances.data(),
                        labels.data()),
                CudaError);
        EXPECT_EQ(cuda_sim_pending(), 0u);
        cuda_sim_clear_faults();
    }
    const auto found = profile();
    EXPECT_EQ(namesOf(found), names);
    EXPECT_EQ(found.paths.certified, int64_t(kQueries));
}

} // namespace
