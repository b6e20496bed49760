// The one simulator of a process: everything behind the runtime's functions.
// All of it is guarded by one mutex, which Call (see Call.h) takes.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "../cuda_sim.h"
#include "../cuda_sim_kernel.h"
#include "Captures.h"
#include "Clock.h"
#include "Memory.h"
#include "Races.h"
#include "Scheduler.h"

namespace cuda_sim {

enum class Counter {
#define CUDA_SIM_ENUM(name) name,
    CUDA_SIM_COUNTERS(CUDA_SIM_ENUM)
#undef CUDA_SIM_ENUM
            count_
};

/// A function of the runtime, or a modelled kernel.
struct Function {
    std::string name;
    uint64_t calls = 0;
};

struct Fault {
    std::string module;   // the file name of the caller begins so
    std::string function; // "*": any
    uint64_t remaining;   // calls until it happens
    cudaError_t error;
    bool poisons;
};

struct Report {
    int kind;
    std::string text;
};

struct Event {
    unsigned flags = 0;
    int device = 0;
    int ordinal = 0;
    bool countsAsLeak = true;
    uint64_t sequence = 0;
    const void* caller = nullptr;
    OperationPtr record; // the last one; null: never recorded
    /// Of the last record, where that was on a capturing stream.
    CapturePtr capture;
    NodeSet captured;
};

/// What a host thread is to the race detector.
struct HostClock {
    Timeline timeline = 0;
    uint64_t time = 1;
    VectorClock clock;
    int ordinal = 0;
};

struct CallConfiguration {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};

/// What the runtime keeps for each host thread. Never destroyed: static
/// destructors, which come after those of a thread, still call CUDA.
struct ThreadState {
    int device = 0;
    cudaError_t lastError = cudaSuccess;
    bool inHostFunction = false;
    cudaStreamCaptureMode captureMode = cudaStreamCaptureModeGlobal;
    /// Of the runtime call that the thread is in.
    const void* caller = nullptr;
    uint64_t sequence = 0;
    /// The error of a lost device that a stream, an event or memory belongs to
    /// which that call was given.
    cudaError_t lost = cudaSuccess;
    std::unique_ptr<HostClock> own; // used when threads are separate
    std::map<int, Stream*> perThreadStreams;
    std::vector<CallConfiguration> configurations; // of <<<>>>
    /// What this thread executes just now, for whoever reports a fault.
    const Origin* executing = nullptr;
};

ThreadState& thisThread();
/// The same, but null for a thread that has made no call yet.
ThreadState* thisThreadIfKnown();

struct Settings {
    int deviceCount = 1;
    size_t deviceMemory = size_t(80) << 30;
    uint64_t seed = 1;
    Scheduler::Policy policy = Scheduler::Policy::AsLateAsPossible;
    bool blockingH2D = false;
    bool earlyD2H = false;
    int copyPieces = 4;
    int freePolicy = 0;
    bool separateThreads = false;
    bool verbose = false;
    bool trace = false;
    int holdTimeoutMs = 5000;
    int backgroundUs = 0;
    int starve = -1; // ordinal of a stream
    bool strict = false;
    bool leaks = false;

    static Settings fromEnvironment();
};

class Simulator {
   public:
    Simulator();

    std::mutex mutex;
    Settings settings;
    Memory memory;
    AccessMap accesses;
    Scheduler scheduler;
    Captures captures;

    void applySettings(const Settings& from);
    void reset(Lock& lock);

    //
    // Counting and faults
    //

    uint64_t& count(Counter counter) {
        return counters_[static_cast<size_t>(counter)];
    }
    Function* function(const std::string& name);
    void resetCounters();
    std::vector<Fault> faults;
    const char* lastFault = "";
    void addFault(
            const std::string& function,
            uint64_t nth,
            cudaError_t error,
            bool poisons);
    uint64_t calls(const std::string& function);
    uint64_t operationFaultIn = 0; // operations until it happens; 0: none
    bool faultsThisOperation();
    cudaError_t operationFaultError() const {
        return operationFaultError_;
    }
    void setOperationFault(uint64_t nth, cudaError_t error) {
        operationFaultIn = nth;
        operationFaultError_ = error;
    }
    /// The error that a fault makes this call return; cudaSuccess if none. A
    /// call that cannot fail on a GPU fails only if it is named.
    cudaError_t injectedError(Function* function, int device, bool cannotFail);
    void poison(int device, cudaError_t error);
    /// The call in progress was given something of a device: if that is
    /// poisoned, the call fails, whichever device is current.
    void given(int device);

    //
    // Reports
    //

    void report(int kind, const std::string& text);
    std::deque<Report> reports; // texts must not move
    size_t reportLeaks();

    //
    // Objects
    //

    bool exists(int device) const {
        return device >= 0 && device < settings.deviceCount;
    }
    Device& device(int ordinal) {
        return devices_[ordinal];
    }
    Stream* createStream(int device, unsigned flags, int priority);
    /// The stream a handle means on the current device; null and a report for
    /// a bad one.
    Stream* resolve(cudaStream_t handle, const char* function);
    void destroyStream(Stream* stream);
    cudaStream_t handleOf(Stream* stream) const {
        return reinterpret_cast<cudaStream_t>(stream);
    }
    /// The default streams included.
    std::vector<Stream*> streamsOf(int device) const;

