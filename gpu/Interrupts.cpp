#include <faiss_ext/gpu/Interrupts.h>

#include <faiss/impl/AuxIndexStructures.h>

#include <thread>

#include <faiss_ext/gpu/Exceptions.h>
#include <faiss_ext/gpu/ProcessLife.h>
#include <faiss_ext/gpu/Tuning.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Whether this thread is asking: a callback that makes a call of this library,
/// such as a handler of signals in Python, must not ask again, because Faiss
/// holds a lock meanwhile.
thread_local bool asking = false;

bool isInterrupted() {
    struct Asking {
        Asking() {
            asking = true;
        }
        ~Asking() {
            asking = false;
        }
    };
    if (asking || callsAreStopped) {
        return false;
    }
    const Asking now;
    const MayNotReturn mayNotReturn;
    return sleepAtEnd(faiss::InterruptCallback::is_interrupted);
}

} // namespace

void throwIfInterrupted() {
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
