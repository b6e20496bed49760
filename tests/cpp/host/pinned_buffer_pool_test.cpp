// The pool of pinned memory: bounded, recycled by event, loud when empty.

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>

#include <faiss/impl/FaissException.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "support/Arrays.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::PinnedBuffer;
using faiss_ext::gpu::PinnedBufferPool;
using faiss_ext::gpu::TransferCounters;
using namespace test;

class Pool : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    }
    void TearDown() override {
        check(cudaStreamDestroy(stream_));
        SimTest::TearDown();
    }

    /// A copy from `buffer` that stays pending while the stream is held.
    void use(PinnedBuffer& buffer, Array<char>& device, size_t bytes) {
        check(cudaMemcpyAsync(
                device.data(),
                buffer.data(),
                bytes,
                cudaMemcpyDefault,
                stream_));
    }

    /// Lends `bytes` out again once the copy from them is done.
    void useAndRelease(PinnedBufferPool& pool, Array<char>& device) {
        auto buffer = pool.acquire(4096);
        std::memset(buffer.data(), 7, 4096);
        use(buffer, device, 4096);
        buffer.releaseAfter(stream_);
    }

    /// The simulator reports it if the GPU may still read the buffer.
    static void hostWrites(PinnedBuffer& buffer) {
        cuda_sim_host_access(buffer.data(), buffer.size(), 1);
    }

    TransferCounters counters_;
    cudaStream_t stream_;
};

TEST_F(Pool, a_returned_buffer_is_lent_again) {
    PinnedBufferPool pool(1 << 20, counters_);
    char* first;
    {
        auto buffer = pool.acquire(5000);
        EXPECT_GE(buffer.size(), 5000u);
        first = buffer.data();
        std::memset(first, 1, buffer.size());
    }
    EXPECT_EQ(pool.acquire(6000).data(), first);
    EXPECT_EQ(counters_.pinnedAllocations, 1u);
}

TEST_F(Pool, a_buffer_in_use_by_the_gpu_is_not_lent) {
    PinnedBufferPool pool(1 << 20, counters_);
    Array<char> device(Memory::Device, 4096);
    cuda_sim_hold_stream(stream_);
    auto buffer = pool.acquire(4096);
    char* first = buffer.data();
    use(buffer, device, 4096);
    buffer.releaseAfter(stream_);
    EXPECT_EQ(buffer.data(), nullptr);
    auto other = pool.acquire(4096);
    EXPECT_NE(other.data(), first);
    cuda_sim_release_stream(stream_);
    check(cudaStreamSynchronize(stream_));
    auto again = pool.acquire(4096);
    EXPECT_EQ(again.data(), first);
    hostWrites(again);
}

TEST_F(Pool, full_of_buffers_in_use_it_waits_for_the_oldest) {
    PinnedBufferPool pool(8192, counters_);
    Array<char> device(Memory::Device, 4096);
    std::vector<char*> order;
    for (int i = 0; i < 2; ++i) {
        auto buffer = pool.acquire(4096);
        order.push_back(buffer.data());
        use(buffer, device, 4096);
        buffer.releaseAfter(stream_);
    }
    EXPECT_EQ(counters_.hostWaits, 0u);
    auto oldest = pool.acquire(4096);
    EXPECT_EQ(oldest.data(), order[0]);
    hostWrites(oldest);
    EXPECT_EQ(counters_.hostWaits, 1u);
    EXPECT_EQ(pool.pinnedBytes(), 8192u);
    // Of both, once each.
    EXPECT_EQ(pool.acquire(4096).data(), order[1]);
}

TEST_F(Pool, beyond_its_capacity_it_throws_and_says_why) {
    PinnedBufferPool pool(8192, counters_);
    auto a = pool.acquire(4096);
    auto b = pool.acquire(4096);
    try {
        pool.acquire(1);
        ADD_FAILURE() << "nothing thrown";
    } catch (const faiss::FaissException& e) {
        EXPECT_NE(
                std::string(e.what()).find("4096 bytes needed, 8192 of 8192"),
                std::string::npos)
                << e.what();
    }
    EXPECT_THROW(pool.acquire(size_t(1) << 62), faiss::FaissException);
    EXPECT_THROW(pool.acquire(SIZE_MAX), faiss::FaissException);
}

TEST_F(Pool, idle_buffers_make_room_for_other_sizes) {
    PinnedBufferPool pool(16384, counters_);
    for (int i = 0; i < 2; ++i) {
        auto a = pool.acquire(4096);
        auto b = pool.acquire(8192);
    }
    EXPECT_EQ(counters_.pinnedAllocations, 2u);
    auto all = pool.acquire(16384);
    EXPECT_EQ(pool.pinnedBytes(), 16384u);
}

TEST_F(Pool, trim_unpins_what_is_idle) {
    PinnedBufferPool pool(1 << 20, counters_);
    auto kept = pool.acquire(4096);
    pool.acquire(8192);
    pool.trim();
    EXPECT_EQ(pool.pinnedBytes(), 4096u);
    EXPECT_EQ(counts().live_pinned, 1u);
}

