// Devices, versions, errors.

#include <cstdio>
#include <cstring>

#include <cuda_profiler_api.h>

#include "Call.h"

using namespace cuda_sim;

namespace {

struct ErrorText {
    cudaError_t code;
    const char* name;
    const char* text;
};

#define ERROR_TEXT(code, text) \
    { code, #code, text }

const ErrorText kErrors[] = {
        ERROR_TEXT(cudaSuccess, "no error"),
        ERROR_TEXT(cudaErrorInvalidValue, "invalid argument"),
        ERROR_TEXT(cudaErrorMemoryAllocation, "out of memory"),
        ERROR_TEXT(cudaErrorInitializationError, "initialization error"),
        ERROR_TEXT(cudaErrorCudartUnloading, "driver shutting down"),
        ERROR_TEXT(
                cudaErrorInvalidConfiguration,
                "invalid configuration argument"),
        ERROR_TEXT(cudaErrorInvalidPitchValue, "invalid pitch argument"),
        ERROR_TEXT(
                cudaErrorInvalidMemcpyDirection,
                "invalid copy direction for memcpy"),
        ERROR_TEXT(
                cudaErrorInsufficientDriver,
                "CUDA driver version is insufficient for CUDA runtime version"),
        ERROR_TEXT(cudaErrorInvalidDeviceFunction, "invalid device function"),
        ERROR_TEXT(cudaErrorNoDevice, "no CUDA-capable device is detected"),
        ERROR_TEXT(cudaErrorInvalidDevice, "invalid device ordinal"),
        ERROR_TEXT(cudaErrorInvalidResourceHandle, "invalid resource handle"),
        ERROR_TEXT(cudaErrorNotReady, "device not ready"),
        ERROR_TEXT(
                cudaErrorIllegalAddress,
                "an illegal memory access was encountered"),
        ERROR_TEXT(
                cudaErrorLaunchOutOfResources,
                "too many resources requested for launch"),
        ERROR_TEXT(
                cudaErrorLaunchTimeout,
                "the launch timed out and was terminated"),
        ERROR_TEXT(
                cudaErrorPeerAccessAlreadyEnabled,
                "peer access is already enabled"),
        ERROR_TEXT(
                cudaErrorPeerAccessNotEnabled,
                "peer access has not been enabled"),
        ERROR_TEXT(cudaErrorAssert, "device-side assert triggered"),
        ERROR_TEXT(
                cudaErrorHostMemoryAlreadyRegistered,
                "part or all of the requested memory range is already mapped"),
        ERROR_TEXT(
                cudaErrorHostMemoryNotRegistered,
                "pointer does not correspond to a registered memory region"),
        ERROR_TEXT(cudaErrorLaunchFailure, "unspecified launch failure"),
        ERROR_TEXT(cudaErrorNotPermitted, "operation not permitted"),
        ERROR_TEXT(cudaErrorNotSupported, "operation not supported"),
        ERROR_TEXT(
                cudaErrorECCUncorrectable,
                "uncorrectable ECC error encountered"),
        ERROR_TEXT(cudaErrorMisalignedAddress, "misaligned address"),
        ERROR_TEXT(
                cudaErrorIllegalState,
                "the operation cannot be performed in the present state"),
        ERROR_TEXT(
                cudaErrorStreamCaptureUnsupported,
                "operation not permitted when stream is capturing"),
        ERROR_TEXT(
                cudaErrorStreamCaptureInvalidated,
                "operation failed due to a previous error during capture"),
        ERROR_TEXT(
                cudaErrorStreamCaptureMerge,
                "operation would result in a merge of separate capture "
                "sequences"),
        ERROR_TEXT(
                cudaErrorStreamCaptureUnmatched,
                "capture was not ended in the same stream as it began"),
        ERROR_TEXT(
                cudaErrorStreamCaptureUnjoined,
                "capturing stream has unjoined work"),
        ERROR_TEXT(
                cudaErrorStreamCaptureIsolation,
                "dependency created on uncaptured work in another stream"),
        ERROR_TEXT(
                cudaErrorStreamCaptureImplicit,
                "operation would make the legacy stream depend on a capturing "
                "blocking stream"),
        ERROR_TEXT(
                cudaErrorCapturedEvent,
                "operation not permitted on an event last recorded in a "
                "capturing stream"),
        ERROR_TEXT(
                cudaErrorStreamCaptureWrongThread,
                "attempt to terminate a thread-local capture sequence from "
                "another thread"),
        ERROR_TEXT(cudaErrorUnknown, "unknown error"),
};

#undef ERROR_TEXT

} // namespace

extern "C" {

const char* cudaGetErrorName(cudaError_t error) {
    for (auto& entry : kErrors) {
        if (entry.code == error) {
            return entry.name;
        }
    }
    return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
    for (auto& entry : kErrors) {
        if (entry.code == error) {
            return entry.text;
        }
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError(void) {
    CUDA_SIM_CALL(Call::Harmless | Call::Anywhere | Call::OfThread);
    auto& thread = thisThread();
    auto sticky = sim().device(thread.device).sticky;
    auto error = sticky != cudaSuccess ? sticky : thread.lastError;
    thread.lastError = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    CUDA_SIM_CALL(Call::Harmless | Call::Anywhere | Call::OfThread);
    auto& thread = thisThread();
    auto sticky = sim().device(thread.device).sticky;
    return sticky != cudaSuccess ? sticky : thread.lastError;
}

cudaError_t cudaGetDeviceCount(int* count) {
    CUDA_SIM_CALL(Call::Harmless | Call::Anywhere);
    if (sim().settings.deviceCount == 0) {
        // And *count stays what it was.
        return call.done(cudaErrorNoDevice);
    }
    *count = sim().settings.deviceCount;
    return call.done(cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
    CUDA_SIM_CALL(Call::Harmless);
    if (!sim().exists(device)) {
        return call.done(cudaErrorInvalidDevice);
    }
    thisThread().device = device;
    return call.done(sim().device(device).sticky);
}

cudaError_t cudaGetDevice(int* device) {
    CUDA_SIM_CALL(Call::Harmless);
    *device = thisThread().device;
    return call.done(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device) {
    CUDA_SIM_CALL(Call::Harmless);
    if (!sim().exists(device)) {
        return call.done(cudaErrorInvalidDevice);
    }
    memset(prop, 0, sizeof(*prop));
    snprintf(prop->name, sizeof(prop->name), "simulated device %d", device);
    prop->totalGlobalMem = sim().settings.deviceMemory;
    prop->sharedMemPerBlock = 48 * 1024;
    prop->sharedMemPerMultiprocessor = 228 * 1024;
    prop->sharedMemPerBlockOptin = 227 * 1024;
    prop->regsPerBlock = 65536;
    prop->regsPerMultiprocessor = 65536;
    prop->warpSize = 32;
    prop->memPitch = 2147483647;
    prop->maxThreadsPerBlock = 1024;
    prop->maxThreadsDim[0] = 1024;
    prop->maxThreadsDim[1] = 1024;
    prop->maxThreadsDim[2] = 64;
    prop->maxGridSize[0] = 2147483647;
    prop->maxGridSize[1] = 65535;
    prop->maxGridSize[2] = 65535;
    prop->totalConstMem = 65536;
    prop->major = 9;
    prop->minor = 0;
    prop->textureAlignment = 512;
    prop->multiProcessorCount = 132;
    prop->maxThreadsPerMultiProcessor = 2048;
    prop->maxBlocksPerMultiProcessor = 32;
    prop->l2CacheSize = 50 * 1024 * 1024;
    prop->memoryBusWidth = 5120;
    prop->asyncEngineCount = 3;
    prop->unifiedAddressing = 1;
    prop->canMapHostMemory = 1;
    prop->concurrentKernels = 1;
    prop->managedMemory = 1;
    prop->concurrentManagedAccess = 1;
    prop->hostNativeAtomicSupported = 0;
    prop->pageableMemoryAccess = 0;
    prop->memoryPoolsSupported = 1;
    prop->pciDeviceID = device;
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(
        int* value, cudaDeviceAttr attr, int device) {
    CUDA_SIM_CALL(Call::Harmless);
    if (!sim().exists(device)) {
        return call.done(cudaErrorInvalidDevice);
    }
    switch (attr) {
        case cudaDevAttrComputeCapabilityMajor:
            *value = 9;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = 0;
            break;
        case cudaDevAttrMultiProcessorCount:
            *value = 132;
            break;
        // An H100's (SXM5).
        case cudaDevAttrClockRate:
            *value = 1980000;
            break;
        case cudaDevAttrMemoryClockRate:
            *value = 2619000;
            break;
        case cudaDevAttrGlobalMemoryBusWidth:
            *value = 5120;
            break;
        case cudaDevAttrMaxThreadsPerBlock:
        case cudaDevAttrMaxBlockDimX:
        case cudaDevAttrMaxBlockDimY:
            *value = 1024;
            break;
        case cudaDevAttrMaxBlockDimZ:
            *value = 64;
            break;
        case cudaDevAttrMaxGridDimX:
            *value = 2147483647;
            break;
        case cudaDevAttrMaxGridDimY:
        case cudaDevAttrMaxGridDimZ:
            *value = 65535;
            break;
        case cudaDevAttrMaxThreadsPerMultiProcessor:
            *value = 2048;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlock:
            *value = 48 * 1024;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = 227 * 1024;
            break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            *value = 228 * 1024;
            break;
        case cudaDevAttrWarpSize:
            *value = 32;
            break;
        case cudaDevAttrAsyncEngineCount:
            *value = 3;
            break;
        case cudaDevAttrUnifiedAddressing:
        case cudaDevAttrCanMapHostMemory:
        case cudaDevAttrCanUseHostPointerForRegisteredMem:
        case cudaDevAttrHostRegisterSupported:
        case cudaDevAttrManagedMemory:
        case cudaDevAttrConcurrentManagedAccess:
        case cudaDevAttrConcurrentKernels:
        case cudaDevAttrMemoryPoolsSupported:
            *value = 1;
            break;
        default:
            *value = 0;
            break;
    }
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
    CUDA_SIM_CALL(Call::Harmless);
    if (!sim().exists(device)) {
        return call.done(cudaErrorInvalidDevice);
    }
    snprintf(text, length, "0000:00:%02x.0", device);
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void) {
    CUDA_SIM_CALL(Call::Normal);
    if (sim().captures.refusesWaitForDevice(thisThread().device)) {
        return call.done(cudaErrorStreamCaptureUnsupported);
    }
    return call.done(sim().waitForDevice(
            Counter::waits_device,
            thisThread().device,
            "cudaDeviceSynchronize",
            call.lock));
}

cudaError_t cudaDeviceReset(void) {
    CUDA_SIM_CALL(Call::Harmless);
    auto& s = sim();
    int device = thisThread().device;
    s.waitForDevice(
            Counter::waits_device, device, "cudaDeviceReset", call.lock);
    s.device(device).sticky = cudaSuccess;
    thisThread().lastError = cudaSuccess;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    CUDA_SIM_CALL(Call::Harmless);
    if (least) {
        *least = 0;
    }
    if (greatest) {
        *greatest = -5;
    }
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
    CUDA_SIM_CALL(Call::Normal);
    if (!sim().exists(device) || !sim().exists(peer)) {
        return call.done(cudaErrorInvalidDevice);
    }
    *can = device != peer;
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
    CUDA_SIM_CALL(Call::Normal);
    auto& thread = thisThread();
    if (!sim().exists(peer) || peer == thread.device) {
        return call.done(cudaErrorInvalidDevice);
    }
    if (flags) {
        return call.done(cudaErrorInvalidValue);
    }
    auto& enabled = sim().device(thread.device).peers;
    return call.done(
            enabled.insert(peer).second ? cudaSuccess
                                        : cudaErrorPeerAccessAlreadyEnabled);
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
    CUDA_SIM_CALL(Call::Normal);
    if (!sim().exists(peer)) {
        return call.done(cudaErrorInvalidDevice);
    }
    auto& enabled = sim().device(thisThread().device).peers;
    return call.done(
            enabled.erase(peer) ? cudaSuccess : cudaErrorPeerAccessNotEnabled);
}

cudaError_t cudaGetDeviceFlags(unsigned* flags) {
    CUDA_SIM_CALL(Call::Normal);
    *flags = cudaDeviceScheduleAuto;
    return call.done(cudaSuccess);
}

cudaError_t cudaInitDevice(int device, unsigned, unsigned) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(
            sim().exists(device) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit) {
    CUDA_SIM_CALL(Call::Normal);
    *value = 0;
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaSetDeviceFlags(unsigned) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    CUDA_SIM_CALL(Call::Harmless | Call::Anywhere);
    *version = CUDART_VERSION;
    return call.done(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int* version) {
    CUDA_SIM_CALL(Call::Harmless | Call::Anywhere);
    *version = CUDART_VERSION;
    return call.done(cudaSuccess);
}

cudaError_t cudaProfilerStart(void) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaProfilerStop(void) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

} // extern "C"
