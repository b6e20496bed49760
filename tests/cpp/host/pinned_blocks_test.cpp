// Pinned memory that users get to see: copied by a fork, small blocks together.

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/host/PinnedBlock.h>
#include <faiss_ext/gpu/host/PinnedPages.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

#include <faiss/gpu/StandardGpuResources.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "support/CachingPool.h"
#include "support/SimTest.h"

namespace {

using namespace faiss_ext::gpu;

class PinnedBlocks : public test::SimTest {
   protected:
    PinnedBlocks() {
        if (!pinned_pages::areSafe()) {
            pool_.reset();
        }
    }
    void SetUp() override {
        SimTest::SetUp();
        if (!pool_) {
            GTEST_SKIP() << "this kernel is older than Linux 5.9";
        }
    }

    std::unique_ptr<PinnedBlock> block(size_t bytes) {
        return PinnedBlock::tryMake(pool_, bytes);
    }

    std::shared_ptr<PinnedBlockPool> pool_ =
            std::make_shared<PinnedBlockPool>(size_t(1) << 20);
};

TEST_F(PinnedBlocks, lie_in_private_memory_that_is_registered) {
    const auto large = block(1 << 16);
    const auto small = block(12);
    EXPECT_EQ(counts().registrations, 2u);
    EXPECT_EQ(counts().allocs_pinned, 0u);
}

TEST_F(PinnedBlocks, small_ones_share_what_is_pinned) {
    std::vector<std::unique_ptr<PinnedBlock>> kept;
    std::set<char*> places;
    for (int i = 0; i < 3000; ++i) {
        kept.push_back(block(i % 2 ? 12 : 120));
        auto* data = static_cast<char*>(kept.back()->data());
        EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
        std::memset(data, i % 128, i % 2 ? 12 : 120);
        places.insert(data);
    }
    EXPECT_EQ(places.size(), kept.size());
    EXPECT_LE(pool_->pinnedBytes(), 3000u * 96 + 2 * 65536);
    for (int i = 0; i < 3000; ++i) {
        EXPECT_EQ(static_cast<char*>(kept[i]->data())[11], i % 128);
    }
    kept.clear();
    pool_->trim();
    EXPECT_EQ(pool_->pinnedBytes(), 0u);
}

TEST_F(PinnedBlocks, what_small_ones_gave_back_serves_others) {
    std::vector<std::unique_ptr<PinnedBlock>> kept;
    for (int i = 0; i < 4096; ++i) {
        kept.push_back(block(64));
    }
    EXPECT_EQ(pool_->allocations(), 4u);
    kept.clear();
    for (int i = 0; i < 3; ++i) {
        kept.push_back(block(65536));
    }
    EXPECT_EQ(pool_->allocations(), 4u);
}

TEST_F(PinnedBlocks, one_that_lives_keeps_its_buffer) {
    auto first = block(64);
    auto second = block(64);
    first.reset();
    pool_->trim();
    EXPECT_EQ(pool_->pinnedBytes(), 65536u);
    std::memset(second->data(), 1, 64);
    second.reset();
    pool_->trim();
    EXPECT_EQ(pool_->pinnedBytes(), 0u);
}

TEST_F(PinnedBlocks, where_the_pool_is_small_each_is_pinned_by_itself) {
    pool_ = std::make_shared<PinnedBlockPool>(8192);
    auto first = block(12);
    auto second = block(12);
    EXPECT_EQ(pool_->pinnedBytes(), 8192u);
    EXPECT_EQ(block(12), nullptr);
}

TEST_F(PinnedBlocks, of_many_threads_never_overlap) {
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            std::vector<std::unique_ptr<PinnedBlock>> kept;
            for (int i = 0; i < 3000; ++i) {
                if (kept.size() == 500) {
                    kept.erase(kept.begin(), kept.begin() + 1 + i % 499);
                }
                kept.push_back(block(100));
                *static_cast<int*>(kept.back()->data()) = t;
            }
            for (const auto& block : kept) {
                wrong += *static_cast<int*>(block->data()) != t;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0);
}

/// Runs what each thread does once, all at the same time: the threads meet
/// nowhere else, so that ThreadSanitizer sees what no lock orders.
void runAtOnce(const std::vector<std::function<void()>>& work) {
    std::atomic<size_t> ready{0};
    std::vector<std::thread> threads;
    for (const auto& one : work) {
        threads.emplace_back([&] {
            ++ready;
            while (ready < work.size()) {
                std::this_thread::yield();
            }
            one();
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

TEST_F(PinnedBlocks, first_ones_of_many_threads_never_overlap) {
    std::vector<std::unique_ptr<PinnedBlock>> made(4);
    std::vector<std::function<void()>> work;
    for (auto& one : made) {
        work.emplace_back([&] { one = block(64); });
    }
    runAtOnce(work);
    std::set<void*> places;
    for (const auto& one : made) {
        places.insert(one->data());
    }
    EXPECT_EQ(places.size(), made.size());
}

TEST_F(PinnedBlocks, of_one_threads_are_kept_while_another_trims) {
    block(64);
    const auto kept = block(64);
    runAtOnce({[&] { block(64); }, [&] { pool_->trim(); }});
    EXPECT_EQ(pool_->pinnedBytes(), 65536u);
}

TEST_F(PinnedBlocks, where_nothing_can_be_pinned_the_pool_goes_on) {
    cuda_sim_fail_call("cudaHostRegister", 1, cudaErrorMemoryAllocation);
    EXPECT_THROW(block(12), CudaError);
    EXPECT_EQ(pool_->pinnedBytes(), 0u);
    EXPECT_NE(block(12), nullptr);
}

TEST(PinnedPages, are_safe_from_linux_5_9_on) {
    for (const char* release :
         {"5.9.0", "5.10.0-33-amd64", "6.18.44", "10.0"}) {
        EXPECT_TRUE(pinned_pages::areSafeOn(release)) << release;
    }
    for (const char* release :
         {"5.8.18-300.fc33", "4.18.0-553.el8", "4.4.0", "3.10.0", "", "x"}) {
        EXPECT_FALSE(pinned_pages::areSafeOn(release)) << release;
    }
}

/// The status of a child that returns whether all is right.
bool rightInChild(const std::function<bool()>& work) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(30);
        _exit(work() && cuda_sim_check() == 0 ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status == 0;
}

TEST_F(PinnedBlocks, in_a_child_they_end_and_are_refused) {
    auto small = block(12);
    auto large = block(1 << 16);
    EXPECT_TRUE(rightInChild([&] {
        small.reset();
        large.reset();
        try {
            block(12);
        } catch (const CudaError&) {
            pool_.reset();
            return true;
        }
        return false;
    }));
}

class Forks : public test::SimTest {
   protected:
    faiss::gpu::StandardGpuResources resources_;
    std::vector<float> x_ = std::vector<float>(400);
};

TEST_F(Forks, an_index_ends_in_the_child_though_its_lock_is_held) {
    auto index = std::make_unique<GpuIndexFlatL2>(&resources_, 4);
    index->add(100, x_.data());
    auto buffer = std::make_unique<Event>();
    const auto lock = lockOf(resources_.getResources().get());
    std::atomic<bool> held{false};
    std::atomic<bool> over{false};
    std::thread other([&] {
        const std::lock_guard<ResourcesLock> guard(*lock);
        held = true;
        while (!over) {
            std::this_thread::yield();
        }
    });
    while (!held) {
        std::this_thread::yield();
    }
    EXPECT_TRUE(rightInChild([&] {
        std::vector<float> D(10);
        std::vector<idx_t> I(10);
        try {
            index->search(10, x_.data(), 1, D.data(), I.data());
            return false;
        } catch (const CudaError& e) {
            if (!std::strstr(e.what(), "spawn")) {
                return false;
            }
        }
        index.reset();
        buffer.reset();
        return true;
    }));
    over = true;
    other.join();
}

TEST_F(Forks, resources_on_a_pool_end_in_the_child) {
    auto pool = std::make_shared<test::CachingPool>();
    auto pooled = std::make_unique<PooledGpuResources>(pool);
    auto index = std::make_unique<GpuIndexFlatL2>(pooled.get(), 4);
    index->add(100, x_.data());
    EXPECT_TRUE(rightInChild([&] {
        index.reset();
        pooled.reset();
        return true;
    }));
    index.reset();
    auto alone = std::make_unique<PooledGpuResources>(pool);
    alone->getDefaultStream(0);
    EXPECT_TRUE(rightInChild([&] {
        alone.reset();
        return true;
    }));
}

} // namespace
