// Kernels. The device code of a program cannot run here: a launch fails the
// test by the kernel's name. What stands in for a kernel is cuda_sim_launch.

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>

#include "Call.h"

using namespace cuda_sim;

namespace {

/// By the address that stands for the kernel in the host's code.
std::unordered_map<const void*, const char*>& kernels() {
    static auto* map = new std::unordered_map<const void*, const char*>;
    return *map;
}

std::string kernelName(const void* function) {
    auto it = kernels().find(function);
    if (it == kernels().end()) {
        return "an unknown kernel";
    }
    int status = -1;
    char* readable = abi::__cxa_demangle(it->second, nullptr, nullptr, &status);
    std::string name = status == 0 ? readable : it->second;
    free(readable);
    return name;
}

cudaError_t launch(Call& call, const void* function, cudaStream_t stream) {
    auto& s = sim();
    std::string name = kernelName(function);
    if (!s.resolve(stream, call.name().c_str())) {
        return cudaErrorInvalidResourceHandle;
    }
    s.report(
            CUDA_SIM_REPORT_UNMODELLED,
            "unmodelled kernel: " + name + "\n  call " +
                    std::to_string(thisThread().sequence) + " from " +
                    describeCaller(thisThread().caller));
    return cudaErrorInvalidDeviceFunction;
}

/// What cuda_sim_launch does when it may.
cudaError_t enqueueKernel(
        const std::string& what,
        cudaStream_t handle,
        const std::vector<cuda_sim_range>& ranges,
        void (*run)(void* arg),
        const std::shared_ptr<void>& owned) {
    auto& s = sim();
    auto* stream = s.resolve(handle, what.c_str());
    if (!stream) {
        return cudaErrorInvalidResourceHandle;
    }
    if (stream->device != thisThread().device) {
        // As a real launch on another device's stream.
        return cudaErrorInvalidResourceHandle;
    }
    for (size_t i = 0; i < ranges.size(); ++i) {
        Allocation* allocation = nullptr;
        if (ranges[i].bytes == 0) {
            continue;
        }
        // Pinned memory can be reached from a kernel, pageable cannot.
        auto error = s.checkRange(
                ranges[i].ptr,
                ranges[i].bytes,
                true,
                &allocation,
                what + (ranges[i].is_write ? " output" : " input"));
        if (error == cudaSuccess && allocation->onDevice() &&
            allocation->device != stream->device &&
            !s.device(stream->device).peers.count(allocation->device)) {
            s.report(
                    CUDA_SIM_REPORT_BAD_ARGUMENT,
                    "bad argument: " + what + " touches " +
                            describe(*allocation) +
                            " of another device, without peer access");
            error = cudaErrorIllegalAddress;
        }
        if (error != cudaSuccess) {
            // The launch itself succeeds; the kernel faults.
            s.poison(stream->device, cudaErrorIllegalAddress);
            return cudaSuccess;
        }
    }
    if (const auto error = s.captures.errorOfUse(stream)) {
        return error;
    }
    if (stream->capture) {
        Captures::add(stream, [=](Call&, cudaStream_t on) {
            return enqueueKernel(what, on, ranges, run, owned);
        });
        return cudaSuccess;
    }
    ++s.count(Counter::kernels);
    auto operation = s.makeOperation(stream, what);
    operation->cost = 10000;
    for (size_t i = 0; i < ranges.size(); ++i) {
        if (ranges[i].bytes) {
            s.touch(*operation,
                    ranges[i].ptr,
                    ranges[i].bytes,
                    ranges[i].is_write != 0);
        }
    }
    int device = stream->device;
    operation->step = [run, owned, touched = ranges, what, device] {
        for (auto& range : touched) {
            if (range.bytes && !sim().view(range.ptr, range.bytes)) {
                return true; // freed since the launch; that was reported
            }
        }
        try {
            run(owned.get());
        } catch (const std::exception& error) {
            // No caller could catch it: it is some later call that waits.
            sim().report(
                    CUDA_SIM_REPORT_BAD_ARGUMENT,
                    what + " threw: " + error.what());
            sim().poison(device, cudaErrorLaunchFailure);
        }
        return true;
    };
    s.scheduler.enqueue(stream, operation);
    return cudaSuccess;
}

} // namespace

