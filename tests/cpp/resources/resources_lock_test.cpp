// Faiss' resources are for one thread at a time: whatever our indexes and
// buffers do with them, from their making to their end, happens under the lock
// of the object.

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/DeviceBuffer.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

#include <faiss/IndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <future>
#include <mutex>
#include <string>
#include <thread>

#include "support/Arrays.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss::gpu::GpuResources;
using faiss::gpu::StandardGpuResourcesImpl;
using faiss_ext::gpu::copyTeamOf;
using faiss_ext::gpu::DeviceBuffer;
using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::lockOf;
using namespace test;

/// Whether a thread could take the lock now that does not hold it.
bool isFree(const GpuResources* resources) {
    bool taken = false;
    std::thread([&] {
        auto lock = lockOf(resources);
        taken = lock->try_lock();
        if (taken) {
            lock->unlock();
        }
    }).join();
    return taken;
}

/// Notes every use that another thread could disturb.
class WatchedResources : public StandardGpuResourcesImpl {
   public:
    void initializeForDevice(int device) override {
        look();
        StandardGpuResourcesImpl::initializeForDevice(device);
    }
    cublasHandle_t getBlasHandle(int device) override {
        look();
        return StandardGpuResourcesImpl::getBlasHandle(device);
    }
    cudaStream_t getDefaultStream(int device) override {
        look();
        return StandardGpuResourcesImpl::getDefaultStream(device);
    }
    std::vector<cudaStream_t> getAlternateStreams(int device) override {
        look();
        return StandardGpuResourcesImpl::getAlternateStreams(device);
    }
    cudaStream_t getAsyncCopyStream(int device) override {
        look();
        return StandardGpuResourcesImpl::getAsyncCopyStream(device);
    }
    std::pair<void*, size_t> getPinnedMemory() override {
        look();
        return StandardGpuResourcesImpl::getPinnedMemory();
    }
    void* allocMemory(const faiss::gpu::AllocRequest& request) override {
        look();
        return StandardGpuResourcesImpl::allocMemory(request);
    }
    void deallocMemory(int device, void* memory) override {
        look();
        StandardGpuResourcesImpl::deallocMemory(device, memory);
    }

    int uses = 0;
    int usesWithoutLock = 0;

   private:
    void look() {
        ++uses;
        usesWithoutLock += isFree(this);
    }
};

class ResourcesLock : public SimTest {
   protected:
    /// Each call uses the resources, and only under the lock.
    template <typename Call>
    void expectLocked(const char* name, const Call& call) {
        const int before = resources_->uses;
        call();
        EXPECT_GT(resources_->uses, before) << name;
        EXPECT_EQ(resources_->usesWithoutLock, 0) << name;
        resources_->usesWithoutLock = 0;
        EXPECT_TRUE(isFree(resources_.get())) << name;
    }

    std::shared_ptr<WatchedResources> resources_ =
            std::make_shared<WatchedResources>();
    const std::vector<float> base_ = randomVectors(100, 8, 1);
};

TEST_F(ResourcesLock, is_held_while_an_index_is_made_and_destroyed) {
    faiss::IndexFlatL2 cpu(8);
    cpu.add(100, base_.data());
    std::unique_ptr<GpuIndexFlatL2> index;
    expectLocked("constructor", [&] {
        index = std::make_unique<GpuIndexFlatL2>(resources_, &cpu);
    });
    expectLocked("destructor", [&] { index.reset(); });
}

TEST_F(ResourcesLock, of_a_thread_that_holds_it_is_not_waited_for_at_the_end) {
    auto index = std::make_unique<GpuIndexFlatL2>(resources_, 8);
    auto buffer = std::make_unique<DeviceBuffer>(resources_, 0, 64);
    {
        const auto lock = lockOf(resources_.get());
        const std::lock_guard<faiss_ext::gpu::ResourcesLock> held(*lock);
        index.reset();
        buffer.reset();
        EXPECT_TRUE(lock->heldByThisThread());
    }
    EXPECT_TRUE(isFree(resources_.get()));
}

