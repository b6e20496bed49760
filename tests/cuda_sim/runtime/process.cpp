// What the simulator does to its process: it names the host code that touches
// device memory, makes a strict process fail at its end, and sees forks.

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "Simulator.h"

namespace cuda_sim {

namespace {

struct sigaction previousAction;

void say(const char* text) {
    if (write(2, text, strlen(text)) < 0) {
        return;
    }
}

void onFault(int signal, siginfo_t* info, void* context) {
    auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    auto& s = sim();
    // No allocation here has a lock to wait for: the thread that faulted may
    // hold it.
    Lock lock(s.mutex, std::defer_lock);
    bool device = Memory::isDeviceAddress(address);
    if (lock.try_lock()) {
        auto* ptr = info->si_addr;
        std::string text;
        if (auto* allocation = s.memory.find(ptr)) {
            if (device) {
                text = describe(*allocation);
            }
        } else if (auto* freed = s.memory.findFreed(ptr)) {
            text = describe(*freed);
        }
        if (device || !text.empty()) {
            text = "cuda_sim: host code touched " +
                   std::string(device ? "device" : "freed") + " memory at " +
                   hex(ptr) +
                   (text.empty() ? ", no allocation" : ", in " + text) + "\n";
            say(text.c_str());
        }
        lock.unlock();
    } else if (device) {
        say("cuda_sim: host code touched device memory\n");
    }
    auto* thread = thisThreadIfKnown();
    if (auto* executing = thread ? thread->executing : nullptr) {
        // A program's host memory, say, that is gone.
        say(("cuda_sim: fault at " + hex(info->si_addr) + " while executing " +
             describe(*executing) + "\n")
                    .c_str());
    }
    // Again, for whoever was there before: it faults anew on return.
    sigaction(SIGSEGV, &previousAction, nullptr);
    if (previousAction.sa_flags & SA_SIGINFO) {
        if (previousAction.sa_sigaction) {
            previousAction.sa_sigaction(signal, info, context);
        }
    }
}

void atEnd() {
    auto& s = sim();
    bool failed = false;
    {
        Lock lock(s.mutex);
        if (!s.settings.strict) {
            return;
        }
        if (s.settings.leaks) {
            s.reportLeaks();
        }
        for (auto& report : s.reports) {
            fprintf(stderr, "cuda_sim: %s\n", report.text.c_str());
        }
        failed = !s.reports.empty();
    }
    if (failed) {
        fflush(nullptr);
        _exit(86);
    }
}

// Nobody is inside the simulator at a fork.
void beforeFork() {
    sim().mutex.lock();
    sim().threadsMutex.lock();
    sim().memory.sharePinned();
}

void afterForkInParent() {
    sim().threadsMutex.unlock();
    sim().mutex.unlock();
}

void afterForkInChild() {
    // Reports of the parent's are the parent's.
    sim().reports.clear();
    sim().lostByFork = sim().used;
    afterForkInParent();
}

// Early, so that handlers of later libraries chain to ours, and atEnd comes
// after their static destructors.
__attribute__((constructor)) void atStart() {
    sim();
    atexit(atEnd);
    pthread_atfork(beforeFork, afterForkInParent, afterForkInChild);
    const char* value = getenv("CUDA_SIM_SEGV");
    if (!value || atoi(value) != 0) {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        action.sa_sigaction = onFault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &previousAction);
    }
}

} // namespace

} // namespace cuda_sim
