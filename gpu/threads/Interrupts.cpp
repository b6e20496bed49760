#include <faiss_ext/gpu/threads/Interrupts.h>

#include <faiss/impl/AuxIndexStructures.h>

#include <thread>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Whether this thread asks by `isInterrupted`, and is in the midst of a
/// `Question`, and one of Faiss' own: a callback may run any code, such as a
/// handler of signals in Python, which may make calls of this library and of
/// Faiss.
thread_local bool asking = false;
thread_local bool inQuestion = false;
thread_local bool faissAsks = false;

/// As Faiss' `check` asks, and not `is_interrupted`: that holds a lock
/// meanwhile, for which the next question of each other thread would wait.
bool isInterrupted() {
    struct Asking {
        Asking() {
            asking = true;
        }
        ~Asking() {
            asking = false;
        }
    };
    if (asking || inQuestion || callsAreStopped ||
        !faiss::InterruptCallback::instance) {
        return false;
    }
    const Asking now;
    const MayNotReturn mayNotReturn;
    CodeOfOthers callback;
    return sleepAtEnd([] {
        return faiss::InterruptCallback::instance->want_interrupt();
    });
}

} // namespace

Question::Question()
        : outermost_(!inQuestion), ofFaiss_(outermost_ && !asking) {
    inQuestion = true;
    faissAsks |= ofFaiss_;
}

Question::~Question() {
    if (outermost_) {
        inQuestion = false;
        faissAsks = false;
    }
}

bool faissIsAsking() noexcept {
    return faissAsks;
}

void refuseInQuestion(bool waits) {
    if (faissAsks || (waits && (asking || inQuestion))) {
        throw Unsupported(
                "an index was called from inside a call of the same thread, by "
                "the handler of a signal; call it after that has returned");
    }
}

void throwIfInterrupted() {
    throwIfStopped();
    if (isInterrupted()) {
        throw Interrupted("computation interrupted");
    }
}

void InterruptClock::ask() {
    const auto now = Clock::now();
    if (std::chrono::duration<double>(now - last_).count() >=
        tuning::kInterruptSeconds) {
        throwIfInterrupted();
        // Not `now`: asking may take long, where Python runs.
        last_ = Clock::now();
    }
}

void waitUnlessInterrupted(const Event& event) {
    const auto begin = InterruptClock::Clock::now();
    InterruptClock interrupts;
    while (!event.reached()) {
        if (InterruptClock::Clock::now() - begin < tuning::kWaitWithoutSleep) {
            std::this_thread::yield();
        } else {
            std::this_thread::sleep_for(tuning::kSleep);
            interrupts.ask();
        }
    }
}

} // namespace gpu
} // namespace faiss_ext
