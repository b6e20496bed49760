// Checks on memory that calls name, and giving it back.

#include "Simulator.h"

namespace cuda_sim {

cudaError_t Simulator::checkRange(
        const void* ptr,
        size_t bytes,
        bool mustBeDevice,
        Allocation** result,
        const std::string& what) {
    *result = nullptr;
    auto complain = [&](int kind, const std::string& text) {
        report(kind,
               text + "\n  " + what + ", call " +
                       std::to_string(thisThread().sequence) + " from " +
                       describeCaller(thisThread().caller));
        return cudaErrorInvalidValue;
    };
    auto place = std::to_string(bytes) + " bytes at " + hex(ptr);
    auto address = reinterpret_cast<uintptr_t>(ptr);

    if (auto* allocation = memory.find(ptr)) {
        if (address + bytes > allocation->end()) {
            return complain(
                    CUDA_SIM_REPORT_OUT_OF_BOUNDS,
                    "out of bounds: " + place + " end " +
                            std::to_string(
                                    address + bytes - allocation->end()) +
                            " bytes after " + describe(*allocation));
        }
        if (allocation->freeEnqueued) {
            return complain(
                    CUDA_SIM_REPORT_USE_AFTER_FREE,
                    "use after free: " + place + " lie in " +
                            describe(*allocation) +
                            ", whose free is already enqueued");
        }
        *result = allocation;
        return cudaSuccess;
    }
    if (auto* freed = memory.findFreed(ptr)) {
        return complain(
                CUDA_SIM_REPORT_USE_AFTER_FREE,
                "use after free: " + place + " lie in " + describe(*freed));
    }
    if (Memory::isDeviceAddress(address)) {
        auto* below = memory.findBelow(ptr);
        return complain(
                CUDA_SIM_REPORT_OUT_OF_BOUNDS,
                "out of bounds: " + place + " lie in no allocation" +
                        (below ? ", " + std::to_string(address - below->end()) +
                                         " bytes after " + describe(*below)
                               : ""));
    }
    if (mustBeDevice || !ptr) {
        return complain(
                CUDA_SIM_REPORT_BAD_ARGUMENT,
                "bad argument: " + place + " are not memory of the device");
    }
    return cudaSuccess;
}

void* Simulator::view(const void* ptr, size_t bytes) {
    if (auto* allocation = memory.find(ptr)) {
        return memory.view(allocation, reinterpret_cast<uintptr_t>(ptr), bytes);
    }
    if (memory.findFreed(ptr) ||
        Memory::isDeviceAddress(reinterpret_cast<uintptr_t>(ptr))) {
        return nullptr; // freed since the call; that was reported
    }
    return const_cast<void*>(ptr);
}

void Simulator::releaseNow(Allocation* allocation, const std::string& freedBy) {
    accesses.erase(allocation->begin, allocation->bytes);
    switch (allocation->kind) {
        case MemoryKind::Device:
        case MemoryKind::Managed:
            --count(Counter::live_device);
            count(Counter::live_device_bytes) -= allocation->bytes;
            devices_[allocation->device].usedBytes -= allocation->bytes;
            break;
        case MemoryKind::Pinned:
            --count(Counter::live_pinned);
            count(Counter::live_pinned_bytes) -= allocation->bytes;
            break;
        case MemoryKind::Registered:
            --count(Counter::live_registrations);
            break;
    }
    memory.release(allocation, freedBy);
}

cudaError_t Simulator::freeMemory(
        Allocation* allocation,
        const std::string& what,
        const void* caller,
        Lock& lock) {
    auto conflicts = accesses.unordered(
            allocation->begin, allocation->bytes, host().clock);
    if (devices_[allocation->device].sticky != cudaSuccess) {
        conflicts.clear(); // a poisoned device touches nothing any more
    }
    bool waits = settings.freePolicy == 1 ||
                 (settings.freePolicy == 0 && calledByFaiss(caller));
    auto* begin = reinterpret_cast<void*>(allocation->begin);
    if (!waits && conflicts.empty() && !allocation->anyWritten &&
        allocation->onDevice() &&
        moduleOf(caller).compare(0, 12, "libfaiss_ext") == 0) {
        // Memory that nobody has used is freed for the wait alone, which is
        // CUDA's own whatever other memory's owner does.
        const auto error = waitForDevice(
                Counter::waits_free, allocation->device, what, lock);
        allocation = memory.find(begin);
        if (!allocation) {
            return cudaErrorInvalidValue;
        }
        releaseNow(allocation, what);
        return error;
    }
    if (!waits && !conflicts.empty()) {
        report(CUDA_SIM_REPORT_FREE_IN_USE,
               "free in use: " + what + " of " + describe(*allocation) +
                       ", call " + std::to_string(thisThread().sequence) +
                       " from " + describeCaller(caller) +
                       "\n  not known to be complete: " +
                       cuda_sim::describe(*conflicts.front().other));
    }
    cudaError_t result = cudaSuccess;
    if (waits || !conflicts.empty()) {
        // Also after a report, so that one mistake is reported once.
        for (int i = 0; i < settings.deviceCount; ++i) {
            // One wait to count, whatever the number of devices.
            count(Counter::waits_free) -= i > 0;
            auto error = waitForDevice(Counter::waits_free, i, what, lock);
            if (error == cudaErrorLaunchTimeout) {
                return error;
            }
            result = result == cudaSuccess ? error : result;
        }
        // The lock was open during the wait.
        allocation = memory.find(begin);
        if (!allocation ||
            allocation->begin != reinterpret_cast<uintptr_t>(begin)) {
            return cudaErrorInvalidValue;
        }
    } else {
        ++count(Counter::waits_free);
    }
    releaseNow(
            allocation,
            what + ", call " + std::to_string(thisThread().sequence) +
                    " from " + describeCaller(caller));
    return result;
}

} // namespace cuda_sim
