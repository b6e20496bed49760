// The control functions of cuda_sim.h.

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "Call.h"

using namespace cuda_sim;

namespace {

Lock locked() {
    return Lock(sim().mutex);
}

Stream* streamOf(void* handle, const char* function) {
    return sim().resolve(static_cast<cudaStream_t>(handle), function);
}

const char* const kCounterNames[] = {
#define CUDA_SIM_NAME(name) #name,
        CUDA_SIM_COUNTERS(CUDA_SIM_NAME)
#undef CUDA_SIM_NAME
};

/// Device progress while no host call waits.
void background() {
    static std::atomic<bool> started{false};
    if (started.exchange(true)) {
        return;
    }
    std::thread([] {
        for (;;) {
            int period;
            {
                auto lock = locked();
                period = sim().settings.backgroundUs;
                if (period > 0) {
                    sim().scheduler.stepOnce(nullptr, lock);
                }
            }
            std::this_thread::sleep_for(
                    std::chrono::microseconds(period > 0 ? period : 1000));
        }
    }).detach();
}

} // namespace

extern "C" {

void cuda_sim_reset(void) {
    auto lock = locked();
    sim().reset(lock);
    if (sim().settings.backgroundUs > 0) {
        background();
    }
}

void cuda_sim_set_device_count(int count) {
    auto lock = locked();
    sim().settings.deviceCount = std::min(8, std::max(0, count));
}

void cuda_sim_set_device_memory(size_t bytes) {
    auto lock = locked();
    sim().settings.deviceMemory = bytes;
}

void cuda_sim_set_policy(int policy) {
    auto lock = locked();
    sim().scheduler.policy = static_cast<Scheduler::Policy>(policy);
}

void cuda_sim_set_seed(uint64_t seed) {
    auto lock = locked();
    sim().scheduler.reseed(seed);
}

void cuda_sim_starve_stream(void* stream) {
    auto lock = locked();
    sim().scheduler.starved = streamOf(stream, "cuda_sim_starve_stream");
}

void cuda_sim_hold_stream(void* handle) {
    auto lock = locked();
    if (auto* stream = streamOf(handle, "cuda_sim_hold_stream")) {
        stream->held = true;
    }
}

void cuda_sim_release_stream(void* handle) {
    auto lock = locked();
    if (auto* stream = streamOf(handle, "cuda_sim_release_stream")) {
        stream->held = false;
        sim().scheduler.changed();
    }
}

void cuda_sim_release_all(void) {
    auto lock = locked();
    for (int device = 0; device < 8; ++device) {
        for (auto* stream : sim().streamsOf(device)) {
            stream->held = false;
        }
    }
    sim().scheduler.changed();
}

void cuda_sim_set_hold_timeout_ms(int milliseconds) {
    auto lock = locked();
    sim().scheduler.holdTimeoutMs = milliseconds;
}

size_t cuda_sim_run(size_t maxSteps) {
    auto lock = locked();
    size_t steps = 0;
    while (steps < maxSteps && sim().scheduler.stepOnce(nullptr, lock)) {
        ++steps;
    }
    return steps;
}

size_t cuda_sim_pending(void) {
    auto lock = locked();
    return sim().scheduler.pending();
}

size_t cuda_sim_pending_on(void* handle) {
    auto lock = locked();
    auto* stream = streamOf(handle, "cuda_sim_pending_on");
    return stream ? stream->queue.size() : 0;
}

void cuda_sim_set_background_us(int period) {
    auto lock = locked();
    sim().settings.backgroundUs = period;
    if (period > 0) {
        background();
    }
}

void cuda_sim_set_pageable_h2d(int blocking) {
    auto lock = locked();
    sim().settings.blockingH2D = blocking != 0;
}

void cuda_sim_set_pageable_d2h(int early) {
    auto lock = locked();
    sim().settings.earlyD2H = early != 0;
}

void cuda_sim_set_copy_pieces(int pieces) {
    auto lock = locked();
    sim().settings.copyPieces = pieces;
}

void cuda_sim_set_free_policy(int policy) {
    auto lock = locked();
    sim().settings.freePolicy = policy;
}

void cuda_sim_set_separate_threads(int separate) {
    auto lock = locked();
    sim().setSeparateThreads(separate != 0);
}

void cuda_sim_thread_release(const void* token) {
    auto lock = locked();
    auto& host = sim().host();
    host.clock.set(host.timeline, host.time++);
    sim().tokens[token].join(host.clock);
}

void cuda_sim_thread_acquire(const void* token) {
    auto lock = locked();
    sim().learn(sim().tokens[token]);
}

void cuda_sim_fail_call(const char* function, uint64_t nth, int error) {
    auto lock = locked();
    sim().addFault(function, nth, static_cast<cudaError_t>(error), false);
}

void cuda_sim_fail_operation(uint64_t nth, int error) {
    auto lock = locked();
    sim().setOperationFault(nth, static_cast<cudaError_t>(error));
}

void cuda_sim_poison_device_at_call(
        const char* function, uint64_t nth, int error) {
    auto lock = locked();
    sim().addFault(function, nth, static_cast<cudaError_t>(error), true);
}

const char* cuda_sim_last_fault(void) {
    auto lock = locked();
    return sim().lastFault;
}

void cuda_sim_clear_faults(void) {
    auto lock = locked();
    sim().faults.clear();
    sim().operationFaultIn = 0;
}

void cuda_sim_get_stats(cuda_sim_stats* stats) {
    auto lock = locked();
#define CUDA_SIM_GET(name) stats->name = sim().count(Counter::name);
    CUDA_SIM_COUNTERS(CUDA_SIM_GET)
#undef CUDA_SIM_GET
}

uint64_t cuda_sim_counter(const char* name) {
    auto lock = locked();
    for (size_t i = 0; i < static_cast<size_t>(Counter::count_); ++i) {
        if (!strcmp(name, kCounterNames[i])) {
            return sim().count(static_cast<Counter>(i));
        }
    }
    return UINT64_MAX;
}

void cuda_sim_reset_counters(void) {
    auto lock = locked();
    sim().resetCounters();
}

uint64_t cuda_sim_calls(const char* function) {
    auto lock = locked();
    return sim().calls(function);
}

size_t cuda_sim_check(void) {
    auto lock = locked();
    return sim().reports.size();
}

size_t cuda_sim_check_kind(int kind) {
    auto lock = locked();
    size_t count = 0;
    for (auto& report : sim().reports) {
        count += report.kind == kind;
    }
    return count;
}

const char* cuda_sim_report(size_t index) {
    auto lock = locked();
    auto& reports = sim().reports;
    return index < reports.size() ? reports[index].text.c_str() : nullptr;
}

int cuda_sim_report_kind_of(size_t index) {
    auto lock = locked();
    auto& reports = sim().reports;
    return index < reports.size() ? reports[index].kind : 0;
}

void cuda_sim_clear_reports(void) {
    auto lock = locked();
    sim().reports.clear();
}

size_t cuda_sim_report_leaks(void) {
    auto lock = locked();
    return sim().reportLeaks();
}

void cuda_sim_set_verbose(int verbose) {
    auto lock = locked();
    sim().settings.verbose = verbose != 0;
}

int cuda_sim_read_device(const void* device, void* host, size_t bytes) {
    auto lock = locked();
    auto& memory = sim().memory;
    auto address = reinterpret_cast<uintptr_t>(device);
    auto* allocation = memory.find(device);
    if (!allocation || address + bytes > allocation->end()) {
        return -1;
    }
    memcpy(host, memory.view(allocation, address, bytes), bytes);
    return 0;
}

int cuda_sim_write_device(void* device, const void* host, size_t bytes) {
    auto lock = locked();
    auto& memory = sim().memory;
    auto address = reinterpret_cast<uintptr_t>(device);
    auto* allocation = memory.find(device);
    if (!allocation || address + bytes > allocation->end()) {
        return -1;
    }
    memcpy(memory.view(allocation, address, bytes), host, bytes);
    return 0;
}

int cuda_sim_is_poison(const void* ptr, size_t bytes) {
    auto lock = locked();
    const void* view = sim().view(ptr, bytes);
    return view && isPoison(view, bytes, reinterpret_cast<uintptr_t>(ptr));
}

void cuda_sim_poison_host(void* ptr, size_t bytes) {
    fillPoison(ptr, bytes);
}

void cuda_sim_host_access(const void* ptr, size_t bytes, int isWrite) {
    auto lock = locked();
    thisThread().caller = __builtin_return_address(0);
    thisThread().sequence = sim().nextSequence();
    sim().touchByHost(
            ptr,
            bytes,
            isWrite != 0,
            std::string("host ") + (isWrite ? "write" : "read") + " of " +
                    std::to_string(bytes) + " bytes");
}

} // extern "C"
