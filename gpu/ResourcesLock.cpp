#include <faiss_ext/gpu/ResourcesLock.h>

#include <unordered_map>

namespace faiss_ext {
namespace gpu {

std::shared_ptr<std::recursive_mutex> lockOf(
        const faiss::gpu::GpuResources* resources) {
    // Never destroyed: indexes may outlive static destruction.
    static auto& registryLock = *new std::mutex;
    static auto& registry = *new std::unordered_map<
            const faiss::gpu::GpuResources*,
            std::weak_ptr<std::recursive_mutex>>;

    std::lock_guard<std::mutex> guard(registryLock);
    auto& entry = registry[resources];
    auto lock = entry.lock();
    if (!lock) {
        lock = std::shared_ptr<std::recursive_mutex>(
                new std::recursive_mutex, [resources](std::recursive_mutex* m) {
                    delete m;
                    std::lock_guard<std::mutex> guard(registryLock);
                    auto it = registry.find(resources);
                    // A new lock may have taken the place meanwhile.
                    if (it != registry.end() && it->second.expired()) {
                        registry.erase(it);
                    }
                });
        entry = lock;
    }
    return lock;
}

void keepForEver(const std::shared_ptr<faiss::gpu::GpuResources>& resources) {
    new std::shared_ptr<faiss::gpu::GpuResources>(resources);
}

} // namespace gpu
} // namespace faiss_ext
