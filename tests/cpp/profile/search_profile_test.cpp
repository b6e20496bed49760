// What profile_search tells of a search, on the simulated clock of the GPU.

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <faiss/gpu/StandardGpuResources.h>

#include <chrono>
#include <map>
#include <memory>
#include <thread>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::Lane;
using faiss_ext::gpu::nameOf;
using faiss_ext::gpu::SearchProfile;
using faiss_ext::gpu::Stage;
using faiss_ext::gpu::StageSpan;
using namespace test;

constexpr int kDims = 16;
constexpr int kNearest = 5;
constexpr size_t kQueries = 90;
constexpr uint64_t kQueryBytes = kDims * sizeof(float);
constexpr uint64_t kResultBytes = kNearest * (sizeof(float) + sizeof(int64_t));

// A kernel of the simulator takes 10 microseconds, a copy of a few bytes 2.
constexpr double kKernel = 10e-6;

class Profile : public SimTest {
   protected:
    std::unique_ptr<GpuIndexFlatL2> makeIndex(
            int64_t tileRows, size_t oneTileBytes = 0) {
        TunedConfig config;
        config.tileRows = tileRows;
        config.oneTileBytes = oneTileBytes;
        config.mappedBytes = 1;
        auto index = std::make_unique<GpuIndexFlatL2>(
                &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
        index->add(400, base_.data());
        check(cudaDeviceSynchronize());
        return index;
    }

    /// A profiled search whose results are those of the oracle.
    SearchProfile profile(
            const GpuIndexFlatL2& index, Memory x, Memory results) {
        Array<float> xs(x, queries_);
        Array<float> distances(results, kQueries * kNearest);
        Array<int64_t> labels(results, kQueries * kNearest);
        const auto profile = index.profile_search(
                kQueries, xs.data(), kNearest, distances.data(), labels.data());
        EXPECT_EQ(cuda_sim_pending(), 0u);
        expectNeighbours(
                {distances.get(), labels.get()},
                oracle_,
                base_,
                queries_,
                kDims,
                kNearest);
        return profile;
    }

    faiss::gpu::StandardGpuResources resources_;
    const std::vector<float> base_ = randomVectors(400, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    const Neighbours oracle_ = searchOnCpu(base_, queries_, kDims, kNearest);
};

using Stages = std::vector<Stage>;

/// The stages in their order, those of the GPU or those of the host: the
/// simulated time of the one has nothing to do with the time of the other.
Stages stagesOf(const SearchProfile& profile, bool onGpu) {
    Stages stages;
    for (const StageSpan& span : profile.spans) {
        const bool isOnGpu = span.stage == Stage::Upload ||
                             span.stage == Stage::Compute ||
                             span.stage == Stage::CopyBack;
        if (isOnGpu == onGpu) {
            stages.push_back(span.stage);
        }
    }
    return stages;
}

StageSpan find(const SearchProfile& profile, Stage stage, int64_t tile) {
    for (const StageSpan& span : profile.spans) {
        if (span.stage == stage && span.tile == tile) {
            return span;
        }
    }
    ADD_FAILURE() << "no " << nameOf(stage) << " of tile " << tile;
    return {};
}

TEST_F(Profile, has_the_stages_of_a_search_in_one_tile) {
    auto index = makeIndex(0);
    const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
    EXPECT_EQ(found.tiles, 1);
    EXPECT_EQ(
            stagesOf(found, true),
            (Stages{Stage::Upload, Stage::Compute, Stage::CopyBack}));
    EXPECT_EQ(
            stagesOf(found, false),
            (Stages{Stage::HostRead, Stage::Wait, Stage::HostCopy}));
    EXPECT_EQ(find(found, Stage::HostRead, 0).bytes, kQueries * kQueryBytes);
    EXPECT_EQ(find(found, Stage::Upload, 0).bytes, kQueries * kQueryBytes);
    EXPECT_EQ(find(found, Stage::Compute, 0).bytes, 0u);
    EXPECT_EQ(find(found, Stage::CopyBack, 0).bytes, kQueries * kResultBytes);
    EXPECT_EQ(find(found, Stage::HostCopy, 0).bytes, kQueries * kResultBytes);
    EXPECT_EQ(find(found, Stage::Wait, -1).lane, Lane::CallingThread);
    EXPECT_EQ(find(found, Stage::Upload, 0).lane, Lane::DefaultStream);
    EXPECT_EQ(find(found, Stage::CopyBack, 0).lane, Lane::DefaultStream);
}

TEST_F(Profile, has_only_the_stages_that_the_placement_needs) {
    for (int64_t tileRows : {0, 9}) {
        auto index = makeIndex(tileRows);
        const auto pinned = profile(*index, Memory::Pinned, Memory::Pinned);
        EXPECT_EQ(pinned.secondsIn(Stage::HostRead), 0);
        EXPECT_EQ(pinned.secondsIn(Stage::HostCopy), 0);
        EXPECT_EQ(stagesOf(pinned, false), Stages{Stage::Wait});

        const auto device = profile(*index, Memory::Device, Memory::Device);
        EXPECT_EQ(device.tiles, 1);
        EXPECT_EQ(stagesOf(device, true), Stages{Stage::Compute});
        EXPECT_EQ(stagesOf(device, false), Stages{Stage::Wait});
    }
}

TEST_F(Profile, counts_no_bytes_that_the_kernels_wrote_to_the_host) {
    TunedConfig config;
    config.mappedBytes = 1 << 20;
    GpuIndexFlatL2 index(
            &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
    index.add(400, base_.data());
    // Managed memory is copied to in any case.
    Array<float> distances(Memory::Managed, kQueries * kNearest);
    Array<int64_t> labels(Memory::Pinned, kQueries * kNearest);
    const auto found = index.profile_search(
            kQueries,
            queries_.data(),
            kNearest,
            distances.data(),
            labels.data());
    EXPECT_EQ(
            find(found, Stage::CopyBack, 0).bytes,
            kQueries * kNearest * sizeof(float));
}

TEST_F(Profile, of_results_on_the_gpu_waits_for_them) {
    for (int64_t tileRows : {0, 9}) {
        auto index = makeIndex(tileRows);
        const auto found = profile(*index, Memory::Pageable, Memory::Device);
        EXPECT_EQ(found.tiles, tileRows == 0 ? 1 : 10);
        EXPECT_EQ(stagesOf(found, false).back(), Stage::Wait);
        EXPECT_GT(found.secondsIn(Stage::Compute), 0);
        EXPECT_EQ(found.secondsIn(Stage::CopyBack), 0);
    }
}

TEST_F(Profile, has_the_stages_of_each_tile) {
    auto index = makeIndex(9, 1);
    const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
    EXPECT_EQ(found.tiles, 10);
    EXPECT_EQ(found.spans.size(), 5u * 10 + 3 + 1);
    for (int64_t tile = 0; tile < found.tiles; ++tile) {
        const auto read = find(found, Stage::HostRead, tile);
        const auto up = find(found, Stage::Upload, tile);
        const auto compute = find(found, Stage::Compute, tile);
        const auto down = find(found, Stage::CopyBack, tile);
        const auto copy = find(found, Stage::HostCopy, tile);
        EXPECT_EQ(up.lane, Lane::UploadStream);
        EXPECT_EQ(compute.lane, Lane::DefaultStream);
        EXPECT_EQ(down.lane, Lane::CopyStream);
        // The calling thread has waited for the last one.
        EXPECT_EQ(copy.lane, tile < 9 ? Lane::CopyStream : Lane::CallingThread);
        // Those that have a slot are read ahead, the later ones in order of
        // the upload stream.
        if (tile < 3) {
            EXPECT_EQ(read.lane, Lane::CopyThreads);
            const auto wait = find(found, Stage::Wait, tile);
            EXPECT_EQ(wait.lane, Lane::CallingThread);
            EXPECT_EQ(wait.bytes, 0u);
            EXPECT_GE(wait.end, read.end);
        } else {
            EXPECT_EQ(read.lane, Lane::UploadStream);
        }
        EXPECT_EQ(read.bytes, 9 * kQueryBytes);
        EXPECT_EQ(up.bytes, 9 * kQueryBytes);
        EXPECT_EQ(down.bytes, 9 * kResultBytes);
        EXPECT_EQ(copy.bytes, 9 * kResultBytes);
        EXPECT_GE(compute.begin, up.end);
        EXPECT_GE(down.begin, compute.end);
    }
}

TEST_F(Profile, has_one_host_copy_of_the_last_tiles_if_they_are_small) {
    auto index = makeIndex(9);
    const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
    EXPECT_EQ(found.tiles, 10);
    for (int64_t tile = 0; tile < 7; ++tile) {
        EXPECT_EQ(find(found, Stage::HostCopy, tile).lane, Lane::CopyStream);
    }
    // Three are under way at once.
    const auto last = find(found, Stage::HostCopy, -1);
    EXPECT_EQ(last.lane, Lane::CallingThread);
    EXPECT_EQ(last.bytes, 3 * 9 * kResultBytes);
    EXPECT_GE(last.begin, find(found, Stage::Wait, -1).end);
    EXPECT_EQ(found.spans.size(), 4u * 10 + 7 + 1 + 3 + 1);
}

TEST_F(Profile,
       has_a_host_copy_of_as_many_last_tiles_as_one_tile_may_have_bytes) {
    constexpr size_t kTwoTiles = 2 * 9 * kResultBytes;
    for (size_t oneTileBytes : {kTwoTiles - 1, kTwoTiles}) {
        auto index = makeIndex(9, oneTileBytes);
        const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
        const bool two = oneTileBytes == kTwoTiles;
        const auto last = find(found, Stage::HostCopy, two ? -1 : 9);
        EXPECT_EQ(last.lane, Lane::CallingThread);
        EXPECT_EQ(last.bytes, (two ? 2 : 1) * 9 * kResultBytes);
    }
}

TEST_F(Profile, spans_of_one_lane_do_not_overlap) {
    auto index = makeIndex(9);
    const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
    std::map<std::pair<Lane, bool>, double> end;
    for (const StageSpan& span : found.spans) {
        const bool ofHost =
                span.stage == Stage::HostRead || span.stage == Stage::HostCopy;
        auto [last, first] = end.emplace(std::pair(span.lane, ofHost), 0);
        EXPECT_LE(span.begin, span.end);
        if (!first) {
            EXPECT_GE(span.begin, last->second) << nameOf(span.lane);
        }
        last->second = span.end;
    }
}

TEST_F(Profile, does_not_count_the_wait_for_kernels_as_copying) {
    for (int64_t tileRows : {0, 9}) {
        auto index = makeIndex(tileRows);
        const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
        for (const StageSpan& span : found.spans) {
            if (span.stage == Stage::Compute) {
                EXPECT_GE(span.end - span.begin, kKernel);
            } else if (
                    span.stage == Stage::Upload ||
                    span.stage == Stage::CopyBack) {
                EXPECT_LT(span.end - span.begin, kKernel / 2)
                        << nameOf(span.stage);
            }
        }
    }
}

TEST_F(Profile, shows_that_copies_run_beside_kernels) {
    auto index = makeIndex(9);
    const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
    for (int64_t tile = 1; tile + 1 < found.tiles; ++tile) {
        const auto next = find(found, Stage::Compute, tile + 1);
        EXPECT_GE(find(found, Stage::CopyBack, tile).begin, next.begin - 5e-6);
        EXPECT_LT(find(found, Stage::CopyBack, tile).begin, next.end);
        EXPECT_LT(find(found, Stage::Upload, tile + 1).end, next.begin);
    }
}

TEST_F(Profile, does_not_count_the_wait_for_earlier_work) {
    using Clock = std::chrono::steady_clock;
    auto index = makeIndex(0);
    cuda_sim_hold_stream(resources_.getDefaultStream(0));
    SearchProfile found;
    Clock::time_point returned;
    std::thread caller([&] {
        found = profile(*index, Memory::Pageable, Memory::Pageable);
        returned = Clock::now();
    });
    while (hostWaits() == 0) {
        std::this_thread::yield();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const auto released = Clock::now();
    cuda_sim_release_stream(resources_.getDefaultStream(0));
    caller.join();
    EXPECT_LE(
            found.seconds,
            std::chrono::duration<double>(returned - released).count());
}

TEST_F(Profile, lies_within_the_call_as_far_as_the_host_does_it) {
    auto index = makeIndex(9);
    const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
    EXPECT_GT(found.seconds, 0);
    EXPECT_GT(found.clockError, 0);
    for (const StageSpan& span : found.spans) {
        if (span.stage == Stage::HostRead || span.stage == Stage::HostCopy ||
            span.stage == Stage::Wait) {
            EXPECT_GE(span.begin, 0) << nameOf(span.stage);
            EXPECT_LE(span.end, found.seconds) << nameOf(span.stage);
            EXPECT_GT(span.end, span.begin) << nameOf(span.stage);
        }
    }
}

TEST_F(Profile, joins_the_clocks_where_they_were_compared_best) {
    using faiss_ext::gpu::Event;
    using namespace std::chrono_literals;
    const faiss_ext::gpu::Stream stream;
    faiss_ext::gpu::StageRecorder recorder;
    int comparisons = 0;
    recorder.start(stream.get(), [&](const Event& event) {
        event.wait();
        // All but the second are bad ones.
        if (++comparisons != 2) {
            std::this_thread::sleep_for(50ms);
        }
    });
    ASSERT_GT(comparisons, 4);
    recorder.begin(StageSpan(), stream.get());
    recorder.end(stream.get());
    check(cudaDeviceSynchronize());
    const auto found = recorder.finish(1, {}, {});
    EXPECT_LT(found.clockError, 0.025);
    // The simulated time since then is a few microseconds; the call began when
    // the host was through with the rest.
    EXPECT_LT(found.spans[0].begin, -0.05 * (comparisons - 2) + 0.001);
}

TEST_F(Profile, waits_once_for_the_search_and_five_times_for_the_clocks) {
    for (Memory results : {Memory::Pageable, Memory::Device}) {
        auto index = makeIndex(9);
        profile(*index, Memory::Pageable, results);
        index->resetTransferStats();
        profile(*index, Memory::Pageable, results);
        EXPECT_EQ(index->getTransferStats().hostWaits, 6u);
    }
}

TEST_F(Profile, costs_searches_without_it_nothing) {
    for (int64_t tileRows : {0, 9}) {
        auto index = makeIndex(tileRows);
        std::vector<float> distances(kQueries * kNearest);
        std::vector<int64_t> labels(kQueries * kNearest);
        const auto calls = [&] {
            check(cudaDeviceSynchronize());
            cuda_sim_reset_counters();
            index->search(
                    kQueries,
                    queries_.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
            return cuda_sim_calls("*");
        };
        calls();
        calls();
        const auto before = calls();
        EXPECT_EQ(cuda_sim_calls("cudaEventElapsedTime"), 0u);
        EXPECT_EQ(counts().event_records, tileRows == 0 ? 1u : 3 * 10u + 2);
        profile(*index, Memory::Pageable, Memory::Pageable);
        EXPECT_EQ(calls(), before);
    }
}

TEST_F(Profile, keeps_its_events_for_the_next_one) {
    auto index = makeIndex(9);
    profile(*index, Memory::Pageable, Memory::Pageable);
    cuda_sim_reset_counters();
    const auto again = profile(*index, Memory::Pageable, Memory::Pageable);
    EXPECT_EQ(counts().events_created, 0u);
    EXPECT_EQ(again.spans.size(), 52u);
}

TEST_F(Profile, after_one_that_failed_is_right) {
    auto index = makeIndex(9);
    std::vector<float> distances(kQueries * kNearest);
    std::vector<int64_t> labels(kQueries * kNearest);
    cuda_sim_fail_call(
            "libfaiss_ext/cudaLaunchHostFunc", 3, cudaErrorInvalidValue);
    EXPECT_THROW(
            index->profile_search(
                    kQueries,
                    queries_.data(),
                    kNearest,
                    distances.data(),
                    labels.data()),
            faiss_ext::gpu::CudaError);
    const auto found = profile(*index, Memory::Pageable, Memory::Pageable);
    EXPECT_EQ(found.spans.size(), 52u);
}

TEST_F(Profile, that_cannot_wait_ends_its_work_before_it_throws) {
    for (int64_t tileRows : {0, 9}) {
        for (Memory x : {Memory::Pinned, Memory::Device}) {
            auto index = makeIndex(tileRows);
            Array<float> xs(x, queries_);
            Array<float> distances(Memory::Device, kQueries * kNearest);
            Array<int64_t> labels(Memory::Device, kQueries * kNearest);
            const auto search = [&] {
                index->profile_search(
                        kQueries,
                        xs.data(),
                        kNearest,
                        distances.data(),
                        labels.data());
            };
            search();
            cuda_sim_fail_call(
                    "libfaiss_ext/cudaEventSynchronize",
                    6,
                    cudaErrorInvalidValue);
            EXPECT_THROW(search(), faiss_ext::gpu::CudaError);
            EXPECT_EQ(cuda_sim_pending(), 0u);
        }
    }
}

TEST_F(Profile, of_no_query_is_empty) {
    auto index = makeIndex(0);
    const auto found =
            index->profile_search(0, nullptr, kNearest, nullptr, nullptr);
    EXPECT_TRUE(found.spans.empty());
    EXPECT_EQ(found.seconds, 0);
    EXPECT_EQ(found.tiles, 0);
}

TEST_F(Profile, refuses_what_a_search_refuses) {
    auto index = makeIndex(0);
    std::vector<float> distances(kQueries * kNearest);
    std::vector<int64_t> labels(kQueries * kNearest);
    EXPECT_THROW(
            index->profile_search(
                    kQueries, queries_.data(), 5, nullptr, labels.data()),
            faiss_ext::gpu::InvalidArray);
    EXPECT_THROW(
            index->profile_search(
                    kQueries,
                    queries_.data(),
                    0,
                    distances.data(),
                    labels.data()),
            faiss::FaissException);
}

} // namespace
