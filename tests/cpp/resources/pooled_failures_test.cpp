// PooledGpuResources on a pool that fails, gives what was not asked for, or is
// of a lost GPU: one clear exception, and nothing is lost.

#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <functional>
#include <memory>
#include <set>
#include <stdexcept>

#include "support/Calls.h"
#include "support/PooledTest.h"

namespace {

using faiss_ext::gpu::AllocationError;
using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::DeviceAllocator;
using faiss_ext::gpu::Interrupted;
using namespace test;

using PooledFailures = PooledTest;

TEST_F(PooledFailures, one_failing_request_gives_answers_or_one_exception) {
    // Where it is for a tile, smaller tiles do; where it is Faiss', nothing.
    auto index = makeIndex();
    for (int nth = 1; nth <= 12; ++nth) {
        pool_->fail(nth);
        try {
            expectAnswers(*index);
        } catch (const AllocationError&) {
        }
        pool_->fail(0);
        expectAnswers(*index);
    }
}

TEST_F(PooledFailures, a_pool_that_runs_out_at_any_request_is_one_exception) {
    auto index = makeIndex();
    const size_t scratch = pooled_->getTempMemoryAvailable(0);
    std::vector<float> distances(kResults);
    std::vector<int64_t> labels(kResults);
    int enough = 0;
    for (bool failed = true; failed; enough += failed) {
        pool_->failAllAfter(enough);
        failed = false;
        try {
            index->search(
                    kQueries,
                    queries_.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
        } catch (const AllocationError& e) {
            failed = true;
            const std::string text = e.what();
            EXPECT_NE(text.find("the pool is exhausted"), text.npos) << text;
            EXPECT_NE(text.find("bytes on GPU 0"), text.npos) << text;
        }
        pool_->fail(0);
        EXPECT_EQ(pooled_->getTempMemoryAvailable(0), scratch);
        EXPECT_EQ(told(), pool_->bytesInUse());
        expectAnswers(*index);
    }
    EXPECT_GE(enough, 1);
}

TEST_F(PooledFailures, a_failing_request_orders_what_the_call_gives_back) {
    // As in Faiss' distance computation: scratch of the default stream, used by
    // an alternate one, then a request that fails.
    auto resources = pooled_->getResources();
    const cudaStream_t alternate = resources->getAlternateStreams(0)[0];
    void* scratch = allocate(MemorySpace::Temporary, 4096, defaultStream());
    check(cudaMemsetAsync(scratch, 1, 4096, alternate));
    pool_->fail(1);
    EXPECT_THROW(
            allocate(MemorySpace::Temporary, 512, defaultStream()),
            AllocationError);
    giveBack(scratch);
    void* again = allocate(MemorySpace::Temporary, 4096, defaultStream());
    EXPECT_EQ(again, scratch);
    check(cudaMemsetAsync(again, 2, 4096, defaultStream()));
    giveBack(again);
}

/// Which calls an index while it is asked for memory.
class CallingPool : public CachingPool {
   public:
    void* allocate(size_t bytes, int device, cudaStream_t stream) override {
        if (call) {
            call();
        }
        return CachingPool::allocate(bytes, device, stream);
    }

    std::function<void()> call;
};

TEST_F(PooledFailures, a_change_is_a_call_in_the_midst_of_which_none_is_made) {
    // Between the vectors and their norms the index is neither old nor new.
    for (bool float16 : {false, true}) {
        const auto pool = std::make_shared<CallingPool>();
        PooledGpuResources pooled(pool);
        faiss::gpu::GpuIndexFlatConfig storage;
        storage.useFloat16 = float16;
        GpuIndexFlatL2 index(&pooled, kDims, storage);
        index.add(10, base_.data());
        std::vector<float> distances(kNearest);
        std::vector<int64_t> labels(kNearest);
        int calls = 0;
        const std::function<void()> others[] = {
                [&] {
                    index.search(
                            1,
                            queries_.data(),
                            kNearest,
                            distances.data(),
                            labels.data());
                },
                [&] { index.add(1, base_.data() + kDims); },
                [&] { index.reset(); }};
        pool->call = [&] {
            for (const auto& other : others) {
                EXPECT_THROW(other(), faiss_ext::gpu::Unsupported);
                ++calls;
            }
        };
        index.add(200, base_.data());
        EXPECT_GE(calls, 3);
        pool->call = nullptr;
        EXPECT_EQ(index.ntotal, 210);
        others[0]();
        EXPECT_GE(labels[0], 0);
    }
}

/// Whose next user of what is given back does not wait for anything else.
class EagerPool : public CachingPool {
   public:
    void deallocate(
            void* memory,
            size_t bytes,
            int device,
            cudaStream_t stream) noexcept override {
        cudaMemsetAsync(memory, 0, bytes, stream);
        CachingPool::deallocate(memory, bytes, device, stream);
    }
};

TEST_F(PooledFailures, slices_are_over_when_their_memory_is_given_back) {
    PooledGpuResources pooled(std::make_shared<EagerPool>());
    TunedConfig config;
    config.computeLanes = 3;
    config.search = "faiss";
    config.sliceVectors = 10;
    GpuIndexFlatL2 index(
            &pooled, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
    index.add(base_.size() / kDims, base_.data());
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, kResults);
    Array<int64_t> labels(Memory::Device, kResults);
    const auto search = [&] {
        index.search(5, x.data(), kNearest, distances.data(), labels.data());
    };
    search();
    EXPECT_EQ(cuda_sim_calls("kernel:blockSelectPair"), 1u);
    int failures = 0;
    for (int nth = 1; nth <= 60; ++nth) {
        SCOPED_TRACE(nth);
        // Not for want of memory: that is tried again.
        cuda_sim_fail_call("libfaiss_ext/*", nth, cudaErrorInvalidValue);
        try {
            search();
        } catch (const CudaError&) {
            ++failures;
        }
        cuda_sim_clear_faults();
    }
    // Three lanes' events, and two kernels.
    EXPECT_GE(failures, 14);
    check(cudaDeviceSynchronize());
}

/// That lends no more than `most` bytes.
class SmallPool : public CachingPool {
   public:
    void* allocate(size_t bytes, int device, cudaStream_t stream) override {
        if (bytesInUse() + bytes > most) {
            throw std::runtime_error("the pool is exhausted");
        }
        return CachingPool::allocate(bytes, device, stream);
    }

    size_t most = size_t(1) << 40;
};

TEST_F(PooledFailures, slices_are_left_where_they_leave_too_little) {
    const auto base = randomVectors(1000, kDims, 4);
    for (int64_t n : {1, 8}) {
        bool answered = false;
        auto pool = std::make_shared<SmallPool>();
        PooledGpuResources pooled(pool);
        pooled.setTempMemory(size_t(64) << 20);
        TunedConfig config;
        config.computeLanes = 4;
        config.search = "faiss";
        config.sliceVectors = 100;
        GpuIndexFlatL2 index(
                &pooled, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
        index.add(1000, base.data());
        check(cudaDeviceSynchronize());
        const size_t stored = pool->bytesInUse();
        std::vector<float> distances(n * kNearest);
        std::vector<int64_t> labels(n * kNearest);
        for (size_t room = 0; room <= 128 << 10; room += 512) {
            pool->most = stored + room;
            try {
                index.search(
                        n,
                        queries_.data(),
                        kNearest,
                        distances.data(),
                        labels.data());
                answered = true;
            } catch (const AllocationError&) {
                EXPECT_FALSE(answered) << n << " queries, " << room << " bytes";
            }
        }
        EXPECT_TRUE(answered);
        EXPECT_GE(cuda_sim_calls("kernel:blockSelectPair"), 1u);
    }
}

TEST_F(PooledFailures, a_pool_without_scratch_for_streams_costs_no_wait) {
    // The call begins anew on one stream; its results are on the GPU.
    const auto pool = std::make_shared<SmallPool>();
    PooledGpuResources pooled(pool);
    TunedConfig config;
    config.computeLanes = 3;
    CallRunner runner(pooled.getResources(), 0, config);
    ComputeNeeds needs;
    needs.laneBytes = size_t(1) << 20;
    needs.lanes = 3;
    constexpr int64_t kRows = 4096;
    Array<int> out(Memory::Device, kRows);
    std::set<int> lanes;
    const auto work = [&](auto& on, auto, auto rows, auto*, auto* outputs) {
        lanes.insert(on.lane);
        check(cudaMemsetAsync(outputs[0], 1, rows * sizeof(int), on.stream));
    };
    const auto run = [&] {
        lanes.clear();
        runRows(runner,
                kRows,
                {},
                {{"out", out.data(), sizeof(int)}},
                work,
                needs);
    };
    run();
    EXPECT_EQ(lanes, (std::set<int>{0, 1, 2}));
    check(cudaDeviceSynchronize());
    pool->most = size_t(1) << 20;
    cuda_sim_reset_counters();
    run();
    EXPECT_EQ(lanes, std::set<int>{-1});
    EXPECT_EQ(runner.counters().hostWaits, 0);
    for (const char* wait :
         {"cudaStreamSynchronize",
          "cudaEventSynchronize",
          "cudaDeviceSynchronize",
          "cudaFree"}) {
        EXPECT_EQ(cuda_sim_calls(wait), 0u) << wait;
    }
}

TEST_F(PooledFailures, what_could_not_be_waited_for_is_over_before_the_next) {
    constexpr int64_t kRows = 8;
    TunedConfig config;
    config.tileRows = 2;
    config.pipelineDepth = 2;
    const auto resources = pooled_->getResources();
    CallRunner runner(resources, 0, config);
    std::vector<int> in(kRows, 1);
    std::vector<int> out(kRows, 0);
    int thrown = 0;
    // When the first tile of each attempt is computed.
    std::vector<uint64_t> pending;
    const auto copy = [&](auto& on,
                          int64_t first,
                          int64_t rows,
                          const void* const* inputs,
                          void* const* outputs) {
        if (first == 0) {
            pending.push_back(cuda_sim_pending());
        }
        check(cudaMemcpyAsync(
                outputs[0],
                inputs[0],
                rows * sizeof(int),
                cudaMemcpyDefault,
                on.stream));
        if (first + rows == kRows && thrown++ == 0) {
            throw faiss_ext::gpu::OutOfMemory("no memory");
        }
    };
    // None of the waits for the streams of the first attempt succeeds.
    const int waits = resources->getAlternateStreams(0).size() + 3;
    for (int nth = 1; nth <= waits; ++nth) {
        cuda_sim_fail_call("cudaStreamSynchronize", nth, cudaErrorInvalidValue);
    }
    runRows(runner,
            kRows,
            {{"in", in.data(), sizeof(int)}},
            {{"out", out.data(), sizeof(int)}},
            copy);
    EXPECT_EQ(pending.size(), 2u);
    EXPECT_LE(pending.back(), pending.front());
    EXPECT_EQ(out, in);
    // The caller's own from now on.
    out.assign(kRows, 3);
    check(cudaDeviceSynchronize());
    EXPECT_EQ(out, std::vector<int>(kRows, 3));
}

TEST_F(PooledFailures, results_are_counted_once_though_tried_twice) {
    auto index = makeIndex();
    Array<float> distances(Memory::Pinned, kResults);
    Array<int64_t> labels(Memory::Pinned, kResults);
    const auto down = [&] {
        index->resetTransferStats();
        index->search(
                kQueries,
                queries_.data(),
                kNearest,
                distances.data(),
                labels.data());
        return index->getTransferStats().bytesToHost;
    };
    // Stored by the kernels themselves.
    EXPECT_EQ(down(), kResults * 12);
    for (int nth = 1; nth <= 6; ++nth) {
        pool_->fail(nth);
        EXPECT_EQ(down(), kResults * 12) << nth;
        pool_->fail(0);
    }
}

TEST_F(PooledFailures, an_index_that_cannot_be_stored_is_one_exception) {
    GpuIndexFlatL2 index(pooled_.get(), kDims);
    pool_->fail(1);
    EXPECT_THROW(
            index.add(base_.size() / kDims, base_.data()), AllocationError);
    EXPECT_EQ(index.ntotal, 0);
    index.add(base_.size() / kDims, base_.data());
    expectAnswers(index);
}

TEST_F(PooledFailures, an_add_that_fails_anywhere_leaves_the_former_vectors) {
    const std::vector<float> more = randomVectors(500, kDims, 3);
    for (bool float16 : {false, true}) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.useFloat16 = float16;
        GpuIndexFlatL2 index(pooled_.get(), kDims, config);
        index.add(base_.size() / kDims, base_.data());
        int failures = 0;
        for (bool failed = true; failed; failures += failed) {
            pool_->fail(failures + 1);
            failed = false;
            try {
                index.add(500, more.data());
            } catch (const AllocationError&) {
                failed = true;
                EXPECT_EQ(index.ntotal, 300);
                expectAnswers(index);
            }
        }
        pool_->fail(0);
        EXPECT_EQ(index.ntotal, 800);
        // The vectors, and their norms.
        EXPECT_GE(failures, 2);
    }
}

TEST_F(PooledFailures, an_add_that_fails_needs_no_memory_to_be_undone) {
    auto index = makeIndex();
    const std::vector<float> more = randomVectors(500, kDims, 3);
    // Room for the new vectors, then these, and nothing more.
    pool_->failAllAfter(2);
    EXPECT_THROW(index->add(500, more.data()), AllocationError);
    EXPECT_EQ(index->ntotal, 300);
    pool_->fail(0);
    expectAnswers(*index);
    index->add(500, more.data());
    EXPECT_EQ(index->ntotal, 800);
}

TEST_F(PooledFailures, of_a_lost_gpu_that_is_not_current_are_kept) {
    const auto pool = std::make_shared<CachingPool>();
    auto pooled = std::make_unique<PooledGpuResources>(pool);
    auto resources = pooled->getResources();
    const auto stream = resources->getDefaultStream(1);
    void* memory = resources->allocMemory(
            request(MemorySpace::Device, 256, stream, 1));
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    cudaMemsetAsync(memory, 0, 256, stream);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
    // It is the pool's, whatever became of the GPU.
    resources->deallocMemory(1, memory);
    EXPECT_EQ(pool->bytesInUse(), 0u);
    resources.reset();
    pooled.reset();
    EXPECT_EQ(pool.use_count(), 2) << "theirs is kept with them";
    expectCurrent(0);
}

TEST_F(PooledFailures, a_gpu_lost_within_the_pool_is_said_to_be_lost) {
    // As a pool's own work may lose it; not that it has no memory.
    const auto pool = std::make_shared<CachingPool>();
    const auto resources = PooledGpuResources(pool).getResources();
    const auto stream = resources->getDefaultStream(1);
    cuda_sim_poison_device_at_call("cudaMalloc", 1, cudaErrorIllegalAddress);
    try {
        resources->allocMemory(request(MemorySpace::Device, 256, stream, 1));
        ADD_FAILURE() << "nothing thrown";
    } catch (const CudaError& e) {
        EXPECT_EQ(e.code(), cudaErrorIllegalAddress);
    }
}

TEST_F(PooledFailures, memory_that_events_cannot_order_is_given_back_idle) {
    const cudaStream_t alternate =
            pooled_->getResources()->getAlternateStreams(0)[0];
    for (const char* function :
         {"libfaiss_ext/cudaEventRecord", "libfaiss_ext/cudaStreamWaitEvent"}) {
        void* memory = allocate(MemorySpace::Device, 4096, defaultStream());
        check(cudaDeviceSynchronize());
        check(cudaMemsetAsync(memory, 1, 4096, alternate));
        cuda_sim_fail_call(function, 1, cudaErrorInvalidValue);
        giveBack(memory);
        EXPECT_EQ(cuda_sim_pending(), 0u) << function;
        void* again = allocate(MemorySpace::Device, 4096, defaultStream());
        EXPECT_EQ(again, memory);
        check(cudaMemsetAsync(again, 2, 4096, defaultStream()));
        giveBack(again);
    }
}

/// Gives what it is told to, whatever is asked for.
class WrongPool : public DeviceAllocator {
   public:
    void* allocate(size_t bytes, int device, cudaStream_t stream) override {
        ++lent;
        return give(bytes, device, stream);
    }
    void deallocate(void*, size_t, int, cudaStream_t) noexcept override {
        --lent;
        cudaSetDevice(leavesCurrent);
    }

    int leavesCurrent = 0;
    std::function<void*(size_t, int, cudaStream_t)> give;
    int lent = 0;
};

TEST_F(PooledFailures, memory_of_another_kind_or_place_is_refused) {
    auto wrong = std::make_shared<WrongPool>();
    PooledGpuResources resources(wrong);
    resources.setPinnedMemory(0);
    Array<char> here(Memory::Device, 8192);
    Array<char> pageable(Memory::Pageable, 8192);
    check(cudaSetDevice(1));
    Array<char> there(Memory::Device, 8192);
    check(cudaSetDevice(0));
    const std::pair<void*, const char*> cases[] = {
            {there.data(), "memory of GPU 1"},
            {pageable.data(), "host memory"},
            {here.data() + 8, "not aligned"},
            {here.data() + 8192 - 16, "shorter"},
            {nullptr, "address 0"},
    };
    for (const auto& [memory, text] : cases) {
        wrong->lent = 0;
        wrong->give = [memory = memory](size_t, int, cudaStream_t) {
            return memory;
        };
        try {
            resources.getResources()->allocMemory(
                    request(MemorySpace::Device, 4096, nullptr));
            ADD_FAILURE() << text << ": taken";
        } catch (const faiss::FaissException& e) {
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos)
                    << e.what();
        }
        EXPECT_EQ(wrong->lent, memory ? 0 : 1);
    }
}

TEST_F(PooledFailures, what_a_pool_leaves_behind_is_cleared) {
    // Another current GPU; an error that Faiss would take for its kernel's.
    auto wrong = std::make_shared<WrongPool>();
    PooledGpuResources resources(wrong);
    resources.setPinnedMemory(0);
    Array<char> memory(Memory::Device, 4096);
    wrong->give = [&](size_t, int, cudaStream_t) {
        void* huge = nullptr;
        EXPECT_NE(cudaMalloc(&huge, size_t(1) << 60), cudaSuccess);
        cudaSetDevice(1);
        return memory.data();
    };
    auto shared = resources.getResources();
    void* given = shared->allocMemory(
            request(MemorySpace::Device, 4096, shared->getDefaultStream(0)));
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
    expectCurrent(0);
    wrong->leavesCurrent = 1;
    shared->deallocMemory(0, given);
    expectCurrent(0);

    wrong->give = [](size_t, int, cudaStream_t) -> void* {
        void* huge = nullptr;
        EXPECT_NE(cudaMalloc(&huge, size_t(1) << 60), cudaSuccess);
        throw Interrupted("computation interrupted");
    };
    EXPECT_THROW(
            shared->allocMemory(request(
                    MemorySpace::Device, 4096, shared->getDefaultStream(0))),
            Interrupted);
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
}

} // namespace
