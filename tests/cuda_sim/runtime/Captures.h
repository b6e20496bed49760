// Stream capture: work that goes into a graph instead of onto a stream, and
// what no thread may do meanwhile.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace cuda_sim {

class Call;
struct Stream;
struct ThreadState;

/// What was captured: each node is the call that enqueues it. They are replayed
/// in the order of capture, which their dependencies allow.
struct Graph {
    using Node = std::function<cudaError_t(Call& call, cudaStream_t stream)>;
    std::vector<Node> nodes;
};

/// Nodes, by their numbers.
using NodeSet = std::set<size_t>;

/// One sequence from cudaStreamBeginCapture to cudaStreamEndCapture.
struct Capture {
    uint64_t id = 0;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    /// Who began it, and on which stream.
    const ThreadState* thread = nullptr;
    Stream* origin = nullptr;
    /// That stream, and those that joined by an event.
    std::set<Stream*> streams;
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    bool valid = true;
    bool ended = false;
};

using CapturePtr = std::shared_ptr<Capture>;

/// The captures of a process. Guarded by the simulator's mutex.
class Captures {
   public:
    /// Whether a potentially unsafe call of this thread is prohibited: by its
    /// own capture, or by anybody's in the mode "global", unless its mode says
    /// that it knows what it does. Invalidates these captures.
    bool refusesUnsafeCall();

    /// Whether the device as a whole may not be waited for: while any of its
    /// streams captures, whatever the mode. Invalidates these captures.
    bool refusesWaitForDevice(int device);

    /// The error of work given to a stream; cudaSuccess where it may be
    /// enqueued or, if the stream captures, captured.
    cudaError_t errorOfUse(Stream* stream);

    /// The error of asking a stream how far it is, or of waiting for it.
    cudaError_t errorOfWait(Stream* stream);

    /// The error of the same for an event that was recorded in a capture.
    static cudaError_t errorOfWait(const CapturePtr& ofEvent);

    /// Whether a stream that joins the legacy default stream captures.
    bool coversLegacy(const Stream* stream) const;

    cudaError_t begin(Stream* stream, cudaStreamCaptureMode mode);
    cudaError_t end(Stream* stream, std::shared_ptr<Graph>* graph);

    /// A node behind what the stream has captured.
    static void add(Stream* stream, Graph::Node node);

    /// The stream goes on behind an event of a capture, which it joins.
    cudaError_t join(
            Stream* stream, const CapturePtr& capture, const NodeSet& nodes);

    /// A stream of a capture is destroyed.
    static void leave(Stream* stream);

    void reset();

   private:
    static void invalidate(const CapturePtr& capture);
    void finish(const CapturePtr& capture);
    bool invalidateOnLegacy(const Stream* stream);

    std::vector<CapturePtr> open_;
    uint64_t last_ = 0;
};

} // namespace cuda_sim
