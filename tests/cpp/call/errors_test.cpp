// Bad arguments and failing CUDA calls: one exception, nothing lost, and the
// index answers afterwards.

#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/impl/IDSelector.h>

#include <sys/mman.h>

#include <functional>
#include <memory>
#include <new>
#include <stdexcept>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::InvalidArray;
using faiss_ext::gpu::Unsupported;
using namespace test;

constexpr int kDims = 8;
constexpr int kNearest = 4;
constexpr size_t kQueries = 60;

class Errors : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        TunedConfig config;
        config.tileRows = 9;
        index_ = std::make_unique<GpuIndexFlatL2>(
                &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
        index_->add(100, base_.data());
    }

    void search(int64_t n, int64_t k, const faiss::SearchParameters* params) {
        index_->search(
                n,
                queries_.data(),
                k,
                distances_.data(),
                labels_.data(),
                params);
    }

    template <typename Exception>
    void expectThrow(const std::function<void()>& call, const char* text) {
        try {
            call();
            ADD_FAILURE() << "nothing thrown; expected: " << text;
        } catch (const Exception& e) {
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos)
                    << e.what();
        }
        expectAnswers();
    }

    void expectAnswers() {
        search(kQueries, kNearest, nullptr);
        expectNeighbours(
                {distances_, labels_},
                oracle_,
                base_,
                queries_,
                kDims,
                kNearest);
    }

    faiss::gpu::StandardGpuResources resources_;
    const std::vector<float> base_ = randomVectors(100, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    const Neighbours oracle_ = searchOnCpu(base_, queries_, kDims, kNearest);
    std::vector<float> distances_ = std::vector<float>(kQueries * kNearest);
    std::vector<int64_t> labels_ = std::vector<int64_t>(kQueries * kNearest);
    std::unique_ptr<GpuIndexFlatL2> index_;
};

TEST_F(Errors, k_out_of_range_has_faiss_text) {
    for (int64_t k :
         {int64_t(0), int64_t(-1), int64_t(5000), int64_t(1) << 33}) {
        expectThrow<faiss::FaissException>(
                [&] { search(kQueries, k, nullptr); },
                "GPU index only supports min/max-K selection up to");
    }
}

TEST_F(Errors, a_negative_or_too_large_count_is_refused) {
    for (int64_t n : {int64_t(-1), int64_t(1) << 40}) {
        expectThrow<faiss::FaissException>(
                [&] { search(n, kNearest, nullptr); }, "");
    }
}

TEST_F(Errors, null_arrays_are_named) {
    expectThrow<InvalidArray>(
            [&] {
                index_->search(
                        1, nullptr, 1, distances_.data(), labels_.data());
            },
            "x is null");
    expectThrow<InvalidArray>(
            [&] {
                index_->search(1, queries_.data(), 1, nullptr, labels_.data());
            },
            "distances is null");
    expectThrow<InvalidArray>(
            [&] {
                index_->search(
                        1, queries_.data(), 1, distances_.data(), nullptr);
            },
            "labels is null");
    expectThrow<InvalidArray>([&] { index_->add(1, nullptr); }, "x is null");
    expectThrow<InvalidArray>(
            [&] { index_->reconstruct(0, nullptr); }, "out is null");
}

TEST_F(Errors, overlapping_arrays_are_named) {
    std::vector<int64_t> shared(kQueries * kNearest * 2);
    expectThrow<InvalidArray>(
            [&] {
                index_->search(
                        kQueries,
                        queries_.data(),
                        kNearest,
                        reinterpret_cast<float*>(shared.data() + 10),
                        shared.data());
            },
            "overlap");
    std::vector<float> inOut = queries_;
    expectThrow<InvalidArray>(
            [&] {
                index_->search(
                        kQueries,
                        inOut.data(),
                        kNearest,
                        inOut.data(),
                        labels_.data());
            },
            "distances and x overlap");
    EXPECT_EQ(inOut, queries_);
}

TEST_F(Errors, a_device_array_that_ends_too_early_is_refused) {
    Array<float> half(Memory::Device, kQueries * kDims / 2);
    expectThrow<InvalidArray>(
            [&] {
                index_->search(
                        kQueries,
                        half.data(),
                        kNearest,
                        distances_.data(),
                        labels_.data());
            },
            "x is shorter");
}

