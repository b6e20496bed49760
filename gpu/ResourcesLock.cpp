#include <faiss_ext/gpu/ResourcesLock.h>

#include <unordered_map>

namespace faiss_ext {
namespace gpu {

namespace {

struct Entry {
    std::recursive_mutex mutex;
    /// How many pointers to it there are.
    size_t uses = 0;
};

} // namespace

std::shared_ptr<std::recursive_mutex> lockOf(
        const faiss::gpu::GpuResources* resources) {
    // Never destroyed: indexes may outlive static destruction.
    static auto& registryLock = *new std::mutex;
    static auto& registry =
            *new std::unordered_map<const faiss::gpu::GpuResources*, Entry>;

    // Uses are counted under the registry's lock, so that who makes a lock anew
    // comes after all who held the one before.
    std::lock_guard<std::mutex> guard(registryLock);
    Entry& entry = registry[resources];
    ++entry.uses;
    return {&entry.mutex, [resources, &entry](std::recursive_mutex*) {
                std::lock_guard<std::mutex> guard(registryLock);
                if (--entry.uses == 0) {
                    registry.erase(resources);
                }
            }};
}

void keepForEver(const std::shared_ptr<faiss::gpu::GpuResources>& resources) {
    new std::shared_ptr<faiss::gpu::GpuResources>(resources);
}

} // namespace gpu
} // namespace faiss_ext
