#pragma once

#include <faiss/gpu/GpuResources.h>
#include <faiss/impl/FaissAssert.h>

#include <memory>
#include <mutex>

#include <faiss_ext/gpu/CopyTeam.h>
#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// The lock of one GpuResources object. Faiss' resources (streams, temporary
/// stack, cuBLAS handle) are for one thread at a time, and several indexes may
/// share them; so callers of all our indexes on the same object take the same
/// lock. It is recursive because Faiss' own methods call virtual ones of ours
/// (copyTo calls reconstruct_n).
///
/// Who holds it must not call `search` of such an index: that may wait for
/// another thread's search, which needs the lock (SearchBatcher).
///
/// The process holds one entry for each resources object in use, dropped with
/// the last index on it. Stock Faiss indexes on the same object do not know
/// this lock.
FAISS_EXT_API std::shared_ptr<std::recursive_mutex> lockOf(
        const faiss::gpu::GpuResources* resources);

/// The threads that copy for all our indexes on the same GpuResources object:
/// these run one after another, so more would only sleep. Held and dropped like
/// the lock.
FAISS_EXT_API std::shared_ptr<CopyTeam> copyTeamOf(
        const faiss::gpu::GpuResources* resources);

/// Never lets go of `object`: for when the CUDA context is lost. Faiss'
/// resources, and what was allocated from them, abort the process when they
/// cannot free.
FAISS_EXT_API void keepForEver(std::shared_ptr<const void> object);

/// Holds the lock of the resources of an index while its other base classes are
/// made and destroyed: they allocate, copy and free then. The first base of a
/// class, so that it is made before the others and destroyed after them.
class LockedBothEnds {
   protected:
    /// Takes the lock. The class derived from this calls `endConstruction` at
    /// the end of its constructor and `beginDestruction` in its destructor, on
    /// the same threads. Throws faiss::FaissException if there are none.
    explicit LockedBothEnds(
            const std::shared_ptr<faiss::gpu::GpuResources>& resources)
            : lock_(lockOf(resources.get())), atEnds_(*lock_) {
        FAISS_THROW_IF_NOT_MSG(resources, "no GpuResources given");
    }
    explicit LockedBothEnds(faiss::gpu::GpuResourcesProvider* provider)
            : LockedBothEnds(provider ? provider->getResources() : nullptr) {}

    void endConstruction() {
        atEnds_.unlock();
    }
    void beginDestruction() {
        atEnds_.lock();
    }

    const std::shared_ptr<std::recursive_mutex> lock_;

   private:
    // Not held between the two ends.
    std::unique_lock<std::recursive_mutex> atEnds_;
};

} // namespace gpu
} // namespace faiss_ext
