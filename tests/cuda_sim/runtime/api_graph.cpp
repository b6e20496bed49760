// Stream capture, and graphs that come of it.

#include "Call.h"

using namespace cuda_sim;

namespace {

/// By their handles. A graph that was instantiated may be destroyed.
using Graphs = std::unordered_map<const void*, std::shared_ptr<Graph>>;

Graphs& graphs() {
    static auto* all = new Graphs;
    return *all;
}

/// How many handles there were.
uintptr_t handles = 0;

template <typename Handle>
Handle handleFor(const std::shared_ptr<Graph>& graph) {
    // A number of its own, also after others were destroyed; no address.
    const auto handle = reinterpret_cast<Handle>(++handles);
    graphs()[handle] = graph;
    return handle;
}

std::shared_ptr<Graph> find(const void* handle) {
    auto it = graphs().find(handle);
    return it == graphs().end() ? nullptr : it->second;
}

cudaError_t destroy(const void* handle) {
    return graphs().erase(handle) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t instantiate(cudaGraphExec_t* exec, cudaGraph_t handle) {
    const auto graph = find(handle);
    if (!exec || !graph) {
        return cudaErrorInvalidValue;
    }
    *exec = handleFor<cudaGraphExec_t>(graph);
    return cudaSuccess;
}

cudaError_t enqueue(Call& call, const Graph& graph, cudaStream_t stream) {
    for (auto& node : graph.nodes) {
        if (const auto error = node(call, stream)) {
            return error;
        }
    }
    return cudaSuccess;
}

cudaStreamCaptureStatus statusOf(const Stream* stream) {
    return !stream->capture         ? cudaStreamCaptureStatusNone
           : stream->capture->valid ? cudaStreamCaptureStatusActive
                                    : cudaStreamCaptureStatusInvalidated;
}

} // namespace

extern "C" {

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    CUDA_SIM_CALL(Call::Harmless);
    if (!mode || *mode < cudaStreamCaptureModeGlobal ||
        *mode > cudaStreamCaptureModeRelaxed) {
        return call.done(cudaErrorInvalidValue);
    }
    std::swap(*mode, thisThread().captureMode);
    return call.done(cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(
        cudaStream_t handle, cudaStreamCaptureMode mode) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamBeginCapture");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    return call.done(sim().captures.begin(stream, mode));
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamEndCapture");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    *graph = nullptr;
    std::shared_ptr<Graph> captured;
    const auto error = sim().captures.end(stream, &captured);
    if (error == cudaSuccess) {
        *graph = handleFor<cudaGraph_t>(captured);
    }
    return call.done(error);
}

cudaError_t cudaStreamIsCapturing(
        cudaStream_t handle, cudaStreamCaptureStatus* status) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamIsCapturing");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (sim().captures.coversLegacy(stream)) {
        return call.done(cudaErrorStreamCaptureImplicit);
    }
    *status = statusOf(stream);
    return call.done(cudaSuccess);
}

// Its parameters differ between versions of CUDA; the first three do not.
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(
        cudaStream_t handle,
        cudaStreamCaptureStatus* status,
        unsigned long long* id,
        cudaGraph_t*,
        const cudaGraphNode_t**,
        const cudaGraphEdgeData**,
        size_t* dependencies) {
    CUDA_SIM_CALL(Call::Normal);
    auto* stream = sim().resolve(handle, "cudaStreamGetCaptureInfo");
    if (!stream) {
        return call.done(cudaErrorInvalidResourceHandle);
    }
    if (sim().captures.coversLegacy(stream)) {
        return call.done(cudaErrorStreamCaptureImplicit);
    }
    *status = statusOf(stream);
    if (id && stream->capture) {
        *id = stream->capture->id;
    }
    if (dependencies) {
        *dependencies = 0;
    }
    return call.done(cudaSuccess);
}
#endif

cudaError_t cudaGraphGetNodes(
        cudaGraph_t handle, cudaGraphNode_t*, size_t* count) {
    CUDA_SIM_CALL(Call::Normal);
    const auto graph = find(handle);
    if (!graph) {
        return call.done(cudaErrorInvalidValue);
    }
    *count = graph->nodes.size();
    return call.done(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(
        cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(instantiate(exec, graph));
}

cudaError_t cudaGraphInstantiateWithFlags(
        cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(instantiate(exec, graph));
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
    CUDA_SIM_CALL(Call::Normal);
    const auto graph = find(exec);
    auto* stream = graph ? sim().resolve(handle, "cudaGraphLaunch") : nullptr;
    if (!stream) {
        return call.done(cudaErrorInvalidValue);
    }
    return call.done(enqueue(call, *graph, handle));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    CUDA_SIM_CALL(Call::Releases);
    return call.done(destroy(exec));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    CUDA_SIM_CALL(Call::Releases);
    return call.done(destroy(graph));
}

} // extern "C"
