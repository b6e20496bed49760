#include "Call.h"

#include <cstdio>

#include "Unmodelled.h"

namespace cuda_sim {

Call::Call(Function** function, const char* name, const void* caller, int flags)
        : lock(sim().mutex) {
    auto& simulator = sim();
    auto& thread = thisThread();
    if (!*function) {
        *function = simulator.function(name);
    }
    function_ = *function;
    ++function_->calls;
    thread.caller = caller;
    thread.sequence = simulator.nextSequence();
    thread.lost = cudaSuccess;

    if (!(flags & OfThread)) {
        simulator.used = true;
    }
    if (simulator.lostByFork && !(flags & OfThread)) {
        simulator.report(
                CUDA_SIM_REPORT_CALL_AFTER_FORK,
                function_->name +
                        " was called in a process forked from one that had "
                        "used CUDA, from " +
                        describeCaller(caller));
        error_ = cudaErrorInitializationError;
        failed_ = true;
    } else if (simulator.settings.deviceCount == 0 && !(flags & Anywhere)) {
        error_ = cudaErrorNoDevice;
        failed_ = true;
    } else if (thread.inHostFunction && !(flags & Harmless)) {
        simulator.report(
                CUDA_SIM_REPORT_CALL_IN_HOST_FUNCTION,
                function_->name + " was called inside a host function, from " +
                        describeCaller(caller));
        error_ = cudaErrorNotPermitted;
        failed_ = true;
    } else if (!simulator.faults.empty()) {
        error_ = simulator.injectedError(
                function_, thread.device, flags & Harmless);
        failed_ = error_ != cudaSuccess;
    }
    if (!failed_ && !(flags & Harmless)) {
        error_ = simulator.device(thread.device).sticky;
        failed_ = error_ != cudaSuccess && !(flags & Releases);
    }
    if (!failed_ && (flags & Unsafe) &&
        simulator.captures.refusesUnsafeCall()) {
        error_ = cudaErrorStreamCaptureUnsupported;
        failed_ = true;
    }
    if (simulator.settings.trace) {
        fprintf(stderr,
                "cuda_sim: call %llu: %s from %s\n",
                static_cast<unsigned long long>(thread.sequence),
                function_->name.c_str(),
                describeCaller(caller).c_str());
    }
    if (failed_) {
        trace(error_);
        thread.lastError = error_;
    }
}

Call::~Call() = default;

void Call::trace(cudaError_t error) const {
    if (sim().settings.trace) {
        fprintf(stderr,
                "cuda_sim: %s returns error %d\n",
                function_->name.c_str(),
                error);
    }
}

cudaError_t Call::done(cudaError_t error) {
    if (error_ != cudaSuccess) {
        error = error_;
    } else if (thisThread().lost != cudaSuccess) {
        error = thisThread().lost;
    }
    if (error != cudaSuccess) {
        trace(error);
        thisThread().lastError = error;
    }
    return error;
}

} // namespace cuda_sim

int cuda_sim_unmodelled(const char* name, const void* caller) {
    using namespace cuda_sim;
    Function* function = nullptr;
    Call call(&function, name, caller);
    if (call.failed()) {
        return call.error();
    }
    sim().report(
            CUDA_SIM_REPORT_UNMODELLED,
            std::string("unmodelled function: ") + name + "\n  from " +
                    describeCaller(caller));
    return call.done(cudaErrorNotSupported);
}
