#include <faiss_ext/gpu/ProcessLife.h>

#include <pthread.h>
#include <unistd.h>

#include <mutex>
#include <set>

#include <faiss_ext/gpu/Exceptions.h>

namespace faiss_ext {
namespace gpu {

std::atomic<CudaUse> cudaUse{CudaUse::None};
std::atomic<bool> callsAreStopped{false};

namespace {

std::atomic<uint32_t> forks{0};
std::atomic<bool> ending{false};

/// In the child, whose only thread this is.
void afterFork() {
    ++forks;
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
    callsAreStopped = true;
}

void throwStopped() {
    // Of a type that nobody takes for a lack of memory.
    throw Unsupported("the process is ending");
}

void sleepForEver() noexcept {
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
