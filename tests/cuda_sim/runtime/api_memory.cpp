// Allocation, registration, and what a pointer is.

#include <cstring>

#include "Call.h"

using namespace cuda_sim;

namespace {

cudaError_t allocateDevice(
        void** ptr,
        size_t bytes,
        MemoryKind kind,
        Allocation** result = nullptr) {
    if (!ptr) {
        return cudaErrorInvalidValue;
    }
    *ptr = nullptr;
    if (bytes == 0) {
        return cudaSuccess;
    }
    auto& s = sim();
    auto& thread = thisThread();
    auto& device = s.device(thread.device);
    if (device.usedBytes + bytes > s.settings.deviceMemory) {
        return cudaErrorMemoryAllocation;
    }
    auto* allocation = kind == MemoryKind::Device
                               ? s.memory.allocateDevice(bytes, thread.device)
                               : s.memory.allocateHost(bytes, kind);
    if (!allocation) {
        return cudaErrorMemoryAllocation;
    }
    allocation->device = thread.device;
    allocation->sequence = thread.sequence;
    allocation->caller = thread.caller;
    device.usedBytes += bytes;
    ++s.count(Counter::live_device);
    s.count(Counter::live_device_bytes) += bytes;
    s.count(Counter::bytes_allocated_device) += bytes;
    s.count(Counter::peak_device_bytes) = std::max(
            s.count(Counter::peak_device_bytes),
            s.count(Counter::live_device_bytes));
    *ptr = reinterpret_cast<void*>(allocation->begin);
    if (result) {
        *result = allocation;
    }
    return cudaSuccess;
}

cudaError_t allocatePinned(void** ptr, size_t bytes) {
    if (!ptr) {
        return cudaErrorInvalidValue;
    }
    *ptr = nullptr;
    if (bytes == 0) {
        return cudaSuccess;
    }
    auto& s = sim();
    auto& thread = thisThread();
    auto* allocation = s.memory.allocateHost(bytes, MemoryKind::Pinned);
    if (!allocation) {
        return cudaErrorMemoryAllocation;
    }
    allocation->device = thread.device;
    allocation->sequence = thread.sequence;
    allocation->caller = thread.caller;
    ++s.count(Counter::allocs_pinned);
    ++s.count(Counter::live_pinned);
    s.count(Counter::live_pinned_bytes) += bytes;
    s.count(Counter::bytes_allocated_pinned) += bytes;
    *ptr = reinterpret_cast<void*>(allocation->begin);
    return cudaSuccess;
}

/// The allocation that a free names, or null and a report.
Allocation* toFree(void* ptr, const char* what, bool host) {
    auto& s = sim();
    auto& thread = thisThread();
    auto* allocation = s.memory.find(ptr);
    std::string problem;
    if (!allocation) {
        auto* freed = s.memory.findFreed(ptr);
        problem = freed ? "double free of " + describe(*freed)
                        : "free of " + hex(ptr) + ", which is no allocation";
    } else if (allocation->begin != reinterpret_cast<uintptr_t>(ptr)) {
        problem = "free of " + hex(ptr) + " inside " + describe(*allocation);
    } else if (allocation->freeEnqueued) {
        problem = "double free of " + describe(*allocation) +
                  ", whose free is already enqueued";
    } else if (
            host ? allocation->kind != MemoryKind::Pinned
                 : (allocation->kind != MemoryKind::Device &&
                    allocation->kind != MemoryKind::Managed)) {
        problem = "free by the wrong function of " + describe(*allocation);
    } else {
        if (!host) {
            s.given(allocation->device);
        }
        return allocation;
    }
    s.report(
            CUDA_SIM_REPORT_BAD_FREE,
            problem + "\n  " + what + ", call " +
                    std::to_string(thread.sequence) + " from " +
                    describeCaller(thread.caller));
    return nullptr;
}

/// Memory in stream order is unsafe on a stream that does not capture. On one
/// that does it becomes a node of the graph, which is not modelled.
cudaError_t errorOfPool(Stream* stream) {
    auto& s = sim();
    if (stream->capture) {
        s.report(
                CUDA_SIM_REPORT_UNMODELLED,
                "unmodelled: memory allocated or freed in a capture\n  from " +
                        describeCaller(thisThread().caller));
        return cudaErrorNotSupported;
    }
    return s.captures.refusesUnsafeCall() ? cudaErrorStreamCaptureUnsupported
                                          : s.captures.errorOfUse(stream);
}

cudaError_t allocateAsync(void** ptr, size_t bytes, cudaStream_t handle) {
    auto& s = sim();
    auto* stream = s.resolve(handle, "cudaMallocAsync");
    if (!stream) {
        return cudaErrorInvalidResourceHandle;
    }
    if (const auto error = errorOfPool(stream)) {
        return error;
    }
    Allocation* allocation = nullptr;
    auto error = allocateDevice(ptr, bytes, MemoryKind::Device, &allocation);
    if (error != cudaSuccess || !allocation) {
        return error;
    }
    allocation->fromPool = true;
    ++s.count(Counter::allocs_async);
    // Who uses it must be ordered after this operation, as after a write.
    auto operation = s.makeOperation(stream, "cudaMallocAsync");
    s.touch(*operation, *ptr, bytes, true);
    s.scheduler.enqueue(stream, operation);
    return cudaSuccess;
}

} // namespace