TEST_F(ResourcesLock, is_held_by_each_method_of_an_index) {
    GpuIndexFlatL2 index(resources_, 8);
    std::vector<float> distances(3);
    std::vector<float> vectors(3 * 8);
    std::vector<int64_t> labels(3);
    const float* x = base_.data();
    faiss::IndexFlatL2 cpu(8);
    const auto stream = cudaStreamPerThread;
    expectLocked("add", [&] { index.add(100, x); });
    expectLocked("search", [&] {
        index.search(1, x, 3, distances.data(), labels.data());
    });
    expectLocked("search with parameters", [&] {
        const faiss::SearchParameters params;
        index.search(1, x, 3, distances.data(), labels.data(), &params);
    });
    expectLocked("profile_search", [&] {
        index.profile_search(1, x, 3, distances.data(), labels.data());
    });
    expectLocked("assign", [&] { index.assign(3, x, labels.data()); });
    expectLocked("search_and_reconstruct", [&] {
        index.search_and_reconstruct(
                1, x, 3, distances.data(), labels.data(), vectors.data());
    });
    expectLocked("reconstruct_n", [&] {
        index.reconstruct_n(2, 3, vectors.data());
    });
    expectLocked("reconstruct_batch", [&] {
        index.reconstruct_batch(3, labels.data(), vectors.data());
    });
    expectLocked("compute_residual_n", [&] {
        index.compute_residual_n(3, x, vectors.data(), labels.data());
    });
    expectLocked("waitForStream", [&] { index.waitForStream(stream); });
    expectLocked("makeStreamWait", [&] { index.makeStreamWait(stream); });
    expectLocked("copyTo", [&] { index.copyTo(&cpu); });
    expectLocked("reset", [&] { index.reset(); });
    expectLocked("copyFrom", [&] { index.copyFrom(&cpu); });
}

/// Notes whether the lock is held where vectors are read back.
struct Noting : GpuIndexFlatL2 {
    using GpuIndexFlatL2::GpuIndexFlatL2;
    void reconstruct_batch(
            faiss_ext::gpu::idx_t n,
            const faiss_ext::gpu::idx_t* keys,
            float* out) const override {
        locked = !isFree(resources_.get());
        GpuIndexFlatL2::reconstruct_batch(n, keys, out);
    }
    static inline bool locked = false;
};

TEST_F(ResourcesLock, is_held_from_the_search_to_its_reconstruction) {
    // Otherwise the vectors found may be others by then.
    Noting index(resources_, 8);
    index.add(100, base_.data());
    float distance;
    int64_t label;
    std::vector<float> vector(8);
    index.search_and_reconstruct(
            1, base_.data(), 1, &distance, &label, vector.data());
    EXPECT_TRUE(Noting::locked);
}

TEST_F(ResourcesLock, is_held_by_device_buffers) {
    std::shared_ptr<DeviceBuffer> buffer;
    expectLocked("constructor", [&] {
        buffer = std::make_shared<DeviceBuffer>(resources_, 0, 4096);
    });
    check(cudaMemsetAsync(buffer->data(), 7, 4096, buffer->stream()));
    std::shared_ptr<DeviceBuffer> copy;
    expectLocked("copy", [&] { copy = buffer->copy(); });
    expectLocked("destructor", [&] { buffer.reset(); });
    expectLocked("destructor of a copy", [&] { copy.reset(); });
}

const GpuResources* noResources(size_t number) {
    // Their address is all that lockOf asks for.
    return reinterpret_cast<const GpuResources*>((number + 1) * 64);
}

TEST(LockOf, is_one_for_each_object_in_use) {
    const auto first = lockOf(noResources(1));
    EXPECT_EQ(lockOf(noResources(1)), first);
    EXPECT_NE(lockOf(noResources(2)), first);
}

TEST(LockOf, keeps_nothing_for_objects_no_longer_in_use) {
    lockOf(noResources(0));
    const size_t before = mallinfo2().uordblks;
    for (size_t i = 0; i < 20000; ++i) {
        lockOf(noResources(i));
    }
    EXPECT_LT(mallinfo2().uordblks, before + 100000);
}

TEST(LockOf, is_the_same_for_threads_that_come_and_go) {
    constexpr int kObjects = 3;
    constexpr int kThreads = 4;
    constexpr int kRounds = 3000;
    int counts[kObjects] = {};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < kRounds; ++i) {
                const int object = (i + t) % kObjects;
                const auto lock = lockOf(noResources(object));
                std::lock_guard guard(*lock);
                ++counts[object];
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(counts[0] + counts[1] + counts[2], kThreads * kRounds);
}

TEST(LockOf, knows_the_thread_that_holds_it) {
    const auto resources = noResources(1);
    const auto lock = lockOf(resources);
    const auto heldByAnother = [&] {
        bool held = false;
        std::thread([&] { held = lock->heldByThisThread(); }).join();
        return held;
    };
    EXPECT_FALSE(lock->heldByThisThread());
    lock->lock();
    EXPECT_TRUE(lock->heldByThisThread());
    EXPECT_FALSE(heldByAnother());
    lock->lock();
    EXPECT_TRUE(lock->try_lock());
    for (int i = 0; i < 2; ++i) {
        lock->unlock();
        EXPECT_TRUE(lock->heldByThisThread());
        EXPECT_FALSE(isFree(resources));
    }
    lock->unlock();
    EXPECT_FALSE(lock->heldByThisThread());
    EXPECT_TRUE(isFree(resources));
    EXPECT_TRUE(lock->try_lock());
    EXPECT_TRUE(lock->heldByThisThread());
    EXPECT_FALSE(isFree(resources));
    lock->unlock();
    EXPECT_TRUE(isFree(resources));
}

