#include "Simulator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace cuda_sim {

namespace {

long fromEnv(const char* name, long otherwise) {
    const char* value = getenv(name);
    return value && *value ? strtol(value, nullptr, 0) : otherwise;
}

Scheduler::Policy policyByName(const char* name) {
    static const char* const names[] = {
            "in_order", "reverse", "starve", "as_late_as_possible", "random"};
    for (int i = 0; i < 5; ++i) {
        if (!strcmp(name, names[i])) {
            return static_cast<Scheduler::Policy>(i);
        }
    }
    return static_cast<Scheduler::Policy>(atoi(name) % 5);
}

} // namespace

Settings Settings::fromEnvironment() {
    Settings s;
    s.deviceCount = static_cast<int>(fromEnv("CUDA_SIM_DEVICES", 1));
    s.deviceMemory = static_cast<size_t>(
            fromEnv("CUDA_SIM_DEVICE_MEMORY", long(s.deviceMemory)));
    s.seed = static_cast<uint64_t>(fromEnv("CUDA_SIM_SEED", 1));
    if (const char* policy = getenv("CUDA_SIM_POLICY")) {
        s.policy = policyByName(policy);
    }
    s.starve = static_cast<int>(fromEnv("CUDA_SIM_STARVE", -1));
    s.blockingH2D = fromEnv("CUDA_SIM_PAGEABLE_H2D_BLOCKS", 0) != 0;
    s.earlyD2H = fromEnv("CUDA_SIM_PAGEABLE_D2H_EARLY", 0) != 0;
    s.copyPieces = static_cast<int>(fromEnv("CUDA_SIM_COPY_PIECES", 4));
    s.freePolicy = static_cast<int>(fromEnv("CUDA_SIM_FREE_POLICY", 0));
    s.separateThreads = fromEnv("CUDA_SIM_SEPARATE_THREADS", 0) != 0;
    s.verbose = fromEnv("CUDA_SIM_VERBOSE", 0) != 0;
    s.trace = fromEnv("CUDA_SIM_TRACE", 0) != 0;
    s.holdTimeoutMs =
            static_cast<int>(fromEnv("CUDA_SIM_HOLD_TIMEOUT_MS", 5000));
    s.backgroundUs = static_cast<int>(fromEnv("CUDA_SIM_BACKGROUND_US", 0));
    s.strict = fromEnv("CUDA_SIM_STRICT", 0) != 0;
    s.leaks = fromEnv("CUDA_SIM_LEAKS", 0) != 0;
    return s;
}

Simulator& sim() {
    static Simulator* simulator = new Simulator;
    return *simulator;
}

static thread_local ThreadState* threadState = nullptr;

ThreadState* thisThreadIfKnown() {
    return threadState;
}

ThreadState& thisThread() {
    if (!threadState) {
        threadState = new ThreadState;
        Lock lock(sim().threadsMutex);
        sim().threads.emplace_back(threadState);
    }
    return *threadState;
}

Simulator::Simulator() {
    applySettings(Settings::fromEnvironment());
    for (int i = 0; i < 8; ++i) {
        auto* stream = new Stream;
        devices_[i].legacy.reset(stream);
        stream->legacy = true;
        stream->device = i;
        stream->timeline = ++lastTimeline_;
        stream->ordinal = -1;
    }
    sharedHost_.timeline = ++lastTimeline_;
}

void Simulator::applySettings(const Settings& from) {
    setSeparateThreads(from.separateThreads);
    settings = from;
    settings.deviceCount = std::min(8, std::max(0, from.deviceCount));
    scheduler.policy = from.policy;
    scheduler.starved = nullptr;
    scheduler.holdTimeoutMs = from.holdTimeoutMs;
    scheduler.reseed(from.seed);
}

void Simulator::reset(Lock& lock) {
    faults.clear();
    captures.reset();
    operationFaultIn = 0;
    lastFault = "";
    for (auto& entry : streams_) {
        entry.second->held = false;
    }
    for (auto& device : devices_) {
        device.legacy->held = false;
    }
    scheduler.changed();
    while (scheduler.pending()) {
        if (!scheduler.stepOnce(nullptr, lock)) {
            // Another thread is in a host function.
            lock.unlock();
            std::this_thread::yield();
            lock.lock();
        }
    }
    for (auto& device : devices_) {
        device.sticky = cudaSuccess;
    }
    applySettings(Settings::fromEnvironment());
    buryStreams();
    reports.clear();
    reported_.clear();
    accesses.clear();
    tokens.clear();
    resetCounters();
    for (auto& entry : streams_) {
        auto* stream = entry.second.get();
        stream->countsAsLeak = false;
        learn(stream->clock);
        if (settings.starve == stream->ordinal) {
            scheduler.starved = stream;
        }
    }
    for (auto& entry : events_) {
        entry.second->countsAsLeak = false;
    }
    for (auto& entry : memory.live()) {
        entry.second->countsAsLeak = false;
    }
    memory.recycle();
    thisThread().lastError = cudaSuccess;
}

