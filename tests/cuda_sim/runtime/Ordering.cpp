// Happens before: clocks of operations and host threads, and host waits.

#include "Simulator.h"

namespace cuda_sim {

HostClock& Simulator::host() {
    if (!settings.separateThreads) {
        return sharedHost_;
    }
    auto& own = thisThread().own;
    if (!own) {
        own.reset(new HostClock);
        own->timeline = ++lastTimeline_;
        own->ordinal = ++lastHost_;
        // Somebody started the thread, and what that thread knew it knows
        // too. Who that was cannot be seen: any.
        own->clock = sharedHost_.clock;
        Lock lock(threadsMutex);
        for (auto& thread : threads) {
            if (thread->own && thread->own != own) {
                own->clock.join(thread->own->clock);
            }
        }
    }
    return *own;
}

void Simulator::setSeparateThreads(bool separate) {
    Lock lock(threadsMutex);
    for (auto& thread : threads) {
        if (thread->own && !separate) {
            auto& own = *thread->own;
            sharedHost_.clock.join(own.clock);
            sharedHost_.clock.set(own.timeline, own.time);
        }
        thread->own.reset();
    }
    settings.separateThreads = separate;
}

std::string Simulator::hostName() {
    auto& clock = host();
    return clock.ordinal ? "host thread " + std::to_string(clock.ordinal)
                         : "the host";
}

std::shared_ptr<Origin> Simulator::hostOrigin(const std::string& what) {
    auto& thread = thisThread();
    return std::shared_ptr<Origin>(
            new Origin{what, hostName(), thread.caller, thread.sequence});
}

void Simulator::joinDefaultStreams(Stream* stream, Operation* operation) {
    auto join = [&](Stream* other) {
        if (other->last) {
            stream->clock.join(other->clock);
            operation->comeAfter(other->last);
        }
    };
    if (stream->legacy) {
        for (auto* other : streamsOf(stream->device)) {
            if (other->blocking()) {
                join(other);
            }
        }
    } else if (stream->blocking()) {
        join(devices_[stream->device].legacy.get());
    }
}

OperationPtr Simulator::makeOperation(
        Stream* stream, const std::string& what, const OperationPtr& waited) {
    auto& thread = thisThread();
    auto operation = std::make_shared<Operation>();
    operation->origin.reset(
            new Origin{what, stream->name(), thread.caller, thread.sequence});
    joinDefaultStreams(stream, operation.get());
    if (waited) {
        stream->clock.join(waited->clock);
        operation->comeAfter(waited);
    }
    auto& hostClock = host();
    hostClock.clock.set(hostClock.timeline, hostClock.time++);
    stream->clock.join(hostClock.clock);
    stream->clock.set(stream->timeline, ++stream->time);
    operation->clock = stream->clock;
    operation->epoch = {stream->timeline, stream->time};
    return operation;
}

void Simulator::learn(const VectorClock& clock) {
    host().clock.join(clock);
}

void Simulator::touch(
        const Operation& operation,
        const void* ptr,
        size_t bytes,
        bool isWrite) {
    reportConflicts(
            accesses.record(
                    reinterpret_cast<uintptr_t>(ptr),
                    bytes,
                    isWrite,
                    {operation.epoch, operation.origin},
                    operation.clock),
            *operation.origin,
            isWrite);
    pruneAccesses();
}

void Simulator::touchByHost(
        const void* ptr, size_t bytes, bool isWrite, const std::string& what) {
    auto& hostClock = host();
    auto origin = hostOrigin(what);
    hostClock.clock.set(hostClock.timeline, hostClock.time);
    reportConflicts(
            accesses.record(
                    reinterpret_cast<uintptr_t>(ptr),
                    bytes,
                    isWrite,
                    {{hostClock.timeline, hostClock.time}, origin},
                    hostClock.clock),
            *origin,
            isWrite);
    ++hostClock.time;
    pruneAccesses();
}

void Simulator::readByHost(
        const void* ptr, size_t bytes, const std::string& what) {
    auto conflicts = accesses.unordered(
            reinterpret_cast<uintptr_t>(ptr), bytes, host().clock);
    std::vector<Conflict> writes;
    for (auto& conflict : conflicts) {
        if (conflict.otherIsWrite) {
            writes.push_back(conflict);
        }
    }
    reportConflicts(writes, *hostOrigin(what), false);
}

void Simulator::pruneAccesses() {
    if (accesses.size() < pruneAt_) {
        return;
    }
    // With one clock for all threads, whatever the host knows is ordered
    // before all that comes.
    if (!settings.separateThreads) {
        accesses.prune(sharedHost_.clock);
    }
    pruneAt_ = std::max<size_t>(4096, 2 * accesses.size());
}

void Simulator::retireTimelines() {
    if (settings.separateThreads) {
        return;
    }
    // Clocks would grow with each stream ever made. Of a stream that is gone,
    // and known by the host to be done, no access need be remembered.
    accesses.prune(sharedHost_.clock);
    std::set<Timeline> retired;
    std::vector<Epoch> kept;
    for (auto& epoch : buried_) {
        if (sharedHost_.clock.covers(epoch)) {
            retired.insert(epoch.timeline);
        } else {
            kept.push_back(epoch);
        }
    }
    buried_.swap(kept);
    auto isRetired = [&](Timeline timeline, uint64_t) {
        return retired.count(timeline) != 0;
    };
    sharedHost_.clock.prune(isRetired);
    for (auto& entry : streams_) {
        entry.second->clock.prune(isRetired);
    }
    for (auto& device : devices_) {
        device.legacy->clock.prune(isRetired);
        device.buried.prune(isRetired);
    }
}

void Simulator::reportConflicts(
        const std::vector<Conflict>& conflicts,
        const Origin& origin,
        bool isWrite) {
    for (auto& conflict : conflicts) {
        if (!reported_.insert({conflict.other->sequence, origin.sequence})
                     .second) {
            continue;
        }
        auto* at = reinterpret_cast<const void*>(conflict.begin);
        auto* allocation = memory.find(at);
        report(CUDA_SIM_REPORT_RACE,
               "race on " + std::to_string(conflict.end - conflict.begin) +
                       " bytes at " + hex(at) + " in " +
                       (allocation ? describe(*allocation)
                                   : "pageable host memory") +
                       "\n  " + (isWrite ? "write" : "read") + " by " +
                       cuda_sim::describe(origin) + "\n  unordered with " +
                       (conflict.otherIsWrite ? "write" : "read") + " by " +
                       cuda_sim::describe(*conflict.other));
    }
}

//
// Waiting
//

cudaError_t Simulator::wait(
        Counter kind,
        const std::vector<OperationPtr>& targets,
        int device,
        const std::string& what,
        Lock& lock) {
    ++count(kind);
    std::vector<OperationPtr> open;
    for (auto& target : targets) {
        if (target && !target->done()) {
            open.push_back(target);
        }
    }
    bool satisfied = open.empty() || scheduler.runUntilDone(open, lock);
    bool poisoned = devices_[device].sticky != cudaSuccess;
    if (!satisfied && !poisoned) {
        auto* stuckOn = scheduler.stuckOn;
        report(CUDA_SIM_REPORT_STUCK_WAIT,
               "wait that can never end: " + what + " needs " +
                       cuda_sim::describe(*open.front()->origin) + ", but " +
                       (stuckOn ? stuckOn->name() : "some stream") +
                       " is held\n  from " +
                       describeCaller(thisThread().caller));
        return cudaErrorLaunchTimeout;
    }
    // From a poisoned device too: it touches nothing any more.
    for (auto& target : targets) {
        if (target) {
            learn(target->clock);
            scheduler.hostSaw(target);
        }
    }
    return devices_[device].sticky;
}

cudaError_t Simulator::waitForStream(Counter kind, Stream* stream, Lock& lock) {
    std::vector<OperationPtr> targets{stream->last};
    if (stream->legacy) {
        for (auto* other : streamsOf(stream->device)) {
            if (other->blocking()) {
                targets.push_back(other->last);
            }
        }
    }
    return wait(
            kind,
            targets,
            stream->device,
            "synchronisation with " + stream->name(),
            lock);
}

cudaError_t Simulator::waitForDevice(
        Counter kind, int device, const std::string& what, Lock& lock) {
    std::vector<OperationPtr> targets;
    for (auto* stream : streamsOf(device)) {
        targets.push_back(stream->last);
    }
    auto error = wait(kind, targets, device, what, lock);
    if (error != cudaErrorLaunchTimeout) {
        learn(devices_[device].buried);
    }
    return error;
}

} // namespace cuda_sim