TEST_F(Pool, trim_unpins_what_the_gpu_is_done_with_and_does_not_wait) {
    PinnedBufferPool pool(1 << 20, counters_);
    Array<char> device(Memory::Device, 4096);
    useAndRelease(pool, device);
    check(cudaStreamSynchronize(stream_));
    cuda_sim_hold_stream(stream_);
    useAndRelease(pool, device);
    useAndRelease(pool, device);
    EXPECT_EQ(pool.pinnedBytes(), 2 * 4096u);
    pool.trim();
    EXPECT_EQ(pool.pinnedBytes(), 2 * 4096u);
    cuda_sim_release_stream(stream_);
    check(cudaStreamSynchronize(stream_));
    pool.trim();
    EXPECT_EQ(pool.pinnedBytes(), 0u);
    EXPECT_EQ(counts().live_pinned, 0u);
    EXPECT_EQ(counters_.hostWaits, 0u);
}

TEST_F(Pool, destruction_waits_for_buffers_in_use) {
    Array<char> device(Memory::Device, 4096);
    {
        PinnedBufferPool pool(1 << 20, counters_);
        useAndRelease(pool, device);
    }
    EXPECT_EQ(device.get(), std::vector<char>(4096, 7));
    EXPECT_EQ(counts().live_pinned, 0u);
}

TEST_F(Pool, destruction_waits_for_buffers_in_use_even_if_a_wait_fails) {
    Array<char> device(Memory::Device, 4096);
    {
        PinnedBufferPool pool(1 << 20, counters_);
        useAndRelease(pool, device);
        cuda_sim_fail_call("cudaEventSynchronize", 1, cudaErrorInvalidValue);
    }
    EXPECT_EQ(device.get(), std::vector<char>(4096, 7));
    EXPECT_EQ(counts().live_pinned, 0u);
}

TEST_F(Pool, events_are_freed_with_their_loans) {
    PinnedBufferPool pool(2 * 4096, counters_);
    Array<char> device(Memory::Device, 4096);
    const uint64_t before = counts().live_events;
    for (int i = 0; i < 20; ++i) {
        useAndRelease(pool, device);
    }
    EXPECT_LE(counts().live_events, before + 2);
}

TEST_F(Pool, a_failed_pinning_is_reported_and_forgotten) {
    PinnedBufferPool pool(8192, counters_);
    cuda_sim_fail_call("cudaHostAlloc", 1, cudaErrorMemoryAllocation);
    EXPECT_THROW(pool.acquire(8192), faiss_ext::gpu::CudaError);
    EXPECT_EQ(pool.pinnedBytes(), 0u);
    EXPECT_NE(pool.acquire(8192).data(), nullptr);
}

TEST_F(Pool, moving_a_buffer_keeps_one_owner) {
    PinnedBufferPool pool(8192, counters_);
    auto a = pool.acquire(4096);
    auto b = pool.acquire(4096);
    a = std::move(b);
    b = PinnedBuffer();
    EXPECT_NO_THROW(pool.acquire(4096));
    EXPECT_THROW(
            {
                auto c = pool.acquire(4096);
                auto d = pool.acquire(4096);
            },
            faiss::FaissException);
}

TEST_F(Pool, many_threads_never_share_a_buffer) {
    // Threads that hold one buffer at a time, of two sizes, in a pool that has
    // room for all of the smaller: none of them is refused for long.
    PinnedBufferPool pool(4 * 8192, counters_);
    Array<char> device(Memory::Device, 4096);
    std::atomic<int> clashes{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 100; ++i) {
                auto buffer = pool.acquire((t + i) % 2 ? 4096 : 8192);
                std::memset(buffer.data(), t, buffer.size());
                std::this_thread::yield();
                for (size_t j = 0; j < buffer.size(); ++j) {
                    clashes += buffer.data()[j] != t;
                }
                if (i % 3 == 0) {
                    use(buffer, device, 16);
                    buffer.releaseAfter(stream_);
                }
            }
        });
    }
    threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) {
            pool.trim();
            EXPECT_LE(pool.pinnedBytes(), pool.capacity());
        }
    });
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(clashes, 0);
    EXPECT_LE(counters_.pinnedAllocations, 5u * 100);
    check(cudaStreamSynchronize(stream_));
}

TEST_F(Pool, many_threads_may_fail_to_pin) {
    PinnedBufferPool pool(8 * 4096, counters_);
    for (int nth = 1; nth < 400; nth += 2) {
        cuda_sim_fail_call("cudaHostAlloc", nth, cudaErrorMemoryAllocation);
    }
    std::vector<std::thread> threads;
    std::atomic<int> running{4};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 100; ++i) {
                try {
                    pool.acquire(4096);
                } catch (const faiss_ext::gpu::CudaError&) {
                }
                pool.trim();
            }
            --running;
        });
    }
    // Without a CUDA call, whose locks would order it and the others.
    threads.emplace_back([&] {
        while (running > 0) {
            EXPECT_LE(pool.pinnedBytes(), pool.capacity());
        }
    });
    for (auto& thread : threads) {
        thread.join();
    }
    cuda_sim_clear_faults();
    pool.trim();
    EXPECT_EQ(pool.pinnedBytes(), 0u);
}

TEST_F(Pool, many_threads_wait_for_the_same_buffers) {
    PinnedBufferPool pool(3 * 4096, counters_);
    Array<char> device(Memory::Device, 4096);
    std::vector<std::thread> threads;
    std::atomic<int> running{2};
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 200; ++i) {
                useAndRelease(pool, device);
            }
            --running;
        });
    }
    // This one makes few CUDA calls, whose locks would order the threads.
    threads.emplace_back([&] {
        while (running > 0) {
            pool.acquire(4096);
        }
    });
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_LE(pool.pinnedBytes(), 3 * 4096u);
    check(cudaStreamSynchronize(stream_));
}

} // namespace
