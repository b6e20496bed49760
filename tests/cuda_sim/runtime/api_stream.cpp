// Streams, events, host functions.

#include "Call.h"

using namespace cuda_sim;

namespace {

cudaError_t createStream(cudaStream_t* stream, unsigned flags, int priority) {
    if (!stream || (flags & ~unsigned(cudaStreamNonBlocking))) {
        return cudaErrorInvalidValue;
    }
    auto& s = sim();
    *stream = s.handleOf(s.createStream(thisThread().device, flags, priority));
    ++s.count(Counter::streams_created);
    ++s.count(Counter::live_streams);
    return cudaSuccess;
}

cudaError_t createEvent(cudaEvent_t* event, unsigned flags) {
    if (!event || (flags & ~7u)) {
        return cudaErrorInvalidValue;
    }
    auto& s = sim();
    *event = reinterpret_cast<cudaEvent_t>(s.createEvent(flags));
    ++s.count(Counter::events_created);
    ++s.count(Counter::live_events);
    return cudaSuccess;
}

cudaError_t record(Call& call, cudaEvent_t handle, cudaStream_t streamHandle) {
    auto& s = sim();
    auto* event = s.resolveEvent(handle, call.name().c_str());
    auto* stream =
            event ? s.resolve(streamHandle, call.name().c_str()) : nullptr;
    if (!stream) {
        return cudaErrorInvalidResourceHandle;
    }
    if (event->device != stream->device) {
        s.report(
                CUDA_SIM_REPORT_BAD_HANDLE,
                "bad handle: event " + std::to_string(event->ordinal) +
                        " of device " + std::to_string(event->device) +
                        " recorded on " + stream->name() + "\n  from " +
                        describeCaller(thisThread().caller));
        return cudaErrorInvalidResourceHandle;
    }
    if (const auto error = s.captures.errorOfUse(stream)) {
        return error;
    }
    ++s.count(Counter::event_records);
    event->capture = stream->capture;
    event->captured = stream->captured;
    if (stream->capture) {
        return cudaSuccess;
    }
    auto operation = s.makeOperation(
            stream,
            "cudaEventRecord of event " + std::to_string(event->ordinal));
    s.scheduler.enqueue(stream, operation);
    event->record = operation;
    return cudaSuccess;
}

/// What a query does: lets the device make one step of progress, and looks.
cudaError_t query(Call& call, const std::vector<OperationPtr>& targets) {
    auto& s = sim();
    ++s.count(Counter::queries);
    auto firstOpen = [&]() -> OperationPtr {
        for (auto& target : targets) {
            if (target && !target->done()) {
                return target;
            }
        }
        return nullptr;
    };
    if (auto open = firstOpen()) {
        s.scheduler.stepOnce(open, call.lock);
    }
    auto sticky = s.device(thisThread().device).sticky;
    if (sticky != cudaSuccess) {
        return sticky;
    }
    if (firstOpen()) {
        return cudaErrorNotReady;
    }
    for (auto& target : targets) {
        if (target) {
            s.learn(target->clock);
            s.scheduler.hostSaw(target);
        }
    }
    return cudaSuccess;
}

cudaError_t launchHostFunction(
        Call& call, cudaStream_t handle, std::function<void()> function) {
    auto& s = sim();
    auto* stream = s.resolve(handle, call.name().c_str());
    if (!stream) {
        return cudaErrorInvalidResourceHandle;
    }
    if (const auto error = s.captures.errorOfUse(stream)) {
        return error;
    }
    if (stream->capture) {
        Captures::add(stream, [function](Call& replay, cudaStream_t on) {
            return launchHostFunction(replay, on, function);
        });
        return cudaSuccess;
    }
    ++s.count(Counter::host_functions);
    auto operation = s.makeOperation(stream, call.name());
    operation->hostFunction = true;
    operation->step = [function] {
        function();
        return true;
    };
    s.scheduler.enqueue(stream, operation);
    return cudaSuccess;
}

} // namespace

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(createStream(stream, cudaStreamDefault, 0));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(createStream(stream, flags, 0));
}

cudaError_t cudaStreamCreateWithPriority(
        cudaStream_t* stream, unsigned flags, int priority) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(createStream(stream, flags, priority));
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    CUDA_SIM_CALL(Call::Releases);
    auto& s = sim();
    if (!handle || handle == cudaStreamLegacy ||
        handle == cudaStreamPerThread) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    auto* stream = s.resolve(handle, "cudaStreamDestroy");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    // Legal with work pending, which still runs.
    --s.count(Counter::live_streams);
    s.destroyStream(stream);
    return call.done(cudaSuccess);
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamGetFlags");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    *flags = stream->flags;
    return call.done(cudaSuccess);
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamGetPriority");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    *priority = stream->priority;
    return call.done(cudaSuccess);
}

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int* device) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamGetDevice");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    *device = stream->device;
    return call.done(cudaSuccess);
}