    Event* createEvent(unsigned flags);
    Event* resolveEvent(cudaEvent_t handle, const char* function);
    void destroyEvent(Event* event);

    //
    // Happens before
    //

    HostClock& host();
    void setSeparateThreads(bool separate);
    /// A name for the calling host thread in a report.
    std::string hostName();
    std::shared_ptr<Origin> hostOrigin(const std::string& what);
    /// An operation with its clock; it must be enqueued next. It is ordered
    /// after the stream's earlier ones, after `waited` if given, and as the
    /// default stream demands.
    OperationPtr makeOperation(
            Stream* stream,
            const std::string& what,
            const OperationPtr& waited = nullptr);
    /// What the calling thread now knows to be complete.
    void learn(const VectorClock& clock);
    /// Records what an operation touches, and reports what it races with.
    void touch(
            const Operation& operation,
            const void* ptr,
            size_t bytes,
            bool isWrite);
    void touchByHost(
            const void* ptr,
            size_t bytes,
            bool isWrite,
            const std::string& what);
    /// The host reads, during a call, bytes that may be anybody's later.
    void readByHost(const void* ptr, size_t bytes, const std::string& what);

    //
    // Waiting; each counts as one wait of its kind
    //

    cudaError_t wait(
            Counter kind,
            const std::vector<OperationPtr>& targets,
            int device,
            const std::string& what,
            Lock& lock);
    cudaError_t waitForStream(Counter kind, Stream* stream, Lock& lock);
    cudaError_t waitForDevice(
            Counter kind, int device, const std::string& what, Lock& lock);

    //
    // Memory
    //

    /// Checks a range that a call names. Bytes that no allocation holds are
    /// pageable: then *allocation is null, and that is fine for a host range.
    cudaError_t checkRange(
            const void* ptr,
            size_t bytes,
            bool mustBeDevice,
            Allocation** allocation,
            const std::string& what);
    void* view(const void* ptr, size_t bytes);
    /// cudaFree, cudaFreeHost and so on, all but the handle check.
    cudaError_t freeMemory(
            Allocation* allocation,
            const std::string& what,
            const void* caller,
            Lock& lock);
    void releaseNow(Allocation* allocation, const std::string& freedBy);

    uint64_t nextSequence() {
        return ++sequence_;
    }

    /// A program has called it; it had in the process that this one was forked
    /// from.
    bool used = false;
    bool lostByFork = false;

    std::map<const void*, VectorClock> tokens; // cuda_sim_thread_release

    // Apart from `mutex`, which a caller may or may not hold. This one is
    // taken last, and nothing is called under it.
    std::mutex threadsMutex;
    std::vector<std::unique_ptr<ThreadState>> threads;

   private:
    void joinDefaultStreams(Stream* stream, Operation* operation);
    void buryStreams();
    void retireTimelines();
    void reportConflicts(
            const std::vector<Conflict>& conflicts,
            const Origin& origin,
            bool isWrite);
    void pruneAccesses();

    uint64_t counters_[static_cast<size_t>(Counter::count_)] = {};
    std::unordered_map<std::string, std::unique_ptr<Function>> functions_;
    cudaError_t operationFaultError_ = cudaSuccess;
    Device devices_[8];
    // By ordinal of creation, so that every walk has the same order. A
    // destroyed one stays until its work is done, then goes to the graveyard:
    // its address is never another handle.
    std::map<int, std::unique_ptr<Stream>> streams_;
    std::unordered_map<const void*, Stream*> streamHandles_;
    std::vector<std::unique_ptr<Stream>> graveyard_;
    std::vector<Epoch> buried_; // timelines not yet retired
    std::unordered_map<const void*, std::unique_ptr<Event>> events_;
    std::vector<std::unique_ptr<Event>> eventGraveyard_;
    std::unordered_map<const void*, int> deadHandles_; // to their ordinals
    HostClock sharedHost_;
    Timeline lastTimeline_ = 0;
    int lastStream_ = 0;
    int lastEvent_ = 0;
    int lastHost_ = 0;
    uint64_t sequence_ = 0;
    size_t pruneAt_ = 4096;
    std::set<std::pair<uint64_t, uint64_t>> reported_; // by their calls
};

/// Made at first use, never destroyed: static destructors still call CUDA.
Simulator& sim();

/// "symbol+0x10 (library.so)" for a return address.
std::string describeCaller(const void* caller);
/// The file name, without folders, of what a return address lies in.
const std::string& moduleOf(const void* caller);
/// Whether a return address lies in libfaiss itself.
bool calledByFaiss(const void* caller);
/// "allocation of 1024 bytes of device memory at 0x... (made by call 12 ...)".
std::string describe(const Allocation& allocation);
std::string hex(const void* ptr);

} // namespace cuda_sim