TEST_F(Errors, an_id_selector_is_not_ignored) {
    faiss::IDSelectorRange selector(0, 10);
    faiss::SearchParameters params;
    params.sel = &selector;
    expectThrow<Unsupported>(
            [&] { search(kQueries, kNearest, &params); }, "selected ids");
    faiss::SearchParameters plain;
    search(kQueries, kNearest, &plain);
}

TEST_F(Errors, keys_out_of_bounds_are_refused) {
    std::vector<float> out(3 * kDims);
    for (int64_t key : {int64_t(-2), int64_t(100)}) {
        const int64_t keys[] = {1, key, 2};
        expectThrow<faiss::FaissException>(
                [&] { index_->reconstruct_batch(3, keys, out.data()); },
                "out of bounds");
    }
    expectThrow<faiss::FaissException>(
            [&] { index_->reconstruct(-1, out.data()); }, "out of bounds");
    expectThrow<faiss::FaissException>(
            [&] { index_->reconstruct_n(98, 3, out.data()); }, "out of bounds");
}

TEST_F(Errors, a_bad_config_is_refused) {
    const auto expectRefused = [&](const TunedConfig& config,
                                   const char* name) {
        expectThrow<InvalidArray>(
                [&] {
                    GpuIndexFlatL2(
                            &resources_,
                            kDims,
                            faiss::gpu::GpuIndexFlatConfig(),
                            config);
                },
                name);
    };
    TunedConfig config;
    config.pipelineDepth = -1;
    expectRefused(config, "pipelineDepth");
    config.pipelineDepth = 0;
    config.tileRows = -1;
    expectRefused(config, "tileRows");
    config.tileRows = 0;
    config.copyThreads = -1;
    expectRefused(config, "copyThreads");
    config.copyThreads = 0;
    config.batchedQueries = -1;
    expectRefused(config, "batchedQueries");
}

TEST_F(Errors, pinned_memory_that_is_too_small_says_so) {
    faiss::gpu::StandardGpuResources unpinned;
    unpinned.setPinnedMemory(0);
    TunedConfig config;
    config.pinnedBytes = 4096;
    GpuIndexFlatL2 index(
            &unpinned, 2048, faiss::gpu::GpuIndexFlatConfig(), config);
    const auto vectors = randomVectors(3, 2048, 3);
    index.add(3, vectors.data());
    try {
        index.search(3, vectors.data(), 1, distances_.data(), labels_.data());
        ADD_FAILURE() << "nothing thrown";
    } catch (const faiss::FaissException& e) {
        EXPECT_NE(
                std::string(e.what()).find("StagedConfig::pinnedBytes"),
                std::string::npos);
    }
}

TEST_F(Errors, a_copy_that_does_not_fit_leaves_an_empty_index) {
    faiss::IndexFlatL2 cpu(kDims);
    const auto many = randomVectors(5000, kDims, 5);
    cpu.add(5000, many.data());
    cuda_sim_fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
    EXPECT_THROW(index_->copyFrom(&cpu), faiss::FaissException);
    EXPECT_EQ(index_->ntotal, 0);
    search(kQueries, kNearest, nullptr);
    EXPECT_EQ(labels_, std::vector<int64_t>(labels_.size(), -1));
    index_->add(100, base_.data());
    expectAnswers();
}

TEST_F(Errors, a_copy_of_another_metric_changes_nothing) {
    faiss::IndexFlatIP cpu(kDims);
    EXPECT_THROW(index_->copyFrom(&cpu), faiss::FaissException);
    expectAnswers();
}

TEST_F(Errors, every_call_of_ours_may_fail_once) {
    // A sweep over all calls of the functions that only this library makes
    // during a search; Faiss' own calls abort the process when they fail.
    for (const char* function :
         {"cudaMemcpyAsync",
          "cudaEventRecord",
          "cudaStreamWaitEvent",
          "cudaEventSynchronize",
          "cudaLaunchHostFunc",
          "cudaPointerGetAttributes"}) {
        cuda_sim_reset_counters();
        expectAnswers();
        const uint64_t calls = cuda_sim_calls(function);
        EXPECT_GT(calls, 0u) << function;
        for (uint64_t nth = 1; nth <= calls; ++nth) {
            SCOPED_TRACE(std::string(function) + " " + std::to_string(nth));
            // Not for want of memory: that is tried again with fewer rows.
            cuda_sim_fail_call(function, nth, cudaErrorInvalidValue);
            try {
                search(kQueries, kNearest, nullptr);
                ADD_FAILURE() << "nothing thrown";
            } catch (const CudaError& e) {
                EXPECT_EQ(e.code(), cudaErrorInvalidValue);
            }
            EXPECT_EQ(cuda_sim_pending(), 0u);
            cuda_sim_clear_faults();
            expectAnswers();
        }
    }
}

