#include "Captures.h"

#include <algorithm>
#include <utility>

#include "Simulator.h"

namespace cuda_sim {

void Captures::invalidate(const CapturePtr& capture) {
    capture->valid = false;
}

bool Captures::refusesUnsafeCall() {
    const auto& thread = thisThread();
    if (thread.captureMode == cudaStreamCaptureModeRelaxed) {
        return false;
    }
    bool refused = false;
    for (auto& capture : open_) {
        const bool own = capture->thread == &thread &&
                         capture->mode != cudaStreamCaptureModeRelaxed;
        const bool others = capture->thread != &thread &&
                            capture->mode == cudaStreamCaptureModeGlobal &&
                            thread.captureMode == cudaStreamCaptureModeGlobal;
        if (own || others) {
            invalidate(capture);
            refused = true;
        }
    }
    return refused;
}

bool Captures::refusesWaitForDevice(int device) {
    bool refused = false;
    for (auto& capture : open_) {
        for (auto* stream : capture->streams) {
            if (stream->device == device) {
                invalidate(capture);
                refused = true;
                break;
            }
        }
    }
    return refused;
}

bool Captures::coversLegacy(const Stream* stream) const {
    return stream->legacy &&
           std::any_of(
                   open_.begin(), open_.end(), [&](const CapturePtr& capture) {
                       return std::any_of(
                               capture->streams.begin(),
                               capture->streams.end(),
                               [&](const Stream* one) {
                                   return one->device == stream->device &&
                                          one->blocking();
                               });
                   });
}

bool Captures::invalidateOnLegacy(const Stream* stream) {
    if (!coversLegacy(stream)) {
        return false;
    }
    for (auto& capture : open_) {
        for (auto* one : capture->streams) {
            if (one->device == stream->device && one->blocking()) {
                invalidate(capture);
            }
        }
    }
    return true;
}

cudaError_t Captures::errorOfUse(Stream* stream) {
    if (invalidateOnLegacy(stream)) {
        return cudaErrorStreamCaptureImplicit;
    }
    return stream->capture && !stream->capture->valid
                   ? cudaErrorStreamCaptureInvalidated
                   : cudaSuccess;
}

cudaError_t Captures::errorOfWait(Stream* stream) {
    if (invalidateOnLegacy(stream)) {
        return cudaErrorStreamCaptureImplicit;
    }
    if (!stream->capture) {
        return cudaSuccess;
    }
    invalidate(stream->capture);
    return cudaErrorStreamCaptureUnsupported;
}

cudaError_t Captures::errorOfWait(const CapturePtr& ofEvent) {
    if (!ofEvent) {
        return cudaSuccess;
    }
    invalidate(ofEvent);
    return cudaErrorCapturedEvent;
}

cudaError_t Captures::begin(Stream* stream, cudaStreamCaptureMode mode) {
    if (invalidateOnLegacy(stream)) {
        return cudaErrorStreamCaptureImplicit;
    }
    if (stream->legacy) {
        return cudaErrorStreamCaptureUnsupported;
    }
    if (stream->capture) {
        return cudaErrorIllegalState;
    }
    auto capture = std::make_shared<Capture>();
    capture->id = ++last_;
    capture->mode = mode;
    capture->thread = &thisThread();
    capture->origin = stream;
    capture->streams.insert(stream);
    stream->capture = capture;
    stream->captured.clear();
    open_.push_back(capture);
    return cudaSuccess;
}

cudaError_t Captures::end(Stream* stream, std::shared_ptr<Graph>* graph) {
    const CapturePtr capture = stream->capture;
    if (!capture) {
        return cudaErrorIllegalState;
    }
    if (capture->origin != stream) {
        invalidate(capture);
        return cudaErrorStreamCaptureUnmatched;
    }
    const bool joined = stream->captured.size() == capture->graph->nodes.size();
    finish(capture);
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        capture->thread != &thisThread()) {
        return cudaErrorStreamCaptureWrongThread;
    }
    if (!capture->valid) {
        return cudaErrorStreamCaptureInvalidated;
    }
    if (!joined) {
        return cudaErrorStreamCaptureUnjoined;
    }
    *graph = capture->graph;
    return cudaSuccess;
}

void Captures::finish(const CapturePtr& capture) {
    capture->ended = true;
    for (auto* stream : capture->streams) {
        stream->capture.reset();
        stream->captured.clear();
    }
    capture->streams.clear();
    open_.erase(std::find(open_.begin(), open_.end(), capture));
}

void Captures::add(Stream* stream, Graph::Node node) {
    auto& nodes = stream->capture->graph->nodes;
    stream->captured.insert(nodes.size());
    nodes.push_back(std::move(node));
}

cudaError_t Captures::join(
        Stream* stream, const CapturePtr& capture, const NodeSet& nodes) {
    if (const auto error = errorOfUse(stream)) {
        return error;
    }
    if (capture->ended) {
        return cudaErrorCapturedEvent;
    }
    if (!capture->valid) {
        return cudaErrorStreamCaptureInvalidated;
    }
    if (stream->capture && stream->capture != capture) {
        invalidate(capture);
        invalidate(stream->capture);
        return cudaErrorStreamCaptureMerge;
    }
    if (stream->legacy) {
        return cudaErrorStreamCaptureImplicit;
    }
    stream->capture = capture;
    capture->streams.insert(stream);
    stream->captured.insert(nodes.begin(), nodes.end());
    return cudaSuccess;
}

void Captures::leave(Stream* stream) {
    if (stream->capture) {
        invalidate(stream->capture);
        stream->capture->streams.erase(stream);
        stream->capture.reset();
    }
}

void Captures::reset() {
    while (!open_.empty()) {
        finish(open_.back());
    }
}

} // namespace cuda_sim
