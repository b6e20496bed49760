#include "Scheduler.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "Simulator.h"

namespace cuda_sim {

std::string Stream::name() const {
    std::string text;
    if (legacy) {
        text = "the legacy default stream";
    } else {
        text = "stream " + std::to_string(ordinal);
        if (perThread) {
            text += " (per thread)";
        } else if (!(flags & cudaStreamNonBlocking)) {
            text += " (blocking)";
        }
    }
    return text + " of device " + std::to_string(device);
}

void Scheduler::reseed(uint64_t seed) {
    rng_ = seed * 0x9e3779b97f4a7c15ull + 1;
}

uint64_t Scheduler::random(uint64_t bound) {
    // splitmix64
    uint64_t z = (rng_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % bound;
}

void Scheduler::enqueue(Stream* stream, const OperationPtr& operation) {
    operation->stream = stream;
    operation->order = ++enqueued_;
    operation->origin->pending = true;
    operation->begin = std::max(operation->begin, now);
    if (stream->queue.empty()) {
        active_.push_back(stream);
        if (policy == Policy::Random) {
            stream->rank = random(1u << 30);
        }
    }
    stream->queue.push_back(operation);
    stream->last = operation;
    changed();
}

OperationPtr Scheduler::runnable(Stream* stream) {
    auto& head = stream->queue.front();
    if (head->state != Operation::State::Queued) {
        return nullptr;
    }
    // A poisoned device drops its work, and a hold cannot keep it.
    if (stream->held && sim().device(stream->device).sticky == cudaSuccess) {
        return nullptr;
    }
    auto& after = head->after;
    after.erase(
            std::remove_if(
                    after.begin(),
                    after.end(),
                    [&](const OperationPtr& op) {
                        if (op->done()) {
                            head->begin = std::max(head->begin, op->doneAt);
                        }
                        return op->done();
                    }),
            after.end());
    return after.empty() ? head : nullptr;
}

OperationPtr Scheduler::choose() {
    std::vector<OperationPtr> ready;
    for (auto* stream : active_) {
        if (auto operation = runnable(stream)) {
            ready.push_back(operation);
        }
    }
    if (ready.empty()) {
        return nullptr;
    }
    auto byOrder = [](const OperationPtr& a, const OperationPtr& b) {
        return a->order < b->order;
    };
    // So that a choice by number does not depend on how active_ came about.
    std::sort(ready.begin(), ready.end(), byOrder);
    switch (policy) {
        case Policy::InOrder:
        case Policy::AsLateAsPossible:
            return ready.front();
        case Policy::Reverse:
            return ready.back();
        case Policy::Starve: {
            std::vector<OperationPtr> fed;
            for (auto& operation : ready) {
                if (operation->stream != starved) {
                    fed.push_back(operation);
                }
            }
            auto& from = fed.empty() ? ready : fed;
            return from[random(from.size())];
        }
        case Policy::Random: {
            // Ranks make one stream run far ahead of the others, which
            // uniform choice hardly ever does; now and then they change.
            if (random(8) == 0) {
                for (auto* stream : active_) {
                    stream->rank = random(1u << 30);
                }
            }
            if (random(4) == 0) {
                return ready[random(ready.size())];
            }
            return *std::max_element(
                    ready.begin(),
                    ready.end(),
                    [](const OperationPtr& a, const OperationPtr& b) {
                        return a->stream->rank < b->stream->rank;
                    });
        }
    }
    return nullptr;
}

std::deque<OperationPtr> Scheduler::neededFor(
        const std::vector<OperationPtr>& targets) const {
    auto byOrder = [](const OperationPtr& a, const OperationPtr& b) {
        return a->order < b->order;
    };
    std::set<OperationPtr, decltype(byOrder)> needed(byOrder);
    std::vector<OperationPtr> open(targets);
    while (!open.empty()) {
        auto operation = open.back();
        open.pop_back();
        if (operation->done() || needed.count(operation)) {
            continue;
        }
        // All that its stream runs first, too.
        for (auto& earlier : operation->stream->queue) {
            if (earlier->order > operation->order) {
                break;
            }
            if (needed.insert(earlier).second) {
                open.insert(
                        open.end(),
                        earlier->after.begin(),
                        earlier->after.end());
            }
        }
    }
    return {needed.begin(), needed.end()};
}

OperationPtr Scheduler::firstOf(const std::deque<OperationPtr>& needed) {
    for (auto& operation : needed) {
        if (operation->state == Operation::State::Queued &&
            operation->stream->queue.front() == operation &&
            runnable(operation->stream)) {
            return operation;
        }
    }
    return nullptr;
}

void Scheduler::execute(const OperationPtr& operation, Lock& lock) {
    auto& simulator = sim();
    int deviceOrdinal = operation->stream->device;
    auto& device = simulator.device(deviceOrdinal);
    ++simulator.count(Counter::steps);

    if (device.sticky == cudaSuccess && simulator.faultsThisOperation()) {
        simulator.poison(deviceOrdinal, simulator.operationFaultError());
    }
    bool finished = true;
    if (device.sticky == cudaSuccess && operation->step) {
        if (operation->hostFunction) {
            startHostFunction(operation, lock);
            return;
        }
        auto& thread = thisThread();
        thread.executing = operation->origin.get();
        finished = operation->step();
        thread.executing = nullptr;
        // A step may have poisoned the device by an access of its own.
        finished = finished || device.sticky != cudaSuccess;
    }
    if (finished) {
        finish(operation);
    }
}

void Scheduler::finish(const OperationPtr& operation) {
    auto* stream = operation->stream;
    if (operation->always) {
        operation->always();
    }
    operation->doneAt =
            std::max(operation->begin, stream->doneAt) + operation->cost;
    stream->doneAt = operation->doneAt;
    operation->state = Operation::State::Done;
    operation->origin->pending = false;
    operation->step = nullptr;
    operation->always = nullptr;
    operation->after.clear();
    stream->queue.pop_front();
    if (stream->queue.empty()) {
        active_.erase(std::find(active_.begin(), active_.end(), stream));
    }
    ++sim().count(Counter::operations_executed);
    changed();
}

void Scheduler::startHostFunction(const OperationPtr& operation, Lock& lock) {
    operation->state = Operation::State::Running;
    ++running_;
    hostFunctions_.push_back(operation);
    hostFunctionsChanged_.notify_one();
    if (!hostThreadStarted_) {
        hostThreadStarted_ = true;
        std::thread([this] { runHostFunctions(); }).detach();
    }
    // Most are short: then the schedule does not depend on how fast the
    // thread is. One that waits for the program must not keep it from going
    // on.
    changed_.wait_for(lock, std::chrono::milliseconds(20), [&] {
        return operation->done();
    });
}

void Scheduler::runHostFunctions() {
    auto& thread = thisThread();
    thread.inHostFunction = true;
    Lock lock(sim().mutex);
    for (;;) {
        hostFunctionsChanged_.wait(
                lock, [&] { return !hostFunctions_.empty(); });
        auto operation = hostFunctions_.front();
        hostFunctions_.pop_front();
        lock.unlock();
        operation->step();
        lock.lock();
        --running_;
        finish(operation);
    }
}

bool Scheduler::stepOnce(const OperationPtr& target, Lock& lock) {
    OperationPtr next = target && policy == Policy::AsLateAsPossible
                                ? firstOf(neededFor({target}))
                                : choose();
    if (!next) {
        return false;
    }
    execute(next, lock);
    return true;
}

bool Scheduler::runUntilDone(
        const std::vector<OperationPtr>& targets, Lock& lock) {
    auto allDone = [&] {
        return std::all_of(
                targets.begin(), targets.end(), [](const OperationPtr& op) {
                    return op->done();
                });
    };
    // What is needed cannot grow: operations enqueued later are not.
    std::deque<OperationPtr> needed;
    if (policy == Policy::AsLateAsPossible) {
        needed = neededFor(targets);
    }
    auto giveUpAt = std::chrono::steady_clock::now() +
                    std::chrono::milliseconds(holdTimeoutMs);
    bool timedOut = holdTimeoutMs == 0;
    while (!allDone()) {
        while (!needed.empty() && needed.front()->done()) {
            needed.pop_front();
        }
        auto next =
                policy == Policy::AsLateAsPossible ? firstOf(needed) : choose();
        if (next) {
            execute(next, lock);
        } else if (running_ > 0) {
            changed_.wait(lock);
        } else if (!timedOut) {
            timedOut = changed_.wait_until(lock, giveUpAt) ==
                       std::cv_status::timeout;
        } else {
            stuckOn = nullptr;
            for (auto& operation : neededFor(targets)) {
                if (operation->stream->held) {
                    stuckOn = operation->stream;
                    break;
                }
            }
            return false;
        }
    }
    return true;
}

size_t Scheduler::pending() const {
    size_t count = 0;
    for (auto* stream : active_) {
        count += stream->queue.size();
    }
    return count;
}

} // namespace cuda_sim
