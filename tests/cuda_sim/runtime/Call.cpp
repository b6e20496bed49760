#include "Call.h"

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

    if (thread.inHostFunction && !(flags & Harmless)) {
        simulator.report(
                CUDA_SIM_REPORT_CALL_IN_HOST_FUNCTION,
                function_->name + " was called inside a host function, from " +
                        describeCaller(caller));
        error_ = cudaErrorNotPermitted;
        failed_ = true;
    } else if (!simulator.faults.empty()) {
        error_ = simulator.injectedError(function_, thread.device);
        failed_ = error_ != cudaSuccess;
    }
    if (!failed_ && !(flags & Harmless)) {
        error_ = simulator.device(thread.device).sticky;
        failed_ = error_ != cudaSuccess && !(flags & Releases);
    }
    if (failed_) {
        thread.lastError = error_;
    }
}

Call::~Call() = default;

cudaError_t Call::done(cudaError_t error) {
    if (error_ != cudaSuccess) {
        error = error_;
    }
    if (error != cudaSuccess) {
        thisThread().lastError = error;
    }
    return error;
}

}  // namespace cuda_sim

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
