#include <faiss_ext/gpu/ResourcesLock.h>

#include <unordered_map>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/Interrupts.h>
#include <faiss_ext/gpu/Tuning.h>

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

std::shared_ptr<Common> commonOf(const faiss::gpu::GpuResources* resources) {
    // Never destroyed: indexes may outlive static destruction.
    static auto& registryLock = *new std::mutex;
    static auto& registry =
            *new std::unordered_map<const faiss::gpu::GpuResources*, Common>;

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
                std::lock_guard<std::mutex> guard(registryLock);
                if (--used->uses == 0) {
                    registry.erase(resources);
                }
            }};
}

} // namespace

std::shared_ptr<ResourcesLock> lockOf(
        const faiss::gpu::GpuResources* resources) {
    const auto common = commonOf(resources);
    return {common, &common->lock};
}

std::unique_lock<ResourcesLock> lockUnlessInterrupted(ResourcesLock& lock) {
    if (!lock.try_lock()) {
        const std::chrono::duration<double> period(tuning::kQueueSeconds);
        while (!lock.try_lock_for(period)) {
            throwIfInterrupted();
        }
    }
    return {lock, std::adopt_lock};
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

void keepForEver(std::shared_ptr<const void> object) {
    static auto& lock = *new std::mutex;
    static auto& kept = *new std::vector<std::shared_ptr<const void>>;
    std::lock_guard<std::mutex> guard(lock);
    kept.push_back(std::move(object));
}

} // namespace gpu
} // namespace faiss_ext