Function* Simulator::function(const std::string& name) {
    auto& slot = functions_[name];
    if (!slot) {
        slot.reset(new Function);
        slot->name = name;
    }
    return slot.get();
}

void Simulator::resetCounters() {
    // What lives goes on living.
    const Counter kept[] = {
            Counter::live_streams,
            Counter::live_events,
            Counter::live_device,
            Counter::live_pinned,
            Counter::live_device_bytes,
            Counter::live_pinned_bytes,
            Counter::live_registrations};
    uint64_t before[std::extent<decltype(counters_)>::value];
    std::copy(std::begin(counters_), std::end(counters_), before);
    std::fill(std::begin(counters_), std::end(counters_), 0);
    for (auto counter : kept) {
        count(counter) = before[static_cast<size_t>(counter)];
    }
    count(Counter::peak_device_bytes) = count(Counter::live_device_bytes);
    for (auto& entry : functions_) {
        entry.second->calls = 0;
    }
}

void Simulator::addFault(
        const std::string& function,
        uint64_t nth,
        cudaError_t error,
        bool poisons) {
    auto slash = function.find('/');
    std::string module =
            slash == std::string::npos ? "" : function.substr(0, slash);
    faults.push_back(
            {module,
             slash == std::string::npos ? function : function.substr(slash + 1),
             nth,
             error,
             poisons});
}

uint64_t Simulator::calls(const std::string& name) {
    if (name != "*") {
        return function(name)->calls;
    }
    uint64_t all = 0;
    for (auto& entry : functions_) {
        all += entry.second->calls;
    }
    return all;
}

bool Simulator::faultsThisOperation() {
    return operationFaultIn > 0 && --operationFaultIn == 0;
}

cudaError_t Simulator::injectedError(
        Function* function, int device, bool cannotFail) {
    // Each counts, also the calls at which another one happens.
    auto due = faults.end();
    for (auto it = faults.begin(); it != faults.end(); ++it) {
        bool meant = it->function == "*" ? !cannotFail
                                         : it->function == function->name;
        if (meant &&
            !moduleOf(thisThread().caller)
                     .compare(0, it->module.size(), it->module) &&
            it->remaining > 0 && --it->remaining == 0 && due == faults.end()) {
            due = it;
        }
    }
    if (due == faults.end()) {
        return cudaSuccess;
    }
    Fault fault = *due;
    faults.erase(due);
    lastFault = function->name.c_str();
    if (fault.poisons) {
        poison(device, fault.error);
    }
    return fault.error;
}

void Simulator::poison(int device, cudaError_t error) {
    if (devices_[device].sticky == cudaSuccess) {
        devices_[device].sticky = error;
        scheduler.changed();
    }
}

void Simulator::given(int device) {
    if (devices_[device].sticky != cudaSuccess) {
        thisThread().lost = devices_[device].sticky;
    }
}

//
// Streams
//

Stream* Simulator::createStream(int device, unsigned flags, int priority) {
    std::unique_ptr<Stream> stream(new Stream);
    stream->ordinal = ++lastStream_;
    stream->device = device;
    stream->flags = flags;
    stream->priority = priority;
    stream->timeline = ++lastTimeline_;
    stream->sequence = thisThread().sequence;
    stream->caller = thisThread().caller;
    if (settings.starve == stream->ordinal) {
        scheduler.starved = stream.get();
    }
    auto* result = stream.get();
    streamHandles_[result] = result;
    streams_[result->ordinal] = std::move(stream);
    return result;
}