TEST(LockOf, tells_threads_that_ask_while_others_take_it) {
    constexpr int kThreads = 4;
    constexpr int kRounds = 3000;
    const auto lock = lockOf(noResources(1));
    int count = 0;
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < kRounds; ++i) {
                wrong += lock->heldByThisThread();
                std::lock_guard guard(*lock);
                std::lock_guard again(*lock);
                wrong += !lock->heldByThisThread();
                ++count;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(count, kThreads * kRounds);
}

TEST(LockOf, is_taken_again_by_the_thread_that_holds_it) {
    const auto lock = lockOf(noResources(6));
    lock->lock();
    EXPECT_TRUE(lock->try_lock());
    EXPECT_TRUE(lock->try_lock_for(std::chrono::milliseconds(1)));
    lock->unlock();
    lock->unlock();
    EXPECT_FALSE(isFree(noResources(6)));
    lock->unlock();
    EXPECT_TRUE(isFree(noResources(6)));
}

TEST(LockOf, is_given_back_by_calls_that_are_stopped) {
    const auto lock = lockOf(noResources(5));
    using faiss_ext::gpu::callsAreStopped;
    using faiss_ext::gpu::Unsupported;
    callsAreStopped = true;
    EXPECT_THROW(lock->lock(), Unsupported);
    EXPECT_THROW(lock->try_lock(), Unsupported);
    EXPECT_THROW(lock->try_lock_for(std::chrono::seconds(9)), Unsupported);
    callsAreStopped = false;
    EXPECT_TRUE(isFree(noResources(5)));
}

TEST(KeepForEver, may_be_called_by_any_thread) {
    const auto resources = std::make_shared<StandardGpuResourcesImpl>();
    constexpr int kThreads = 4;
    constexpr int kRounds = 1000;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < kRounds; ++i) {
                faiss_ext::gpu::keepForEver(resources);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(resources.use_count(), 1 + kThreads * kRounds);
}

/// Whether the thread sleeps, as Linux has it.
bool sleeps(pid_t thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string stat;
    std::getline(file, stat);
    const auto name = stat.rfind(')');
    return name != stat.npos && stat.compare(name, 3, ") S") == 0;
}

TEST(MayNotReturn, is_of_each_thread_by_itself) {
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            const auto me = std::this_thread::get_id();
            for (int i = 0; i < 200; ++i) {
                {
                    const faiss_ext::gpu::MayNotReturn outer, inner;
                    wrong += !faiss_ext::gpu::mayNotReturn(me);
                }
                wrong += faiss_ext::gpu::mayNotReturn(me);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0);
}

TEST(LockForEnd, looks_again_whether_the_holder_may_never_return) {
    const auto lock = lockOf(noResources(3));
    faiss_ext::gpu::beginEnd();
    std::promise<pid_t> waiter;
    std::promise<void> locked, over;
    std::thread holder([&] {
        std::lock_guard<faiss_ext::gpu::ResourcesLock> held(*lock);
        locked.set_value();
        const pid_t thread = waiter.get_future().get();
        while (!sleeps(thread)) {
            std::this_thread::yield();
        }
        const faiss_ext::gpu::MayNotReturn mayNotReturn;
        over.get_future().wait();
    });
    locked.get_future().wait();
    waiter.set_value(static_cast<pid_t>(syscall(SYS_gettid)));
    {
        const faiss_ext::gpu::LockForEnd end(*lock);
        EXPECT_FALSE(end.held());
    }
    over.set_value();
    holder.join();
}

TEST(CopyTeamOf, is_one_for_each_object_in_use) {
    const auto lock = lockOf(noResources(1));
    const auto team = copyTeamOf(noResources(1));
    EXPECT_EQ(copyTeamOf(noResources(1)), team);
    EXPECT_NE(copyTeamOf(noResources(2)), team);
}

TEST(WaitForCalls, knows_resources_that_come_and_go) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([t] {
            for (int i = 0; i < 300; ++i) {
                const auto lock = lockOf(noResources(10 + (i + t) % 7));
                const std::lock_guard<faiss_ext::gpu::ResourcesLock> held(
                        *lock);
            }
        });
    }
    for (int i = 0; i < 20; ++i) {
        faiss_ext::gpu::waitForCalls();
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

} // namespace