cudaError_t cudaStreamGetId(cudaStream_t handle, unsigned long long* id) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamGetId");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    *id = stream->timeline;
    return call.done(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    CUDA_SIM_CALL(Call::Unsafe);
    auto& s = sim();
    auto* stream = s.resolve(handle, "cudaStreamSynchronize");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (const auto error = s.captures.errorOfWait(stream)) {
        return call.done(error);
    }
    return call.done(s.waitForStream(Counter::waits_stream, stream, call.lock));
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    CUDA_SIM_CALL(Call::Unsafe);
    auto* stream = sim().resolve(handle, "cudaStreamQuery");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (const auto error = sim().captures.errorOfWait(stream)) {
        return call.done(error);
    }
    std::vector<OperationPtr> targets{stream->last};
    if (stream->legacy) {
        for (auto* other : sim().streamsOf(stream->device)) {
            if (other->blocking()) {
                targets.push_back(other->last);
            }
        }
    }
    return call.done(query(call, targets));
}

cudaError_t cudaStreamWaitEvent(
        cudaStream_t streamHandle, cudaEvent_t handle, unsigned flags) {
    CUDA_SIM_CALL(Call::Normal);
    auto& s = sim();
    if (flags & ~1u) {
        return call.done(cudaErrorInvalidValue);
    }
    auto* stream = s.resolve(streamHandle, "cudaStreamWaitEvent");
    auto* event =
            stream ? s.resolveEvent(handle, "cudaStreamWaitEvent") : nullptr;
    if (!event) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (event->capture) {
        return call.done(
                s.captures.join(stream, event->capture, event->captured));
    }
    if (const auto error = s.captures.errorOfUse(stream)) {
        return call.done(error);
    }
    if (stream->capture) {
        // What a graph would wait for lies outside of it.
        if (event->record) {
            stream->capture->valid = false;
            return call.done(cudaErrorStreamCaptureIsolation);
        }
        return call.done(cudaSuccess);
    }
    ++s.count(Counter::event_waits);
    if (event->record) {
        // Bound to this record; a later one does not matter.
        s.scheduler.enqueue(
                stream,
                s.makeOperation(
                        stream,
                        "cudaStreamWaitEvent of event " +
                                std::to_string(event->ordinal),
                        event->record));
    }
    return call.done(cudaSuccess);
}

cudaError_t cudaStreamAddCallback(
        cudaStream_t stream,
        cudaStreamCallback_t callback,
        void* data,
        unsigned) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(launchHostFunction(
            call, stream, [=] { callback(stream, cudaSuccess, data); }));
}

cudaError_t cudaLaunchHostFunc(
        cudaStream_t stream, cudaHostFn_t function, void* data) {
    CUDA_SIM_CALL(Call::Normal);
    if (!function) {
        return call.done(cudaErrorInvalidValue);
    }
    return call.done(launchHostFunction(call, stream, [=] { function(data); }));
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(createEvent(event, cudaEventDefault));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(createEvent(event, flags));
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    CUDA_SIM_CALL(Call::Releases);
    auto& s = sim();
    auto* event = s.resolveEvent(handle, "cudaEventDestroy");
    if (!event) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    --s.count(Counter::live_events);
    s.destroyEvent(event);
    return call.done(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(record(call, event, stream));
}

cudaError_t cudaEventRecordWithFlags(
        cudaEvent_t event, cudaStream_t stream, unsigned) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(record(call, event, stream));
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
    CUDA_SIM_CALL(Call::Unsafe);
    auto* event = sim().resolveEvent(handle, "cudaEventQuery");
    if (!event) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (const auto error = Captures::errorOfWait(event->capture)) {
        return call.done(error);
    }
    return call.done(query(call, {event->record}));
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    CUDA_SIM_CALL(Call::Unsafe);
    auto& s = sim();
    auto* event = s.resolveEvent(handle, "cudaEventSynchronize");
    if (!event) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (const auto error = Captures::errorOfWait(event->capture)) {
        return call.done(error);
    }
    // A copy: the event may be recorded again or destroyed meanwhile.
    OperationPtr target = event->record;
    return call.done(s.wait(
            Counter::waits_event,
            {target},
            target ? target->stream->device : event->device,
            "synchronisation with event " + std::to_string(event->ordinal),
            call.lock));
}

cudaError_t cudaEventElapsedTime(
        float* ms, cudaEvent_t startHandle, cudaEvent_t endHandle) {
    CUDA_SIM_CALL(Call::Normal);
    auto* start = sim().resolveEvent(startHandle, "cudaEventElapsedTime");
    auto* end = start ? sim().resolveEvent(endHandle, "cudaEventElapsedTime")
                      : nullptr;
    if (!end || !start->record || !end->record ||
        start->device != end->device ||
        ((start->flags | end->flags) & cudaEventDisableTiming)) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (!start->record->done() || !end->record->done()) {
        return call.done(cudaErrorNotReady);
    }
    *ms = (static_cast<double>(end->record->doneAt) -
           static_cast<double>(start->record->doneAt)) /
          1e6;
    return call.done(cudaSuccess);
}

} // extern "C"
