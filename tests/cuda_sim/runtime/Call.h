// What each function of the runtime does first and last.

#pragma once

#include "Simulator.h"

namespace cuda_sim {

/// Takes the lock, counts the call, and finds out whether it must fail before
/// doing anything: by an injected fault, on a poisoned device, inside a host
/// function.
class Call {
   public:
    enum Flags {
        Normal = 0,
        /// Works on a poisoned device (queries of constants, last error).
        Harmless = 1,
        /// A poisoned device makes it fail, but it gives back its object.
        Releases = 2,
        /// Not observed by a capture, so prohibited during one to threads that
        /// do not say that they know (cudaThreadExchangeStreamCaptureMode).
        Unsafe = 4,
        /// Works where there is no device.
        Anywhere = 8,
        /// Works in a process that was forked, and does not begin to use CUDA.
        OfThread = 16,
    };

    Call(Function** function,
         const char* name,
         const void* caller,
         int flags = Normal);
    ~Call();

    /// The caller must return error() at once, without doing anything.
    bool failed() const {
        return failed_;
    }
    cudaError_t error() const {
        return error_;
    }

    /// The value to return: remembers it for cudaGetLastError. For a call that
    /// Releases, an earlier failure wins.
    cudaError_t done(cudaError_t error);

    Lock lock;

    const std::string& name() const {
        return function_->name;
    }

   private:
    void trace(cudaError_t error) const;

    Function* function_;
    cudaError_t error_ = cudaSuccess;
    bool failed_ = false;
};

// clang-format off
#define CUDA_SIM_CALL(flags)                                             \
    static ::cuda_sim::Function* function_ = nullptr;                    \
    ::cuda_sim::Call call(                                               \
            &function_, __func__, __builtin_return_address(0), flags);   \
    if (call.failed()) return call.error()
// clang-format on

} // namespace cuda_sim
