#include <faiss_ext/gpu/ResourcesLock.h>

#include <unordered_map>

namespace faiss_ext {
namespace gpu {

namespace {

/// What all our indexes on one resources object have in common.
struct Common {
    std::recursive_mutex lock;
    CopyTeam copyTeam;
};

std::shared_ptr<Common> commonOf(const faiss::gpu::GpuResources* resources) {
    // Never destroyed: indexes may outlive static destruction.
    static auto& registryLock = *new std::mutex;
    static auto& registry = *new std::unordered_map<
            const faiss::gpu::GpuResources*,
            std::weak_ptr<Common>>;

    std::lock_guard<std::mutex> guard(registryLock);
    auto& entry = registry[resources];
    auto common = entry.lock();
    if (!common) {
        common = std::shared_ptr<Common>(new Common, [resources](Common* c) {
            delete c;
            std::lock_guard<std::mutex> guard(registryLock);
            auto it = registry.find(resources);
            // A new one may have taken the place meanwhile.
            if (it != registry.end() && it->second.expired()) {
                registry.erase(it);
            }
        });
        entry = common;
    }
    return common;
}

} // namespace

std::shared_ptr<std::recursive_mutex> lockOf(
        const faiss::gpu::GpuResources* resources) {
    const auto common = commonOf(resources);
    return {common, &common->lock};
}

std::shared_ptr<CopyTeam> copyTeamOf(
        const faiss::gpu::GpuResources* resources) {
    const auto common = commonOf(resources);
    return {common, &common->copyTeam};
}

void keepForEver(const std::shared_ptr<faiss::gpu::GpuResources>& resources) {
    new std::shared_ptr<faiss::gpu::GpuResources>(resources);
}

} // namespace gpu
} // namespace faiss_ext
