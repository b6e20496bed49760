#pragma once

#include <faiss/gpu/StandardGpuResources.h>

#include <chrono>
#include <exception>
#include <string>

namespace benchs {

using Clock = std::chrono::steady_clock;

inline double secondsSince(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// What faiss_ext_benchs_error returns.
std::string& lastError();

/// `body`'s result, or `failed` where it throws.
template <typename Result, typename Body>
Result guarded(Result failed, const Body& body) {
    try {
        return body();
    } catch (const std::exception& e) {
        lastError() = e.what();
        return failed;
    }
}

/// One for the process: it takes a tenth of a second to make on a GPU. Never
/// destroyed: at exit the CUDA runtime may be gone before it.
faiss::gpu::StandardGpuResources& resources();

int currentDevice();

} // namespace benchs
