// Calls that Faiss' callback for interrupts ends: in Faiss' own code, and in
// each wait of ours. Nothing is tried again, nothing is left in flight, and the
// index answers afterwards.

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/resources/DeviceBuffer.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "support/Calls.h"
#include "support/FlatIndexTest.h"
#include "support/Interrupting.h"

namespace {

using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::DeviceBuffer;
using faiss_ext::gpu::Interrupted;
using faiss_ext::gpu::isOutOfMemory;
using faiss_ext::gpu::lockOf;
using faiss_ext::gpu::Question;
using faiss_ext::gpu::ResourcesLock;
using faiss_ext::gpu::Unsupported;
using namespace test;

/// Every call is estimated longer than this.
constexpr double kNothing = 1e-12;

TunedConfig inTilesOf(int64_t rows) {
    TunedConfig config;
    // Which ask twice for each tile.
    config.search = "faiss";
    config.tileRows = rows;
    return config;
}

TunedConfig longCalls(int64_t tileRows) {
    TunedConfig config = inTilesOf(tileRows);
    config.secondsAhead = kNothing;
    return config;
}

uint64_t searchesEnqueued() {
    return cuda_sim_calls("kernel:bfKnnOnDevice");
}

class Interrupts : public FlatIndexTest {
   protected:
    /// Arrays for all queries, of which the results may lie in another memory.
    struct Arrays {
        Arrays(Memory queries, Memory results, const std::vector<float>& x)
                : x(queries, x),
                  distances(results, kResults),
                  labels(results, kResults) {}
        Array<float> x;
        Array<float> distances;
        Array<int64_t> labels;
    };

    static void search(const Index& index, Arrays& arrays) {
        FlatIndexTest::search(
                index,
                arrays.x.data(),
                arrays.distances.data(),
                arrays.labels.data());
    }

    /// For Interrupting: yes in the midst of a wait of ours, after `then`.
    /// From one search enqueued to the next, Faiss asks twice, and we do, as
    /// time goes by, before and after a tile is uploaded; only a thread that
    /// waits goes on asking.
    static std::function<bool(int)> inAWait(std::function<void()> then) {
        cuda_sim_reset_counters();
        return [then, enqueued = uint64_t(0), asked = 0](int) mutable {
            if (searchesEnqueued() != enqueued) {
                enqueued = searchesEnqueued();
                asked = 0;
            }
            if (++asked <= 4) {
                return false;
            }
            then();
            return true;
        };
    }