TEST_F(Errors, work_that_throws_half_way_leaves_nothing_in_flight) {
    auto resources = resources_.getResources();
    CallRunner runner(resources, 0, TunedConfig());
    const auto alternate = resources->getAlternateStreams(0).front();
    for (Memory memory : kAllMemories) {
        SCOPED_TRACE(nameOf(memory));
        Array<float> out(memory, kQueries);
        // As Faiss does it: some kernels on the default stream, some on others.
        const auto half = [&](auto& on,
                              int64_t,
                              int64_t rows,
                              const void* const*,
                              void* const* outputs) {
            auto* first = static_cast<float*>(outputs[0]);
            const int64_t ofTheFirst = rows / 2;
            check(cudaMemsetAsync(
                    first, 0, ofTheFirst * sizeof(float), on.stream));
            check(cudaMemsetAsync(
                    first + ofTheFirst,
                    0,
                    (rows - ofTheFirst) * sizeof(float),
                    alternate));
            throw faiss::FaissException("no memory for the other half");
        };
        expectThrow<faiss::FaissException>(
                [&] {
                    try {
                        runRows(runner,
                                kQueries,
                                {},
                                {{"out", out.data(), 4}},
                                half);
                    } catch (...) {
                        EXPECT_EQ(cuda_sim_pending(), 0u);
                        throw;
                    }
                },
                "the other half");
    }
}

TEST_F(Errors, a_call_that_cannot_be_waited_for_gives_the_arrays_back) {
    // Half of its tiles are enqueued, and no wait for them succeeds.
    constexpr int64_t kRows = 8;
    TunedConfig config;
    config.tileRows = 1;
    config.pipelineDepth = 2;
    auto resources = resources_.getResources();
    CallRunner runner(resources, 0, config);
    std::vector<int> in(kRows, 1);
    std::vector<int> out(kRows, 0);
    std::vector<const void*> blocks;
    const auto copy = [&](auto& on,
                          int64_t first,
                          int64_t,
                          const void* const* inputs,
                          void* const* outputs) {
        check(cudaMemcpyAsync(
                outputs[0],
                inputs[0],
                sizeof(int),
                cudaMemcpyDefault,
                on.stream));
        blocks.push_back(inputs[0]);
        if (first == kRows - 1) {
            throw std::runtime_error("enough");
        }
    };
    const int waits = resources->getAlternateStreams(0).size() + 3;
    for (int nth = 1; nth <= waits; ++nth) {
        cuda_sim_fail_call("cudaStreamSynchronize", nth, cudaErrorInvalidValue);
    }
    const auto run = [&] {
        runRows(runner,
                kRows,
                {{"in", in.data(), sizeof(int)}},
                {{"out", out.data(), sizeof(int)}},
                copy);
    };
    EXPECT_THROW(run(), std::runtime_error);
    // Faiss would take it for an error of its next kernel.
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
    EXPECT_GT(cuda_sim_pending(), 0u);
    // The caller's own from now on.
    in.assign(kRows, 2);
    out.assign(kRows, 3);
    check(cudaDeviceSynchronize());
    EXPECT_EQ(out, std::vector<int>(kRows, 3));
    for (const void* block : blocks) {
        int uploaded = 0;
        EXPECT_EQ(cuda_sim_read_device(block, &uploaded, sizeof(int)), 0);
        EXPECT_NE(uploaded, 2);
    }
}

/// A call that fails half-way, and no wait for what it has enqueued succeeds: a
/// change of `block` on the stream `alternate` of Faiss' is left in flight.
void failWithoutAWait(
        CallRunner& runner, cudaStream_t alternate, Array<float>& block) {
    cuda_sim_fail_call("cudaStreamSynchronize", 1, cudaErrorInvalidValue);
    cuda_sim_fail_call("cudaStreamSynchronize", 2, cudaErrorInvalidValue);
    float out = 0;
    const auto enqueue = [&](auto&&...) {
        check(cudaMemsetAsync(block.data(), 0, 4, alternate));
        throw std::runtime_error("half way");
    };
    EXPECT_THROW(
            runRows(runner, 1, {}, {{"out", &out, 4}}, enqueue),
            std::runtime_error);
    EXPECT_GT(cuda_sim_pending_on(alternate), 0u);
    cuda_sim_clear_faults();
}

