#include <faiss_ext/gpu/resources/ResourcesLock.h>

#include <chrono>
#include <unordered_map>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// What all our indexes on one resources object have in common.
struct Common {
    ResourcesLock lock;
    CallState calls;
    CopyTeam copyTeam;
    /// How many pointers to it there are.
    size_t uses = 0;
};

// Never destroyed: indexes may outlive static destruction.
std::mutex& registryLock = *new std::mutex;
auto& registry =
        *new std::unordered_map<const faiss::gpu::GpuResources*, Common>;

std::shared_ptr<Common> commonOf(const faiss::gpu::GpuResources* resources) {
    // In a process that has lost CUDA the registry's lock may be held for ever.
    beforeCuda();

    // Uses are counted under the registry's lock, so that who makes a lock anew
    // comes after all who held the one before.
    Common* common;
    {
        std::lock_guard<std::mutex> guard(registryLock);
        common = &registry[resources];
        ++common->uses;
    }
    // Where there is no memory for the pointer, this calls the deleter.
    return {common, [resources](Common* used) {
                if (lostByFork()) {
                    return;
                }
                std::lock_guard<std::mutex> guard(registryLock);
                if (--used->uses == 0) {
                    registry.erase(resources);
                }
            }};
}

} // namespace

bool ResourcesLock::lockForEnd() noexcept {
    if (lostByFork()) {
        return false;
    }
    if (!heldByThisThread()) {
        using Clock = std::chrono::steady_clock;
        const auto begin = Clock::now();
        const std::chrono::duration<double> period(tuning::kQueueSeconds);
        // Whoever holds it may go where it does not return from at any time.
        while (!mutex_.try_lock_for(period)) {
            if (endHasBegun() &&
                mayNotReturn(owner_.load(std::memory_order_relaxed))) {
                return false;
            }
            const std::chrono::duration<double> waited = Clock::now() - begin;
            if (faissIsAsking() && waited.count() > tuning::kEndSeconds) {
                return false;
            }
        }
    }
    enter();
    return true;
}

std::shared_ptr<ResourcesLock> lockOf(
        const faiss::gpu::GpuResources* resources) {
    const auto common = commonOf(resources);
    return {common, &common->lock};
}

std::unique_lock<ResourcesLock> lockUnlessInterrupted(ResourcesLock& lock) {
    refuseInQuestion(false);
    if (!lock.try_lock()) {
        refuseInQuestion(true);
        const std::chrono::duration<double> period(tuning::kQueueSeconds);
        while (!lock.try_lock_for(period)) {
            throwIfInterrupted();
        }
    }
    return {lock, std::adopt_lock};
}

void CallState::refuseWhileUnderWay() const {
    if (underWay) {
        throw Unsupported(
                "an index was called from inside a call of the same thread on "
                "the same GpuResources, such as by a signal's handler or a "
                "memory pool's callback; call it after that has returned (or, "
                "in a pool's callback, give it a GpuResources object of its "
                "own)");
    }
}

std::shared_ptr<CallState> callStateOf(
        const faiss::gpu::GpuResources* resources) {
    const auto common = commonOf(resources);
    return {common, &common->calls};
}

std::shared_ptr<CopyTeam> copyTeamOf(
        const faiss::gpu::GpuResources* resources) {
    const auto common = commonOf(resources);
    return {common, &common->copyTeam};
}

void waitForCalls() noexcept {
    if (lostByFork()) {
        return;
    }
    std::vector<Common*> all;
    {
        std::lock_guard<std::mutex> guard(registryLock);
        for (auto& entry : registry) {
            // From now on there for ever.
            ++entry.second.uses;
            all.push_back(&entry.second);
        }
    }
    for (Common* common : all) {
        LockForEnd wait(common->lock);
    }
}

void keepForEver(std::shared_ptr<const void> object) {
    struct Kept {
        std::shared_ptr<const void> object;
        Kept* next;
    };
    static std::atomic<Kept*> last{nullptr};
    auto* kept = new Kept{std::move(object), last};
    while (!last.compare_exchange_weak(kept->next, kept)) {
    }
}

} // namespace gpu
} // namespace faiss_ext
