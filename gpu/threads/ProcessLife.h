#pragma once

#include <cxxabi.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include <faiss_ext/gpu/Export.h>

/// What befalls a process as a whole: it is forked, or ends while threads of it
/// are in the midst of something.

namespace faiss_ext {
namespace gpu {

/// How CUDA stands to this process, as far as this library's calls go.
enum class CudaUse : int {
    None,
    /// This library has called CUDA.
    Here,
    /// It had, in the process that this one was forked from, so nothing of CUDA
    /// works here, and what was made with it is the parent's. Destructors leave
    /// it alone: they call no CUDA, and take no lock, since whoever held it at
    /// the fork is not in this process.
    LostByFork,
};

/// Written by a fork and by the first call of CUDA.
FAISS_EXT_API extern std::atomic<CudaUse> cudaUse;

inline bool lostByFork() noexcept {
    return cudaUse.load(std::memory_order_relaxed) == CudaUse::LostByFork;
}

/// How often this process, its parent and so on were forked: it tells a child
/// from its parent.
FAISS_EXT_API uint32_t forksBefore() noexcept;

/// "" but in a process that was forked, where it is what to do about that.
FAISS_EXT_API const char* adviceAfterFork() noexcept;

/// Before each call of CUDA that is checked (FAISS_EXT_CUDA_TRY). Throws
/// CudaError, which says what to do, where CUDA was lost by a fork.
FAISS_EXT_API void noteCudaUse();
inline void beforeCuda() {
    if (cudaUse.load(std::memory_order_relaxed) != CudaUse::Here) {
        noteCudaUse();
    }
}

/// Told when the program is over and its end begins: from now on a destructor
/// does not wait for a thread that may never return (MayNotReturn).
FAISS_EXT_API void beginEnd() noexcept;
FAISS_EXT_API bool endHasBegun() noexcept;

/// Told at the very end, when nobody wants results any more: calls that other
/// threads are in throw where they would wait for a lock or begin a tile. The
/// caller waits for them by `waitForCalls` (ResourcesLock.h), since CUDA, and
/// what is static in Faiss, go next.
FAISS_EXT_API void stopCalls() noexcept;
FAISS_EXT_API extern std::atomic<bool> callsAreStopped;
FAISS_EXT_API void throwStopped();
inline void throwIfStopped() {
    if (callsAreStopped.load(std::memory_order_relaxed)) {
        throwStopped();
    }
}

/// A scope in which the calling thread may call CUDA though an interpreter,
/// which may end the process meanwhile, does not know of it. May be nested.
class FAISS_EXT_API AtWork {
   public:
    AtWork();
    ~AtWork();
    AtWork(const AtWork&) = delete;
    AtWork& operator=(const AtWork&) = delete;
};

/// A scope within AtWork in which the thread runs code of others, which may
/// take any time. At its end, once calls are stopped, the thread sleeps for
/// ever: it was not waited for. The thread that stopped them goes on.
class FAISS_EXT_API Away {
   public:
    Away();
    ~Away();
    Away(const Away&) = delete;
    Away& operator=(const Away&) = delete;

   private:
    const int depth_;
};

/// After `stopCalls`: returns when no thread is at work any more; or after some
/// seconds.
FAISS_EXT_API void waitForThreads() noexcept;

/// The calling thread sleeps until the process ends: where it can neither go on
/// nor be unwound. It is not at work then.
[[noreturn]] FAISS_EXT_API void sleepForEver() noexcept;

/// Runs `call`, code of others that may end the calling thread by pthread_exit,
/// whose unwinding our frames do not survive: some are noexcept, and what
/// others give back is not theirs any more. The thread sleeps instead, until
/// the process ends. CPython before 3.14 so ends each thread that asks for the
/// interpreter's lock once another one ends the interpreter; from then on it
/// lets them sleep.
template <typename Call>
auto sleepAtEnd(const Call& call) -> decltype(call()) {
    try {
        return call();
    } catch (const abi::__forced_unwind&) {
        // This handler must not be left: that would be to swallow it.
        sleepForEver();
    }
}

/// A scope in which the calling thread may be ended, or put to sleep for ever,
/// by somebody else's code, though it holds locks: code of an interpreter that
/// ends while other threads run. May be nested.
class FAISS_EXT_API MayNotReturn {
   public:
    MayNotReturn();
    ~MayNotReturn();
    MayNotReturn(const MayNotReturn&) = delete;
    MayNotReturn& operator=(const MayNotReturn&) = delete;
};

/// Whether a thread is in such a scope now, or was when it ended.
FAISS_EXT_API bool mayNotReturn(std::thread::id thread);

} // namespace gpu
} // namespace faiss_ext