TEST_F(Errors, what_could_not_be_waited_for_is_before_any_index_goes_on) {
    // It may use what the resources hold for all, such as Faiss' pinned buffer.
    cuda_sim_set_device_count(2);
    faiss::gpu::StandardGpuResources ofBoth;
    auto resources = ofBoth.getResources();
    const std::function<void(CallRunner&)> calls[] = {
            [](auto& other) {
                float out = 0;
                runRows(other, 1, {}, {{"out", &out, 4}}, [](auto&&...) {});
            },
            [](auto& other) { CallRunner::Change change(other); }};
    for (const auto& [call, device] :
         {std::pair(calls[0], 0),
          std::pair(calls[1], 0),
          std::pair(calls[0], 1),
          std::pair(calls[1], 1)}) {
        CallRunner one(resources, 0, TunedConfig());
        CallRunner other(resources, device, TunedConfig());
        const auto alternate = resources->getAlternateStreams(0).back();
        Array<float> block(Memory::Device, 1);
        failWithoutAWait(one, alternate, block);
        {
            const faiss_ext::gpu::DeviceGuard current(device);
            call(other);
        }
        EXPECT_EQ(cuda_sim_pending_on(alternate), 0u);
    }
}

TEST_F(Errors, what_could_not_be_waited_for_is_over_before_its_runner_is) {
    auto resources = resources_.getResources();
    auto runner = std::make_unique<CallRunner>(resources, 0, TunedConfig());
    const auto alternate = resources->getAlternateStreams(0).back();
    Array<float> block(Memory::Device, 1);
    failWithoutAWait(*runner, alternate, block);
    cuda_sim_reset_counters();
    runner.reset();
    EXPECT_EQ(cuda_sim_pending_on(alternate), 0u);
    // cudaFree, which waits too, is not said to wait for host functions.
    EXPECT_EQ(cuda_sim_calls("cudaDeviceSynchronize"), 1u);
}

TEST_F(Errors, a_failed_add_moves_nothing) {
    // Before the vectors and between them and their norms; a second page of
    // those that are converted to float16 fails after the first is stored.
    const auto more = randomVectors(100, kDims, 7);
    for (bool float16 : {false, true}) {
        faiss::gpu::GpuIndexFlatConfig storage;
        storage.useFloat16 = float16;
        GpuIndexFlatL2 index(&resources_, kDims, storage);
        index.add(100, base_.data());
        index.setMinPagingSize(30 * kDims * sizeof(float));
        Array<float> x(float16 ? Memory::Pinned : Memory::Pageable, more);
        std::vector<float> stored(100 * kDims), now(100 * kDims);
        index.reconstruct_n(0, 100, stored.data());
        bool failed = true;
        int nth = 1;
        for (; failed; ++nth) {
            failed = false;
            cuda_sim_fail_call("cudaMalloc", nth, cudaErrorMemoryAllocation);
            try {
                index.add(100, x.data());
            } catch (const faiss::FaissException&) {
                failed = true;
                // Of x.
                EXPECT_EQ(cuda_sim_pending(), 0u);
                ASSERT_EQ(index.ntotal, 100);
                cuda_sim_clear_faults();
                cuda_sim_reset_counters();
                EXPECT_EQ(bytesDown(), 0u);
                index.reconstruct_n(0, 100, now.data());
                EXPECT_EQ(now, stored);
                index.search(
                        kQueries,
                        queries_.data(),
                        kNearest,
                        distances_.data(),
                        labels_.data());
                EXPECT_EQ(labels_, oracle_.labels);
            }
        }
        cuda_sim_clear_faults();
        EXPECT_GE(nth, 3);
        EXPECT_EQ(index.ntotal, 200);
        index.reconstruct_n(0, 100, now.data());
        EXPECT_EQ(now, stored);
    }
}

