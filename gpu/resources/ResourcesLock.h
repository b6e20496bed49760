#pragma once

#include <faiss/gpu/GpuResources.h>
#include <faiss/impl/FaissAssert.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/host/CopyTeam.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

/// A recursive mutex that knows which thread holds it. For std::lock_guard and
/// its like; `unlock` is for the thread that holds it.
class ResourcesLock {
   public:
    /// Waits while another thread holds it. Throws CudaError where CUDA was
    /// lost by a fork, and Unsupported at the end of the process.
    void lock() {
        beforeCuda();
        if (!heldByThisThread()) {
            mutex_.lock();
            leaveIfStopped();
        }
        enter();
    }

    /// Does not wait; false if another thread holds it. Throws as `lock`.
    bool try_lock() {
        beforeCuda();
        if (!heldByThisThread()) {
            if (!mutex_.try_lock()) {
                return false;
            }
            leaveIfStopped();
        }
        enter();
        return true;
    }

    /// Waits up to `duration`; false if another thread holds it still. Throws
    /// as `lock`.
    template <typename Rep, typename Period>
    bool try_lock_for(const std::chrono::duration<Rep, Period>& duration) {
        beforeCuda();
        if (!heldByThisThread()) {
            if (!mutex_.try_lock_for(duration)) {
                return false;
            }
            leaveIfStopped();
        }
        enter();
        return true;
    }

    /// For destructors: like `lock`, but false, and then it is not locked,
    /// where what it guards is to be left as it is: in a process that has lost
    /// CUDA by a fork; at the end of the process, where whoever holds it may
    /// never return; in the midst of a question that Faiss asks (Interrupts.h),
    /// whose lock the holder may be waiting for, after kEndSeconds.
    FAISS_EXT_API bool lockForEnd() noexcept;

    /// As often as it was locked.
    void unlock() {
        --depth_;
        if (depth_ == 0) {
            owner_.store(std::thread::id(), std::memory_order_relaxed);
            mutex_.unlock();
        }
    }

    /// Any thread may ask.
    bool heldByThisThread() const {
        return owner_.load(std::memory_order_relaxed) ==
               std::this_thread::get_id();
    }

   private:
    void leaveIfStopped() {
        if (callsAreStopped.load(std::memory_order_relaxed)) {
            mutex_.unlock();
            throwStopped();
        }
    }

    void enter() {
        owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
        ++depth_;
    }

    std::timed_mutex mutex_;
    /// Relaxed: a thread finds its own id only where it has written it, and the
    /// mutex alone orders threads.
    std::atomic<std::thread::id> owner_{};
    /// Of the thread that holds the mutex.
    size_t depth_ = 0;
};

/// The lock of one GpuResources object. Faiss' resources (streams, temporary
/// stack, cuBLAS handle) are for one thread at a time, and several indexes may
/// share them; so callers of all our indexes on the same object take the same
/// lock. It is recursive because Faiss' own methods call virtual ones of ours
/// (copyTo calls reconstruct_n).
///
/// Who holds it may call any method of such an index. Its searches then join
/// no other thread's and queue behind none: these need the lock.
///
/// The process holds one entry for each resources object in use, dropped with
/// the last index on it. Stock Faiss indexes on the same object do not know
/// this lock.
FAISS_EXT_API std::shared_ptr<ResourcesLock> lockOf(
        const faiss::gpu::GpuResources* resources);

/// Takes the lock for a call that a user makes, who may want it to end while
/// other threads' calls hold it. Throws Interrupted, and Unsupported where the
/// call must not be made in the midst of a question (Interrupts.h).
FAISS_EXT_API std::unique_lock<ResourcesLock> lockUnlessInterrupted(
        ResourcesLock& lock);

/// What calls on the same GpuResources object leave to each other, whichever
/// index they are made on; for who holds the lock.
struct CallState {
    /// A call is being made. The thread that makes it may be asked for another
    /// one in the midst of it, by a signal's handler or a pool's callback,
    /// which must be refused: they would take each other's memory.
    bool underWay = false;
    /// Throws Unsupported if one is.
    FAISS_EXT_API void refuseWhileUnderWay() const;
    /// By GPU: work of a call that failed may be in flight, which could not be
    /// waited for. It may use memory that the resources hold for all, such as
    /// Faiss' pinned buffer, so whoever is next waits first.
    std::map<int, bool> unsettled;
};

/// Held and dropped like the lock.
FAISS_EXT_API std::shared_ptr<CallState> callStateOf(
        const faiss::gpu::GpuResources* resources);

/// The threads that copy for all our indexes on the same GpuResources object:
/// these run one after another, so more would only sleep. Held and dropped like
/// the lock.
FAISS_EXT_API std::shared_ptr<CopyTeam> copyTeamOf(
        const faiss::gpu::GpuResources* resources);

/// Never lets go of `object`: for when the CUDA context is lost, or CUDA was by
/// a fork. Faiss' resources, and what was allocated from them, abort the
/// process when they cannot free. Takes no lock.
FAISS_EXT_API void keepForEver(std::shared_ptr<const void> object);

/// Waits until no thread is in a call that holds one of these locks, but for
/// those that may never return; after `stopCalls`.
FAISS_EXT_API void waitForCalls() noexcept;

/// The lock for the scope of a destructor, or not (ResourcesLock::lockForEnd).
class LockForEnd {
   public:
    explicit LockForEnd(ResourcesLock& lock) noexcept {
        if (lock.lockForEnd()) {
            held_ = std::unique_lock<ResourcesLock>(lock, std::adopt_lock);
        }
    }

    bool held() const noexcept {
        return held_.owns_lock();
    }

   private:
    std::unique_lock<ResourcesLock> held_;
};

} // namespace gpu
} // namespace faiss_ext
