#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>
#include <vector>

#include <faiss_ext/gpu/StageRecorder.h>

namespace faiss_ext {
namespace gpu {

/// One stretch of host memory to copy to another.
struct HostCopy {
    void* destination;
    const void* source;
    size_t bytes;
};

/// Copies between host memories that take their place in a stream's order,
/// run by CUDA's own thread: so a search of many tiles into pageable memory is
/// enqueued as a whole and its caller waits once, for the last of them.
///
/// One object serves one stream and one search after another. `reset` before a
/// search; the copies are valid until the next `reset`.
class HostCopies {
   public:
    /// Forgets the copies of the last search and makes room for those of
    /// `steps` tiles. None of the old ones may still be enqueued.
    void reset(size_t steps);

    /// Adds `pieces` as one step and enqueues it on `stream`. The memory must
    /// stay until the step is done. `timed`, if given, is set to when the step
    /// was under way. Throws CudaError.
    void enqueue(
            std::vector<HostCopy>&& pieces,
            cudaStream_t stream,
            HostInterval* timed);

    /// No step that has not begun touches memory any more, and none is under
    /// way when this returns: for a caller that gives up on a failed stream.
    void abandon();

   private:
    struct Step {
        HostCopies* owner;
        std::vector<HostCopy> pieces;
        HostInterval* timed;
    };

    static void CUDART_CB runStep(void* step);

    std::mutex mutex_;
    bool abandoned_ = false;
    // Reserved by reset, so that the addresses handed to CUDA stay valid.
    std::vector<Step> steps_;
};

} // namespace gpu
} // namespace faiss_ext
