#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/NvtxRange.h>
#include <faiss_ext/gpu/host/CopyTeam.h>
#include <faiss_ext/gpu/profile/ComputeWork.h>
#include <faiss_ext/gpu/profile/Roofline.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

/// Collects the times of one call after another for SearchProfile. Costs two
/// events for each stage of a tile, and one for each of its parts; they are
/// kept for the next call.
///
/// Life: `start`, the stages of a call, `finish` once all of them are done. A
/// call that fails in between leaves nothing to clean up. Not thread-safe.
class FAISS_EXT_API StageRecorder {
   public:
    /// Begins a call. Finds where the clocks of host and GPU meet, by events on
    /// `stream` that `wait` waits for; so the stream has nothing left to do.
    /// Throws CudaError.
    void start(
            cudaStream_t stream, const std::function<void(const Event&)>& wait);

    /// Around what is enqueued on `stream`, of the current device. The times of
    /// `what` are set by `finish`. Throws CudaError.
    void begin(const StageSpan& what, cudaStream_t stream);
    void end(cudaStream_t stream);

    /// A stage of the host: whoever does it sets the interval, before `finish`.
    /// The address is valid until the next `start`.
    HostInterval* onHost(const StageSpan& what);

    /// Within a stage that has begun on `stream`: what was enqueued there since
    /// then, or since the part before, is `part`. One event. Throws CudaError.
    void endPart(const ComputePart& part, cudaStream_t stream);

    /// How a part of the call is computed, in words; what was said before is
    /// not said again.
    void computedBy(const std::string& plan);

    /// Whose increase from the first such call on, before anything is enqueued
    /// that counts, to `finish` are the call's paths.
    void countBy(const std::function<QueryPaths()>& paths);

    /// The profile of the call, which ends now; all that was recorded is done.
    /// `least`: of all of it. Throws CudaError.
    SearchProfile finish(
            int64_t tiles, const ComputeWork& least, const GpuPeaks& peaks);

   private:
    struct Entry {
        StageSpan what;
        // Of a stream; nullptr: of the host.
        const TimingEvent* begin = nullptr;
        const TimingEvent* end = nullptr;
        HostInterval host;
    };

    struct Part {
        ComputePart what;
        Lane lane;
        int64_t tile;
        const TimingEvent* begin;
        const TimingEvent* end;
    };

    TimingEvent& nextEvent();
    double secondsOf(const TimingEvent& event) const;

    // Deques: addresses stay as they grow.
    std::deque<TimingEvent> events_;
    size_t eventsUsed_ = 0;
    std::deque<Entry> entries_;
    std::vector<Part> parts_;
    /// Of the stage that has begun on a stream, or of its last part.
    const TimingEvent* last_ = nullptr;
    std::vector<std::string> plans_;
    std::function<QueryPaths()> counted_;
    QueryPaths countedBefore_;

    /// An event, and the host's time at which the GPU reached it, give or take
    /// clockError_.
    const TimingEvent* origin_ = nullptr;
    HostInterval::Clock::time_point originOnHost_;
    double clockError_ = 0;
    HostInterval::Clock::time_point callBegan_;
};

/// Runs `work`, which enqueues a stage on `stream`: as a range for NVIDIA's
/// tools, and between two events if there is a recorder.
template <typename Work>
void stageOnStream(
        StageRecorder* recorder,
        const StageSpan& what,
        cudaStream_t stream,
        const Work& work) {
    NvtxRange range(nameOf(what.stage), what.tile);
    if (!recorder) {
        work();
        return;
    }
    recorder->begin(what, stream);
    work();
    recorder->end(stream);
}

/// Ends a part of what a stage computes, if there is a recorder.
inline void endPart(
        StageRecorder* recorder, const ComputePart& part, cudaStream_t stream) {
    if (recorder) {
        recorder->endPart(part, stream);
    }
}

/// Runs `work`, a stage of the calling thread, in the same way.
template <typename Work>
void stageOnHost(
        StageRecorder* recorder, const StageSpan& what, const Work& work) {
    NvtxRange range(nameOf(what.stage), what.tile);
    if (!recorder) {
        work();
        return;
    }
    HostInterval* interval = recorder->onHost(what);
    interval->begin = HostInterval::Clock::now();
    work();
    interval->end = HostInterval::Clock::now();
}

} // namespace gpu
} // namespace faiss_ext