TEST_F(Errors, keys_are_looked_at_when_the_stream_has_written_them) {
    const std::vector<int64_t> right = {3, -1, 99, 0, 7};
    const size_t n = right.size();
    Array<int64_t> source(Memory::Device, right);
    const auto stream = resources_.getDefaultStream(0);
    std::vector<float> expected(n * kDims), found(n * kDims);
    index_->reconstruct_batch(n, right.data(), expected.data());
    for (Memory memory : {Memory::Pinned, Memory::Managed}) {
        SCOPED_TRACE(nameOf(memory));
        Array<int64_t> keys(memory, std::vector<int64_t>(n, 1 << 30));
        const auto write = [&] {
            check(cudaMemcpyAsync(
                    keys.data(),
                    source.data(),
                    n * sizeof(int64_t),
                    cudaMemcpyDefault,
                    stream));
        };
        write();
        index_->reconstruct_batch(n, keys.data(), found.data());
        EXPECT_EQ(found, expected);
        write();
        index_->compute_residual_n(
                n, expected.data(), found.data(), keys.data());
        EXPECT_EQ(found[0], 0);
        // One wait more than for the results.
        index_->resetTransferStats();
        index_->reconstruct_batch(n, keys.data(), found.data());
        EXPECT_EQ(index_->getTransferStats().hostWaits, 2u);
    }
}

TEST_F(Errors, an_index_without_resources_is_refused) {
    EXPECT_THROW(
            GpuIndexFlatL2(std::shared_ptr<faiss::gpu::GpuResources>(), kDims),
            faiss::FaissException);
    EXPECT_THROW(
            GpuIndexFlatL2(
                    static_cast<faiss::gpu::GpuResourcesProvider*>(nullptr),
                    kDims),
            faiss::FaissException);
}

TEST_F(Errors, first_search_survives_failing_allocations) {
    for (const char* function :
         {"cudaHostAlloc",
          "cudaMalloc",
          "cudaStreamCreateWithFlags",
          "cudaEventCreateWithFlags"}) {
        for (uint64_t nth = 1; nth <= 12; ++nth) {
            SCOPED_TRACE(std::string(function) + " " + std::to_string(nth));
            TunedConfig config;
            config.tileRows = 9;
            index_ = std::make_unique<GpuIndexFlatL2>(
                    &resources_,
                    kDims,
                    faiss::gpu::GpuIndexFlatConfig(),
                    config);
            index_->add(100, base_.data());
            cuda_sim_fail_call(function, nth, cudaErrorMemoryAllocation);
            try {
                search(kQueries, kNearest, nullptr);
            } catch (const faiss::FaissException&) {
            }
            cuda_sim_clear_faults();
            expectAnswers();
        }
    }
}

TEST_F(Errors, queries_are_not_read_after_a_search_has_failed) {
    // Large, and in many chunks, so that threads are reading ahead when a call
    // fails.
    constexpr int64_t kMany = 210000;
    constexpr int kTiles = 3;
    TunedConfig config;
    config.tileRows = kMany / kTiles;
    config.copyThreads = 4;
    config.copyChunkBytes = size_t(16) << 10;
    index_ = std::make_unique<GpuIndexFlatL2>(
            &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
    index_->add(100, base_.data());
    std::vector<float> distances(kMany * kNearest);
    std::vector<int64_t> labels(kMany * kNearest);
    const auto search = [&] {
        const size_t bytes = kMany * kDims * sizeof(float);
        void* const x =
                mmap(nullptr,
                     bytes,
                     PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS,
                     -1,
                     0);
        if (x == MAP_FAILED) {
            throw std::bad_alloc();
        }
        bool failed = false;
        try {
            index_->search(
                    kMany,
                    static_cast<float*>(x),
                    kNearest,
                    distances.data(),
                    labels.data());
        } catch (const CudaError&) {
            failed = true;
        }
        // Who reads it now ends the process.
        munmap(x, bytes);
        return failed;
    };
    EXPECT_FALSE(search());
    // Each tile is copied up once and down once.
    for (uint64_t nth = 1; nth <= 2 * kTiles; ++nth) {
        cuda_sim_fail_call(
                "libfaiss_ext/cudaMemcpyAsync", nth, cudaErrorInvalidValue);
        EXPECT_TRUE(search()) << "copy " << nth;
        cuda_sim_clear_faults();
    }
    expectAnswers();
}

} // namespace