extern "C" {

void** __cudaRegisterFatBinary(void*) {
    return static_cast<void**>(calloc(1, sizeof(void*)));
}

void __cudaRegisterFatBinaryEnd(void**) {}

void __cudaUnregisterFatBinary(void** handle) {
    free(handle);
}

void __cudaRegisterFunction(
        void**,
        const char* hostFunction,
        char*,
        const char* deviceName,
        int,
        uint3*,
        uint3*,
        dim3*,
        dim3*,
        int*) {
    Lock lock(sim().mutex);
    kernels()[hostFunction] = deviceName;
}

void __cudaRegisterVar(
        void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterManagedVar(
        void**, void**, char*, const char*, int, size_t, int, int) {}

char __cudaInitModule(void**) {
    return 1;
}

unsigned __cudaPushCallConfiguration(
        dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
    thisThread().configurations.push_back({grid, block, shared, stream});
    return 0;
}

cudaError_t __cudaPopCallConfiguration(
        dim3* grid, dim3* block, size_t* shared, void* stream) {
    auto& stack = thisThread().configurations;
    if (stack.empty()) {
        return cudaErrorInvalidConfiguration;
    }
    *grid = stack.back().grid;
    *block = stack.back().block;
    *shared = stack.back().shared;
    *static_cast<cudaStream_t*>(stream) = stack.back().stream;
    stack.pop_back();
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
    *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(
        cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(launch(call, kernel, stream));
}

cudaError_t cudaLaunchKernel(
        const void* function, dim3, dim3, void**, size_t, cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(launch(call, function, stream));
}

cudaError_t cudaLaunchKernelExC(
        const cudaLaunchConfig_t* config, const void* function, void**) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(launch(call, function, config->stream));
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attr, const void*) {
    CUDA_SIM_CALL(Call::Normal);
    memset(attr, 0, sizeof(*attr));
    attr->maxThreadsPerBlock = 1024;
    attr->numRegs = 32;
    attr->ptxVersion = 90;
    attr->binaryVersion = 90;
    attr->maxDynamicSharedSizeBytes = 48 * 1024;
    return call.done(cudaSuccess);
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        int* blocks, const void*, int blockSize, size_t) {
    CUDA_SIM_CALL(Call::Normal);
    *blocks = blockSize > 0 ? 2048 / blockSize : 0;
    return call.done(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        int* blocks, const void*, int blockSize, size_t, unsigned) {
    CUDA_SIM_CALL(Call::Normal);
    *blocks = blockSize > 0 ? 2048 / blockSize : 0;
    return call.done(cudaSuccess);
}

cudaError_t cuda_sim_launch(
        const char* name,
        cudaStream_t handle,
        const cuda_sim_range* ranges,
        size_t numRanges,
        void (*run)(void* arg),
        void* arg,
        void (*destroy)(void* arg)) {
    std::shared_ptr<void> owned(arg, [destroy](void* p) {
        if (destroy) {
            destroy(p);
        }
    });
    Function* function = nullptr;
    std::string what = std::string("kernel:") + name;
    Call call(&function, what.c_str(), __builtin_return_address(0));
    if (call.failed()) {
        return call.error();
    }
    return call.done(enqueueKernel(
            what, handle, {ranges, ranges + numRanges}, run, owned));
}

void* cuda_sim_view(const void* device) {
    // No lock: this runs in an operation, which holds it. The declared ranges
    // have their poison already.
    auto& s = sim();
    auto* allocation = s.memory.find(device);
    return allocation
                   ? s.memory.view(
                             allocation, reinterpret_cast<uintptr_t>(device), 0)
                   : nullptr;
}

} // extern "C"
