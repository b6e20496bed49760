// Faiss' resources are for one thread at a time: whatever our indexes do with
// them, from their making to their end, happens under the lock of the object.

#include <faiss_ext/gpu/GpuIndexFlat.h>
#include <faiss_ext/gpu/ResourcesLock.h>

#include <faiss/IndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>

#include <thread>

#include "support/Arrays.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::copyTeamOf;
using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::lockOf;
using namespace test;

/// Notes every allocation and release that another thread could disturb.
class WatchedResources : public faiss::gpu::StandardGpuResourcesImpl {
   public:
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
        std::thread([this] {
            auto lock = lockOf(this);
            if (lock->try_lock()) {
                ++usesWithoutLock;
                lock->unlock();
            }
        }).join();
    }
};

class ResourcesLock : public SimTest {
   protected:
    void TearDown() override {
        EXPECT_GT(resources_->uses, 0);
        EXPECT_EQ(resources_->usesWithoutLock, 0);
        SimTest::TearDown();
    }

    std::shared_ptr<WatchedResources> resources_ =
            std::make_shared<WatchedResources>();
    const std::vector<float> base_ = randomVectors(100, 8, 1);
};

TEST_F(ResourcesLock, is_held_while_an_index_is_made_of_another) {
    faiss::IndexFlatL2 cpu(8);
    cpu.add(100, base_.data());
    GpuIndexFlatL2 index(resources_, &cpu);
}

TEST_F(ResourcesLock, is_held_while_an_index_is_used_and_destroyed) {
    GpuIndexFlatL2 index(resources_, 8);
    index.add(100, base_.data());
    std::vector<float> distances(3);
    std::vector<int64_t> labels(3);
    index.search(1, base_.data(), 3, distances.data(), labels.data());
    faiss::IndexFlatL2 cpu(8);
    index.copyTo(&cpu);
    index.reset();
    index.copyFrom(&cpu);
}

TEST(CommonOfResources, is_one_for_each_object_and_ends_with_its_last_user) {
    const auto first = std::make_shared<WatchedResources>();
    const auto second = std::make_shared<WatchedResources>();
    auto team = copyTeamOf(first.get());
    auto lock = lockOf(first.get());
    EXPECT_EQ(copyTeamOf(first.get()), team);
    EXPECT_EQ(lockOf(first.get()), lock);
    EXPECT_NE(copyTeamOf(second.get()), team);
    EXPECT_NE(lockOf(second.get()), lock);
    std::weak_ptr<faiss_ext::gpu::CopyTeam> watched = team;
    team.reset();
    EXPECT_FALSE(watched.expired());
    lock.reset();
    EXPECT_TRUE(watched.expired());
}

} // namespace