Stream* Simulator::resolve(cudaStream_t handle, const char* function) {
    auto& thread = thisThread();
    if (handle == nullptr || handle == cudaStreamLegacy) {
        return devices_[thread.device].legacy.get();
    }
    if (handle == cudaStreamPerThread) {
        auto& stream = thread.perThreadStreams[thread.device];
        if (!stream) {
            stream = createStream(thread.device, cudaStreamDefault, 0);
            stream->perThread = true;
            stream->countsAsLeak = false;
        }
        return stream;
    }
    auto it = streamHandles_.find(handle);
    if (it != streamHandles_.end()) {
        given(it->second->device);
        return it->second;
    }
    auto dead = deadHandles_.find(handle);
    report(CUDA_SIM_REPORT_BAD_HANDLE,
           std::string("bad handle: ") + function + " was given " +
                   (dead != deadHandles_.end()
                            ? "stream " + std::to_string(dead->second) +
                                      ", which was destroyed"
                            : hex(handle) + ", which is no stream") +
                   "\n  from " + describeCaller(thread.caller));
    return nullptr;
}

void Simulator::destroyStream(Stream* stream) {
    Captures::leave(stream);
    stream->destroyed = true;
    stream->held = false;
    streamHandles_.erase(stream);
    deadHandles_[stream] = stream->ordinal;
    if (scheduler.starved == stream) {
        scheduler.starved = nullptr;
    }
    buryStreams();
}

void Simulator::buryStreams() {
    for (auto it = streams_.begin(); it != streams_.end();) {
        auto& stream = it->second;
        if (stream->destroyed && stream->queue.empty()) {
            stream->last.reset();
            // Who waits for the device, or for all blocking streams, still
            // waits for what was done on this one.
            auto& device = devices_[stream->device];
            device.buried.join(stream->clock);
            if (stream->blocking()) {
                device.legacy->clock.join(stream->clock);
            }
            buried_.push_back({stream->timeline, stream->time});
            graveyard_.push_back(std::move(stream));
            it = streams_.erase(it);
        } else {
            ++it;
        }
    }
    if (buried_.size() > 64) {
        retireTimelines();
    }
}

std::vector<Stream*> Simulator::streamsOf(int device) const {
    std::vector<Stream*> result{devices_[device].legacy.get()};
    for (auto& entry : streams_) {
        if (entry.second->device == device) {
            result.push_back(entry.second.get());
        }
    }
    return result;
}

//
// Events
//

Event* Simulator::createEvent(unsigned flags) {
    std::unique_ptr<Event> event(new Event);
    event->flags = flags;
    event->device = thisThread().device;
    event->ordinal = ++lastEvent_;
    event->sequence = thisThread().sequence;
    event->caller = thisThread().caller;
    auto* result = event.get();
    events_[result] = std::move(event);
    return result;
}

Event* Simulator::resolveEvent(cudaEvent_t handle, const char* function) {
    auto it = events_.find(handle);
    if (it != events_.end()) {
        given(it->second->device);
        return it->second.get();
    }
    auto dead = deadHandles_.find(handle);
    report(CUDA_SIM_REPORT_BAD_HANDLE,
           std::string("bad handle: ") + function + " was given " +
                   (dead != deadHandles_.end()
                            ? "event " + std::to_string(dead->second) +
                                      ", which was destroyed"
                            : hex(handle) + ", which is no event") +
                   "\n  from " + describeCaller(thisThread().caller));
    return nullptr;
}

void Simulator::destroyEvent(Event* event) {
    auto it = events_.find(event);
    deadHandles_[event] = event->ordinal;
    event->record.reset();
    eventGraveyard_.push_back(std::move(it->second));
    events_.erase(it);
}

//
// Leaks
//

size_t Simulator::reportLeaks() {
    size_t before = reports.size();
    auto madeBy = [](uint64_t sequence, const void* caller) {
        return ", made by call " + std::to_string(sequence) + " from " +
               describeCaller(caller);
    };
    for (auto& entry : memory.live()) {
        if (entry.second->countsAsLeak) {
            report(CUDA_SIM_REPORT_LEAK, "leak: " + describe(*entry.second));
        }
    }
    for (auto& entry : streams_) {
        auto& stream = *entry.second;
        if (stream.countsAsLeak && !stream.destroyed) {
            report(CUDA_SIM_REPORT_LEAK,
                   "leak: " + stream.name() +
                           madeBy(stream.sequence, stream.caller));
        }
    }
    for (auto& entry : events_) {
        auto& event = *entry.second;
        if (event.countsAsLeak) {
            report(CUDA_SIM_REPORT_LEAK,
                   "leak: event " + std::to_string(event.ordinal) +
                           madeBy(event.sequence, event.caller));
        }
    }
    return reports.size() - before;
}

} // namespace cuda_sim