    /// Runs `call`, which waits for a stream that is held, and is interrupted.
    void expectInterrupted(
            cudaStream_t held, const std::function<void()>& call) {
        cuda_sim_hold_stream(held);
        {
            // What is in flight is waited for before the call ends.
            const Interrupting interrupt(
                    inAWait([=] { cuda_sim_release_stream(held); }));
            EXPECT_THROW(call(), Interrupted);
            EXPECT_TRUE(interrupt.fired());
            EXPECT_EQ(cuda_sim_pending(), 0u);
        }
        cuda_sim_release_stream(held);
    }
};

TEST_F(Interrupts, wherever_faiss_asks_end_the_call) {
    for (const TunedConfig& config :
         {inTilesOf(0), inTilesOf(9), longCalls(0), longCalls(9)}) {
        for (Memory memory : kAllMemories) {
            SCOPED_TRACE(
                    std::string(nameOf(memory)) + " in tiles of " +
                    std::to_string(config.tileRows));
            const auto index = makeIndex(config, 0);
            Arrays arrays(Memory::Pageable, memory, queries_);
            bool ended = true;
            int nth = 1;
            for (; ended; ++nth) {
                const Interrupting interrupt(
                        [=](int now) { return now == nth; });
                try {
                    search(*index, arrays);
                    EXPECT_LT(interrupt.asked(), nth);
                    ended = false;
                } catch (const faiss::FaissException& e) {
                    EXPECT_NE(
                            std::string(e.what()).find("interrupted"),
                            std::string::npos);
                    // Not a search more.
                    EXPECT_EQ(interrupt.asked(), nth);
                    EXPECT_EQ(cuda_sim_pending(), 0u);
                }
            }
            // Faiss asks twice for each tile; long calls ask themselves, too,
            // where this machine is slow.
            const int faiss = config.tileRows ? 20 : 2;
            if (config.secondsAhead == 0) {
                EXPECT_EQ(nth - 2, faiss);
            } else {
                EXPECT_GE(nth - 2, faiss);
            }
            searchAndExpectRight(*index);
        }
    }
}

TEST_F(Interrupts, where_faiss_asks_on_lanes_end_the_call) {
    // Enough vectors and queries for lanes.
    constexpr int64_t kMany = 2048;
    TunedConfig config = inTilesOf(0);
    config.computeLanes = 4;
    const auto index = makeIndex(config, 0);
    const auto x = randomVectors(kMany, kDims, 5);
    std::vector<float> distances(kMany * kNearest);
    std::vector<int64_t> labels(kMany * kNearest);
    int ends = 0;
    for (bool ended = true; ended; ends += ended) {
        const Interrupting interrupt([=](int now) { return now == ends + 1; });
        ended = false;
        try {
            index->search(
                    kMany, x.data(), kNearest, distances.data(), labels.data());
        } catch (const faiss::FaissException&) {
            ended = true;
            EXPECT_EQ(interrupt.asked(), ends + 1);
            EXPECT_EQ(cuda_sim_pending(), 0u);
        }
    }
    EXPECT_GE(ends, 8);
    searchAndExpectRight(*index);
}

TEST_F(Interrupts, end_the_wait_of_a_long_call) {
    for (int64_t tileRows : {0, 9}) {
        const auto index = makeIndex(longCalls(tileRows), 0);
        for (Memory memory : {Memory::Pageable, Memory::Pinned}) {
            Arrays arrays(memory, memory, queries_);
            expectInterrupted(defaultStream(), [&] { search(*index, arrays); });
            searchAndExpectRight(*index);
        }
    }
}

TEST_F(Interrupts, a_long_call_is_not_far_ahead_of_the_gpu) {
    const auto index = makeIndex(longCalls(9), 0);
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    uint64_t enqueued = 0;
    const cudaStream_t held = defaultStream();
    cuda_sim_hold_stream(held);
    {
        const Interrupting interrupt(inAWait([&] {
            enqueued = searchesEnqueued();
            cuda_sim_release_stream(held);
        }));
        EXPECT_THROW(search(*index, arrays), Interrupted);
    }
    // One to be computed, and one so that the GPU does not wait.
    EXPECT_EQ(enqueued, 2u);
    searchAndExpectRight(*index);
}

TEST_F(Interrupts, long_tiles_are_computed_piece_by_piece) {
    // Of queries of which a piece has 1024, whatever the tiles.
    constexpr int64_t kMany = 5000;
    const auto x = randomVectors(kMany, kDims, 5);
    Neighbours found[2];
    for (double seconds : {0.0, kNothing}) {
        TunedConfig config = inTilesOf(0);
        config.secondsAhead = seconds;
        const auto index = makeIndex(config, 0);
        auto& now = found[seconds > 0];
        now.distances.resize(kMany * kNearest);
        now.labels.resize(kMany * kNearest);
        cuda_sim_reset_counters();
        index->resetTransferStats();
        index->search(
                kMany,
                x.data(),
                kNearest,
                now.distances.data(),
                now.labels.data());
        EXPECT_EQ(searchesEnqueued(), seconds > 0 ? 5u : 1u);
        // For all but the last two, and for the results.
        EXPECT_EQ(index->getTransferStats().hostWaits, seconds > 0 ? 4u : 1u);
        EXPECT_EQ(counts().waits_event, seconds > 0 ? 0u : 1u);
    }
    EXPECT_EQ(found[0].distances, found[1].distances);
    EXPECT_EQ(found[0].labels, found[1].labels);
}

TEST_F(Interrupts, long_calls_ask_between_their_tiles_as_time_goes_by) {
    // Whether they wait for the results or not.
    CallRunner runner(resources().getResources(), 0, longCalls(1));
    for (Memory memory : {Memory::Pinned, Memory::Device}) {
        SCOPED_TRACE(nameOf(memory));
        std::vector<float> in(8);
        Array<float> out(memory, 8);
        int begun = 0;
        const auto work = [&](auto& on,
                              int64_t,
                              int64_t,
                              const void* const* inputs,
                              void* const* outputs) {
            ++begun;
            check(cudaMemcpyAsync(
                    outputs[0], inputs[0], 4, cudaMemcpyDefault, on.stream));
            using Clock = faiss_ext::gpu::InterruptClock::Clock;
            const std::chrono::duration<double> period(
                    faiss_ext::gpu::tuning::kInterruptSeconds);
            for (const auto now = Clock::now(); Clock::now() - now < period;) {
            }
        };
        const Interrupting interrupt([](int nth) { return nth == 3; });
        EXPECT_THROW(
                runRows(runner,
                        8,
                        {{"in", in.data(), 4}},
                        {{"out", out.data(), 4}},
                        work),
                Interrupted);
        EXPECT_LE(begun, 3);
        EXPECT_EQ(cuda_sim_pending(), 0u);
    }
}

TEST_F(Interrupts, short_calls_ask_no_more_often_than_faiss) {
    const auto index = makeIndex(inTilesOf(9), 0);
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    const Interrupting never([](int) { return false; });
    search(*index, arrays);
    EXPECT_EQ(never.asked(), 20);
}

TEST_F(Interrupts, end_the_wait_for_pinned_memory) {
    // Results on the GPU, and queries that need more of it than there is.
    TunedConfig config = inTilesOf(0);
    config.tileRows = 10;
    config.pinnedBytes = 8192;
    const auto index = makeIndex(config, 0);
    Arrays arrays(Memory::Pageable, Memory::Device, queries_);
    expectInterrupted(defaultStream(), [&] { search(*index, arrays); });
    searchAndExpectRight(*index);
}

TEST_F(Interrupts, end_the_wait_of_a_change) {
    const auto index = makeIndex(inTilesOf(0), 0);
    Arrays arrays(Memory::Device, Memory::Device, queries_);
    const std::function<void()> changes[] = {
            [&] { index->add(kVectors, base_.data()); },
            [&] { index->reset(); }};
    for (const auto& change : changes) {
        cuda_sim_hold_stream(defaultStream());
        search(*index, arrays);
        {
            const Interrupting interrupt([](int) { return true; });
            EXPECT_THROW(change(), Interrupted);
        }
        cuda_sim_release_stream(defaultStream());
        EXPECT_EQ(index->ntotal, int64_t(kVectors));
        searchAndExpectRight(*index);
    }
}

TEST_F(Interrupts, end_the_wait_of_a_change_on_a_gpu_that_is_not_current) {
    const auto all = resources().getResources();
    CallRunner runner(all, 1, TunedConfig());
    const auto stream = all->getDefaultStream(1);
    auto block = onGpu<float>(1, 1);
    cuda_sim_hold_stream(stream);
    {
        const faiss_ext::gpu::DeviceGuard current(1);
        check(cudaMemsetAsync(block.data(), 0, sizeof(float), stream));
    }
    {
        const Interrupting interrupt([](int) { return true; });
        EXPECT_THROW(CallRunner::Change change(runner), Interrupted);
    }
    cuda_sim_release_stream(stream);
    synchronize(1);
}

TEST_F(Interrupts, end_the_wait_for_another_threads_call) {
    const auto index = makeIndex(0);
    const auto lock = lockOf(resources().getResources().get());
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    const std::function<void()> calls[] = {
            [&] { search(*index, arrays); },
            [&] { index->add(kVectors, base_.data()); },
            [&] { index->reconstruct(1, arrays.distances.data()); }};
    for (const auto& call : calls) {
        std::unique_lock<ResourcesLock> held(*lock);
        std::thread([&] {
            const Interrupting interrupt([](int) { return true; });
            EXPECT_THROW(call(), Interrupted);
        }).join();
    }
    EXPECT_EQ(index->ntotal, int64_t(kVectors));
    searchAndExpectRight(*index);
}

TEST_F(Interrupts, a_callback_leaves_neither_another_gpu_nor_an_error) {
    // With which the call would go on, and Faiss end the process.
    for (bool ends : {false, true}) {
        const Interrupting interrupt([=](int) {
            cudaSetDevice(1);
            cudaSetDevice(99);
            return ends;
        });
        try {
            faiss_ext::gpu::throwIfInterrupted();
            EXPECT_FALSE(ends);
        } catch (const Interrupted&) {
            EXPECT_TRUE(ends);
        }
        EXPECT_EQ(interrupt.asked(), 1);
        int current = -1;
        check(cudaGetDevice(&current));
        EXPECT_EQ(current, 0);
        EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    }
}

TEST_F(Interrupts, a_call_from_the_callback_is_refused) {
    const auto index = makeIndex(longCalls(0), 0);
    const auto other = makeIndex(0);
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    Arrays nested(Memory::Pageable, Memory::Pageable, queries_);
    cuda_sim_hold_stream(defaultStream());
    {
        const Interrupting interrupt(inAWait([&] {
            EXPECT_THROW(search(*index, nested), Unsupported);
            EXPECT_THROW(search(*other, nested), Unsupported);
            EXPECT_THROW(other->add(1, base_.data()), Unsupported);
            cuda_sim_release_stream(defaultStream());
        }));
        EXPECT_THROW(search(*index, arrays), Interrupted);
    }
    searchAndExpectRight(*index);
    searchAndExpectRight(*other);
}

TEST_F(Interrupts, a_question_of_ours_holds_no_lock_of_faiss) {
    // For which the next question of a thread would wait that the callback, a
    // signal's handler, may be waiting for.
    const auto index = makeIndex(0);
    const auto lock = lockOf(resources().getResources().get());
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    bool free = false;
    std::unique_lock<ResourcesLock> held(*lock);
    std::thread([&] {
        const Interrupting interrupt([&](int) {
            std::thread([&] {
                std::unique_lock<std::mutex> faiss(
                        faiss::InterruptCallback::lock, std::try_to_lock);
                free = faiss.owns_lock();
            }).join();
            return true;
        });
        EXPECT_THROW(search(*index, arrays), Interrupted);
    }).join();
    EXPECT_TRUE(free);
}

TEST_F(Interrupts, a_call_from_the_callback_waits_for_no_thread) {
    // Neither for the lock nor for a turn, which may be of its own thread.
    const auto index = makeIndex(0);
    const auto lock = lockOf(resources().getResources().get());
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    Arrays nested(Memory::Pageable, Memory::Pageable, queries_);
    int refused = 0;
    std::unique_lock<ResourcesLock> held(*lock);
    std::thread([&] {
        const Interrupting interrupt([&](int) {
            for (int64_t n : {int64_t(1), int64_t(kQueries)}) {
                try {
                    index->search(
                            n,
                            nested.x.data(),
                            kNearest,
                            nested.distances.data(),
                            nested.labels.data());
                } catch (const Unsupported&) {
                    ++refused;
                }
            }
            return true;
        });
        EXPECT_THROW(
                index->search(
                        1,
                        arrays.x.data(),
                        kNearest,
                        arrays.distances.data(),
                        arrays.labels.data()),
                Interrupted);
    }).join();
    EXPECT_EQ(refused, 2);
    held.unlock();
    searchAndExpectRight(*index);
}

TEST_F(Interrupts, no_call_is_made_while_faiss_asks) {
    // Faiss holds a lock, for which its next question would wait.
    const auto index = makeIndex(0);
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    {
        const Question ofFaiss;
        EXPECT_TRUE(ofFaiss.outermost());
        EXPECT_THROW(search(*index, arrays), Unsupported);
        EXPECT_THROW(index->add(kVectors, base_.data()), Unsupported);
        EXPECT_FALSE(Question().outermost());
        EXPECT_THROW(search(*index, arrays), Unsupported);
    }
    EXPECT_EQ(index->ntotal, int64_t(kVectors));
    searchAndExpectRight(*index);
}

TEST_F(Interrupts, nothing_is_made_or_ordered_while_faiss_asks) {
    const auto index = makeIndex(0);
    const auto shared = resources().getResources();
    const Question ofFaiss;
    EXPECT_THROW(makeIndex(0), Unsupported);
    EXPECT_THROW(DeviceBuffer(shared, 0, 8), Unsupported);
    EXPECT_THROW(index->waitForStream(cudaStreamPerThread), Unsupported);
    EXPECT_THROW(index->makeStreamWait(cudaStreamPerThread), Unsupported);
}

TEST_F(Interrupts,
       an_index_dropped_while_faiss_asks_waits_for_no_thread_for_ever) {
    // The thread that holds the lock may be waiting for Faiss', to ask.
    faiss::gpu::StandardGpuResources others;
    auto index = std::make_unique<faiss_ext::gpu::GpuIndexFlatL2>(
            &others, int(kDims));
    index->add(kVectors, base_.data());
    const auto lock = lockOf(others.getResources().get());
    std::promise<void> dropped, held;
    std::thread holder([&] {
        const std::lock_guard<ResourcesLock> guard(*lock);
        held.set_value();
        dropped.get_future().wait();
    });
    held.get_future().wait();
    {
        const Question ofFaiss;
        const uint64_t calls = cuda_sim_calls("cudaMalloc");
        index.reset();
        // It is kept, and nothing is asked of what others use now.
        EXPECT_EQ(cuda_sim_calls("cudaMalloc"), calls);
    }
    dropped.set_value();
    holder.join();
}

TEST_F(Interrupts, a_change_is_a_call_while_it_waits) {
    const auto index = makeIndex(0);
    Arrays arrays(Memory::Device, Memory::Device, queries_);
    cuda_sim_hold_stream(defaultStream());
    search(*index, arrays);
    {
        const Interrupting interrupt([&](int) {
            EXPECT_THROW(index->add(kVectors, base_.data()), Unsupported);
            cuda_sim_release_stream(defaultStream());
            return false;
        });
        index->add(1, base_.data());
        EXPECT_GT(interrupt.asked(), 0);
    }
    EXPECT_EQ(index->ntotal, int64_t(kVectors) + 1);
}

TEST_F(Interrupts, keys_are_not_waited_for_in_the_midst_of_a_call) {
    // By the event that the call may be waiting for.
    const auto index = makeIndex(longCalls(0), 0);
    Arrays arrays(Memory::Pageable, Memory::Pageable, queries_);
    Array<int64_t> keys(Memory::Pinned, std::vector<int64_t>(3, 1));
    std::vector<float> found(3 * kDims);
    cuda_sim_hold_stream(defaultStream());
    {
        const Interrupting interrupt(inAWait([&] {
            const uint64_t marks = cuda_sim_calls("cudaEventRecord");
            EXPECT_THROW(
                    index->reconstruct_batch(3, keys.data(), found.data()),
                    Unsupported);
            EXPECT_EQ(cuda_sim_calls("cudaEventRecord"), marks);
            cuda_sim_release_stream(defaultStream());
        }));
        EXPECT_THROW(search(*index, arrays), Interrupted);
    }
    searchAndExpectRight(*index);
}

/// What a piece of work throws, at first and for more than one row.
class Repeats : public FlatIndexTest {
   protected:
    /// How often the work of a call was begun.
    template <typename Exception>
    int timesBegun(const Exception& exception) {
        CallRunner runner(resources().getResources(), 0, TunedConfig());
        std::vector<float> out(8);
        int begun = 0;
        const auto work = [&](auto& on,
                              int64_t,
                              int64_t rows,
                              const void* const*,
                              void* const* outputs) {
            if (begun++ == 0) {
                throw exception;
            }
            check(cudaMemsetAsync(outputs[0], 0, rows * 4, on.stream));
        };
        try {
            runRows(runner, 8, {}, {{"out", out.data(), 4}}, work);
            EXPECT_EQ(out, std::vector<float>(8, 0));
        } catch (const Exception&) {
            EXPECT_EQ(begun, 1);
        }
        return begun;
    }
};

TEST_F(Repeats, what_says_that_memory_ran_out_and_nothing_else) {
    using faiss::FaissException;
    // In halves.
    for (const char* text :
         {"StandardGpuResources: alloc fail type FlatData dev 0 space Device "
          "stream 0x1 size 1 bytes (cudaMalloc error out of memory [2])\n",
          "StandardGpuResources: alloc fail type Other failed "
          "(cudaMallocManaged error out of memory [2])\n",
          "CUDA memory allocation error"}) {
        EXPECT_EQ(timesBegun(FaissException(text)), 3) << text;
    }
    EXPECT_EQ(timesBegun(faiss_ext::gpu::OutOfMemory("none")), 3);
    EXPECT_EQ(timesBegun(faiss_ext::gpu::AllocationError("none")), 3);
    EXPECT_EQ(timesBegun(CudaError(cudaErrorMemoryAllocation, "new")), 3);

    for (const char* text :
         {"interrupted",
          "computation interrupted",
          "StandardGpuResources: alloc fail type FlatData (cudaMalloc error an "
          "illegal memory access was encountered [700])\n",
          "out of memory",
          ""}) {
        EXPECT_EQ(timesBegun(FaissException(text)), 1) << text;
    }
    EXPECT_EQ(timesBegun(Interrupted("computation interrupted")), 1);
    EXPECT_EQ(timesBegun(Unsupported("no")), 1);
    EXPECT_EQ(timesBegun(faiss_ext::gpu::InvalidArray("no")), 1);
    EXPECT_EQ(timesBegun(CudaError(cudaErrorInvalidValue, "no")), 1);
    EXPECT_EQ(timesBegun(std::runtime_error("no")), 1);
}

TEST_F(Repeats, as_faiss_says_it_here) {
    // Of this version: the text is recognised as it comes.
    cuda_sim_fail_call("cudaMalloc", 1, cudaErrorMemoryAllocation);
    try {
        resources().getResources()->allocMemoryHandle(
                {faiss::gpu::AllocType::Other,
                 0,
                 faiss::gpu::MemorySpace::Device,
                 defaultStream(),
                 256});
        ADD_FAILURE() << "nothing thrown";
    } catch (const faiss::FaissException& e) {
        EXPECT_TRUE(isOutOfMemory(e)) << e.what();
    }
    cuda_sim_fail_call("cudaMalloc", 1, cudaErrorInvalidValue);
    try {
        resources().getResources()->allocMemoryHandle(
                {faiss::gpu::AllocType::Other,
                 0,
                 faiss::gpu::MemorySpace::Device,
                 defaultStream(),
                 256});
        ADD_FAILURE() << "nothing thrown";
    } catch (const faiss::FaissException& e) {
        EXPECT_FALSE(isOutOfMemory(e)) << e.what();
    }
}

} // namespace
