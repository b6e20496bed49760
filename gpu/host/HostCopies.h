#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/host/CopyTeam.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>

namespace faiss_ext {
namespace gpu {

/// Makes the host copies of one index as its config says: with how many threads
/// of the team, and cut how.
class HostCopier {
   public:
    /// Up to `threads` threads of the team, chunks of `chunkBytes` each.
    HostCopier(std::shared_ptr<CopyTeam> team, int threads, size_t chunkBytes)
            : team_(std::move(team)),
              threads_(threads),
              chunkBytes_(chunkBytes) {}

    /// Returns when the copies are made. Any number of threads may call.
    void copy(const std::vector<HostCopy>& copies) const noexcept {
        team_->copy(copies, threads_, chunkBytes_);
    }

    /// The same while the calling thread goes on; nullptr if nobody else
    /// copies.
    std::unique_ptr<CopyTeam::Ahead> copyAhead(
            std::vector<HostCopy>&& copies) const {
        return team_->copyAhead(std::move(copies), threads_, chunkBytes_);
    }

   private:
    const std::shared_ptr<CopyTeam> team_;
    const int threads_;
    const size_t chunkBytes_;
};

/// Copies between host memories that take their place in a stream's order,
/// run by CUDA's own thread and the copier's: so a search of many tiles into
/// pageable memory is enqueued as a whole and its caller waits once.
///
/// One object serves one stream and one search after another. `reset` before a
/// search; the copies are valid until the next `reset`.
class HostCopies {
   public:
    explicit HostCopies(const HostCopier& copier) : copier_(copier) {}

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

    const HostCopier copier_;
    std::mutex mutex_;
    // Under mutex_ while steps are enqueued.
    bool abandoned_ = false;
    // Reserved by reset, so that the addresses handed to CUDA stay valid.
    std::vector<Step> steps_;
};

} // namespace gpu
} // namespace faiss_ext
