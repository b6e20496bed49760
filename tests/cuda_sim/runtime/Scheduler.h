// Streams as queues of operations, and who runs when. Nothing executes when it
// is enqueued: operations run, in steps, in the thread of a host call that
// waits, in an order that a seeded policy chooses among what the dependencies
// allow.

#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "Captures.h"
#include "Clock.h"
#include "Races.h"

namespace cuda_sim {

struct Stream;
struct Operation;
using OperationPtr = std::shared_ptr<Operation>;
using Lock = std::unique_lock<std::mutex>;

struct Operation {
    enum class State { Queued, Running, Done };

    std::shared_ptr<Origin> origin;
    Stream* stream = nullptr;
    uint64_t order = 0; // of enqueueing; dependencies have smaller ones
    State state = State::Queued;

    /// What is ordered before this operation, itself included.
    VectorClock clock;
    Epoch epoch;
    /// Operations of other streams that must be done first.
    std::vector<OperationPtr> after;

    /// One step of it; returns whether that was the last. Empty: no effect.
    std::function<bool()> step;
    /// The step is the program's own code: it runs in a thread of the
    /// runtime, without the lock, and may wait for the program.
    bool hostFunction = false;
    /// Must happen even on a poisoned device, as giving memory back.
    std::function<void()> always;
    /// Simulated nanoseconds: when it may begin, as far as that is known, what
    /// it takes, and when it is done.
    uint64_t begin = 0;
    uint64_t cost = 1000;
    uint64_t doneAt = 0;

    /// Will not begin before `other` is done.
    void comeAfter(const std::shared_ptr<Operation>& other) {
        if (other->done()) {
            begin = std::max(begin, other->doneAt);
        } else {
            after.push_back(other);
        }
    }

    bool done() const {
        return state == State::Done;
    }
};

struct Stream {
    int ordinal = 0; // in order of creation
    int device = 0;
    unsigned flags = 0;
    int priority = 0;
    bool legacy = false;    // the legacy default stream
    bool perThread = false; // a cudaStreamPerThread
    bool destroyed = false;
    bool held = false;
    bool countsAsLeak = true;
    uint64_t sequence = 0; // of the call that made it
    const void* caller = nullptr;

    Timeline timeline = 0;
    uint64_t time = 0;
    VectorClock clock; // of the last operation
    OperationPtr last;
    std::deque<OperationPtr> queue;
    /// Where its work goes while it captures, and the nodes it comes after.
    CapturePtr capture;
    NodeSet captured;
    uint64_t rank = 0;   // for the random policy
    uint64_t doneAt = 0; // simulated nanoseconds, of the last that is done

    bool blocking() const {
        return !legacy && !(flags & cudaStreamNonBlocking);
    }
    std::string name() const;
};

struct Device {
    /// Poisons it; the first error stays.
    cudaError_t sticky = cudaSuccess;
    uint64_t usedBytes = 0;
    /// Whose memory it may reach.
    std::set<int> peers;
    /// Of its streams that are destroyed and done.
    VectorClock buried;
    std::unique_ptr<Stream> legacy;
};

class Scheduler {
   public:
    enum class Policy { InOrder, Reverse, Starve, AsLateAsPossible, Random };

    /// Appends an operation, whose clock the caller has set.
    void enqueue(Stream* stream, const OperationPtr& operation);

    /// Executes what must be until all of `targets` are done. Returns false
    /// where a held stream keeps that from happening.
    bool runUntilDone(const std::vector<OperationPtr>& targets, Lock& lock);

    /// At most one step, towards `target` if given; false if none could run.
    bool stepOnce(const OperationPtr& target, Lock& lock);

    size_t pending() const;

    /// Wakes the threads that wait for a release or for a running operation.
    void changed() {
        changed_.notify_all();
    }

    void reseed(uint64_t seed);
    uint64_t random(uint64_t bound);

    Policy policy = Policy::AsLateAsPossible;
    Stream* starved = nullptr;
    int holdTimeoutMs = 5000;

    /// Simulated nanoseconds that the host knows to have passed: what it
    /// enqueues begins no earlier. Each operation begins when its stream and
    /// what it waits for allow, whenever it happens to be executed; so elapsed
    /// times do not depend on the policy.
    uint64_t now = 0;
    void hostSaw(const OperationPtr& done) {
        now = std::max(now, done->doneAt);
    }

    /// The held stream that the last false of runUntilDone was about.
    const Stream* stuckOn = nullptr;

   private:
    /// The head of the stream's queue if it can run now.
    OperationPtr runnable(Stream* stream);
    OperationPtr choose();
    OperationPtr firstOf(const std::deque<OperationPtr>& needed);
    /// In the order of enqueueing, which is one that dependencies allow.
    std::deque<OperationPtr> neededFor(
            const std::vector<OperationPtr>& targets) const;
    void execute(const OperationPtr& operation, Lock& lock);
    void finish(const OperationPtr& operation);
    void startHostFunction(const OperationPtr& operation, Lock& lock);
    void runHostFunctions();

    std::vector<Stream*> active_; // with a queue that is not empty
    std::condition_variable changed_;
    uint64_t enqueued_ = 0;
    uint64_t rng_ = 1;
    int running_ = 0; // host functions
    std::deque<OperationPtr> hostFunctions_;
    std::condition_variable hostFunctionsChanged_;
    bool hostThreadStarted_ = false;
};

} // namespace cuda_sim
