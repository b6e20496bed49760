#include <faiss_ext/gpu/threads/ProcessLife.h>

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <set>
#include <utility>

#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

std::atomic<CudaUse> cudaUse{CudaUse::None};
std::atomic<bool> callsAreStopped{false};

namespace {

std::atomic<uint32_t> forks{0};
std::atomic<bool> ending{false};
/// Which thread has stopped the calls.
std::atomic<std::thread::id> ender{};

/// Threads in a scope of AtWork, and how many such scopes this thread is in.
std::atomic<int> threadsAtWork{0};
thread_local int atWork = 0;

/// In the child, whose only thread this is.
void afterFork() {
    ++forks;
    threadsAtWork = atWork > 0;
    if (cudaUse == CudaUse::Here) {
        cudaUse = CudaUse::LostByFork;
    }
}

const int watchesForks = pthread_atfork(nullptr, nullptr, afterFork);

struct Threads {
    std::mutex mutex;
    std::multiset<std::thread::id> ids;
};

/// Those in a scope of MayNotReturn. Never destroyed: some never leave it.
Threads& mayNotReturnNow() {
    static auto& threads = *new Threads;
    return threads;
}

} // namespace

uint32_t forksBefore() noexcept {
    return forks;
}

const char* adviceAfterFork() noexcept {
    return forks == 0 ? ""
                      : ": this process was forked from one that had used "
                        "CUDA, which does not work in the child; to fix it, "
                        "start workers by \"spawn\" or \"forkserver\" "
                        "(multiprocessing.set_start_method), or use the GPU "
                        "in the forked processes alone";
}

void noteCudaUse() {
    CudaUse none = CudaUse::None;
    if (!cudaUse.compare_exchange_strong(none, CudaUse::Here) &&
        none == CudaUse::LostByFork) {
        throw CudaError(cudaErrorInitializationError, "CUDA");
    }
}

void beginEnd() noexcept {
    ending = true;
}

bool endHasBegun() noexcept {
    return ending;
}

void stopCalls() noexcept {
    ending = true;
    ender = std::this_thread::get_id();
    callsAreStopped = true;
}

void throwStopped() {
    // Of a type that nobody takes for a lack of memory.
    throw Unsupported("the process is ending");
}

AtWork::AtWork() {
    if (atWork++ == 0) {
        ++threadsAtWork;
    }
}

AtWork::~AtWork() {
    if (--atWork == 0) {
        --threadsAtWork;
    }
}

Away::Away() : depth_(std::exchange(atWork, 0)) {
    if (depth_ > 0) {
        --threadsAtWork;
    }
}

Away::~Away() {
    if (depth_ > 0) {
        // Before the question: who stops the calls, and then waits, knows of
        // this thread, or this thread of that.
        ++threadsAtWork;
        atWork = depth_;
        if (callsAreStopped && ender.load() != std::this_thread::get_id()) {
            sleepForEver();
        }
    }
}

void waitForThreads() noexcept {
    using Clock = std::chrono::steady_clock;
    const auto latest = Clock::now() + std::chrono::seconds(10);
    while (threadsAtWork > 0 && Clock::now() < latest) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

void sleepForEver() noexcept {
    if (std::exchange(atWork, 0) > 0) {
        --threadsAtWork;
    }
    while (true) {
        pause();
    }
}

MayNotReturn::MayNotReturn() {
    if (!lostByFork()) {
        auto& threads = mayNotReturnNow();
        std::lock_guard<std::mutex> guard(threads.mutex);
        threads.ids.insert(std::this_thread::get_id());
    }
}

MayNotReturn::~MayNotReturn() {
    if (!lostByFork()) {
        auto& threads = mayNotReturnNow();
        std::lock_guard<std::mutex> guard(threads.mutex);
        const auto found = threads.ids.find(std::this_thread::get_id());
        if (found != threads.ids.end()) {
            threads.ids.erase(found);
        }
    }
}

bool mayNotReturn(std::thread::id thread) {
    auto& threads = mayNotReturnNow();
    std::lock_guard<std::mutex> guard(threads.mutex);
    return threads.ids.count(thread) > 0;
}

} // namespace gpu
} // namespace faiss_ext