extern "C" {

cudaError_t cudaMalloc(void** ptr, size_t bytes) {
    CUDA_SIM_CALL(Call::Unsafe);
    ++sim().count(Counter::allocs_device);
    return call.done(allocateDevice(ptr, bytes, MemoryKind::Device));
}

cudaError_t cudaMallocManaged(void** ptr, size_t bytes, unsigned) {
    CUDA_SIM_CALL(Call::Unsafe);
    ++sim().count(Counter::allocs_managed);
    return call.done(allocateDevice(ptr, bytes, MemoryKind::Managed));
}

cudaError_t cudaMallocPitch(
        void** ptr, size_t* pitch, size_t width, size_t height) {
    CUDA_SIM_CALL(Call::Unsafe);
    *pitch = (width + 511) / 512 * 512;
    ++sim().count(Counter::allocs_device);
    return call.done(allocateDevice(ptr, *pitch * height, MemoryKind::Device));
}

cudaError_t cudaFree(void* ptr) {
    CUDA_SIM_CALL(Call::Releases | Call::Unsafe);
    if (!ptr) {
        return call.done(cudaSuccess);
    }
    auto* allocation = toFree(ptr, "cudaFree", false);
    if (!allocation) {
        return call.done(cudaErrorInvalidValue);
    }
    ++sim().count(Counter::frees_device);
    return call.done(sim().freeMemory(
            allocation, "cudaFree", thisThread().caller, call.lock));
}

cudaError_t cudaHostAlloc(void** ptr, size_t bytes, unsigned) {
    CUDA_SIM_CALL(Call::Unsafe);
    return call.done(allocatePinned(ptr, bytes));
}

cudaError_t cudaMallocHost(void** ptr, size_t bytes) {
    CUDA_SIM_CALL(Call::Unsafe);
    return call.done(allocatePinned(ptr, bytes));
}

cudaError_t cudaFreeHost(void* ptr) {
    CUDA_SIM_CALL(Call::Releases | Call::Unsafe);
    if (!ptr) {
        return call.done(cudaSuccess);
    }
    auto* allocation = toFree(ptr, "cudaFreeHost", true);
    if (!allocation) {
        return call.done(cudaErrorInvalidValue);
    }
    ++sim().count(Counter::frees_pinned);
    return call.done(sim().freeMemory(
            allocation, "cudaFreeHost", thisThread().caller, call.lock));
}

cudaError_t cudaHostRegister(void* ptr, size_t bytes, unsigned) {
    CUDA_SIM_CALL(Call::Unsafe);
    auto& s = sim();
    if (!ptr || !bytes) {
        return call.done(cudaErrorInvalidValue);
    }
    if (s.memory.overlaps(ptr, bytes)) {
        return call.done(cudaErrorHostMemoryAlreadyRegistered);
    }
    auto* allocation = s.memory.registerHost(ptr, bytes);
    allocation->device = thisThread().device;
    allocation->sequence = thisThread().sequence;
    allocation->caller = thisThread().caller;
    ++s.count(Counter::registrations);
    ++s.count(Counter::live_registrations);
    return call.done(cudaSuccess);
}

cudaError_t cudaHostUnregister(void* ptr) {
    CUDA_SIM_CALL(Call::Releases | Call::Unsafe);
    auto& s = sim();
    auto* allocation = s.memory.find(ptr);
    if (!allocation || allocation->kind != MemoryKind::Registered ||
        allocation->begin != reinterpret_cast<uintptr_t>(ptr)) {
        return call.done(cudaErrorHostMemoryNotRegistered);
    }
    ++s.count(Counter::unregistrations);
    return call.done(s.freeMemory(
            allocation, "cudaHostUnregister", thisThread().caller, call.lock));
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
    CUDA_SIM_CALL(Call::Normal);
    auto* allocation = sim().memory.find(host);
    if (!allocation || allocation->onDevice()) {
        return call.done(cudaErrorInvalidValue);
    }
    *device = host;
    return call.done(cudaSuccess);
}

cudaError_t cudaHostGetFlags(unsigned* flags, void* host) {
    CUDA_SIM_CALL(Call::Normal);
    auto* allocation = sim().memory.find(host);
    if (!allocation || allocation->kind != MemoryKind::Pinned) {
        return call.done(cudaErrorInvalidValue);
    }
    *flags = cudaHostAllocMapped;
    return call.done(cudaSuccess);
}

cudaError_t cudaMallocAsync(void** ptr, size_t bytes, cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(allocateAsync(ptr, bytes, stream));
}

cudaError_t cudaMallocFromPoolAsync(
        void** ptr, size_t bytes, cudaMemPool_t, cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(allocateAsync(ptr, bytes, stream));
}

cudaError_t cudaFreeAsync(void* ptr, cudaStream_t handle) {
    CUDA_SIM_CALL(Call::Releases);
    auto& s = sim();
    if (!ptr) {
        return call.done(cudaSuccess);
    }
    auto* stream = s.resolve(handle, "cudaFreeAsync");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (const auto error = errorOfPool(stream)) {
        return call.done(error);
    }
    auto* allocation = toFree(ptr, "cudaFreeAsync", false);
    if (!allocation) {
        return call.done(cudaErrorInvalidValue);
    }
    ++s.count(Counter::frees_async);
    auto operation = s.makeOperation(stream, "cudaFreeAsync");
    // Whoever still uses it must be ordered before this operation.
    s.touch(*operation, ptr, allocation->bytes, true);
    allocation->freeEnqueued = true;
    std::string freedBy = describe(*operation->origin);
    operation->always = [ptr, freedBy] {
        if (auto* found = sim().memory.find(ptr)) {
            sim().releaseNow(found, freedBy);
        }
    };
    s.scheduler.enqueue(stream, operation);
    return call.done(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    CUDA_SIM_CALL(Call::Normal);
    auto& s = sim();
    uint64_t used = s.device(thisThread().device).usedBytes;
    *total = s.settings.deviceMemory;
    *free = used < *total ? *total - used : 0;
    return call.done(cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(
        cudaPointerAttributes* attributes, const void* ptr) {
    CUDA_SIM_CALL(Call::Normal);
    if (!attributes) {
        return call.done(cudaErrorInvalidValue);
    }
    memset(attributes, 0, sizeof(*attributes));
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = cudaInvalidDeviceId;
    auto& s = sim();
    auto* allocation = s.memory.find(ptr);
    if (!allocation) {
        if (auto* freed = s.memory.findFreed(ptr)) {
            s.report(
                    CUDA_SIM_REPORT_USE_AFTER_FREE,
                    "use after free: cudaPointerGetAttributes of " + hex(ptr) +
                            " in " + describe(*freed) + "\n  from " +
                            describeCaller(thisThread().caller));
        }
        return call.done(cudaSuccess);
    }
    auto* pointer = const_cast<void*>(ptr);
    attributes->device = allocation->device;
    attributes->devicePointer = pointer;
    switch (allocation->kind) {
        case MemoryKind::Device:
            attributes->type = cudaMemoryTypeDevice;
            break;
        case MemoryKind::Managed:
            attributes->type = cudaMemoryTypeManaged;
            attributes->hostPointer = pointer;
            break;
        case MemoryKind::Pinned:
        case MemoryKind::Registered:
            attributes->type = cudaMemoryTypeHost;
            attributes->hostPointer = pointer;
            break;
    }
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
    CUDA_SIM_CALL(Call::Normal);
    if (!sim().exists(device)) {
        return call.done(cudaErrorInvalidDevice);
    }
    *pool = reinterpret_cast<cudaMemPool_t>(&sim().device(device));
    return call.done(cudaSuccess);
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
    CUDA_SIM_CALL(Call::Normal);
    if (!sim().exists(device)) {
        // Not cudaErrorInvalidDevice.
        return call.done(cudaErrorInvalidValue);
    }
    *pool = reinterpret_cast<cudaMemPool_t>(&sim().device(device));
    return call.done(cudaSuccess);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

} // extern "C"
