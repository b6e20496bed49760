// The pool of pinned memory: bounded, recycled by event, loud when empty.

#include <faiss_ext/gpu/Exceptions.h>
#include <faiss_ext/gpu/PinnedBufferPool.h>

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
    EXPECT_EQ(pool.acquire(4096).data(), first);
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
    EXPECT_EQ(pool.acquire(4096).data(), order[0]);
    EXPECT_EQ(pool.pinnedBytes(), 8192u);
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

TEST_F(Pool, destruction_waits_for_buffers_in_use) {
    Array<char> device(Memory::Device, 4096);
    std::vector<char> landed(4096);
    {
        PinnedBufferPool pool(1 << 20, counters_);
        auto buffer = pool.acquire(4096);
        std::memset(buffer.data(), 7, 4096);
        use(buffer, device, 4096);
        buffer.releaseAfter(stream_);
    }
    EXPECT_EQ(device.get(), std::vector<char>(4096, 7));
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
    PinnedBufferPool pool(4 * 4096, counters_);
    Array<char> device(Memory::Device, 4096);
    std::atomic<int> clashes{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 50; ++i) {
                auto buffer = pool.acquire(4096);
                std::memset(buffer.data(), t, 4096);
                std::this_thread::yield();
                for (int j = 0; j < 4096; ++j) {
                    clashes += buffer.data()[j] != t;
                }
                if (i % 3 == 0) {
                    use(buffer, device, 16);
                    buffer.releaseAfter(stream_);
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(clashes, 0);
    check(cudaStreamSynchronize(stream_));
}

} // namespace
