#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// What a search spends its time on.
enum class Stage {
    /// The host copies pageable queries into pinned memory.
    HostRead,
    /// The GPU copies queries into its memory.
    Upload,
    /// Faiss' kernels.
    Compute,
    /// The GPU copies results out of its memory.
    CopyBack,
    /// The host copies results from pinned memory into the caller's arrays.
    HostCopy,
    /// The calling thread waits for the GPU, whatever that does meanwhile; of a
    /// tile, for its queries, which the copy threads read ahead, with its help.
    Wait,
};

/// "host read", "upload", "compute", "copy-back", "host copy" or "wait".
FAISS_EXT_API const char* nameOf(Stage stage) noexcept;

/// In whose order something happens. Host functions are run by a thread of
/// CUDA, and belong to the stream that they stand in.
enum class Lane {
    CallingThread,
    /// The threads that copy between host memories.
    CopyThreads,
    UploadStream,
    DefaultStream,
    CopyStream,
    /// The first of several on which parts of a search are computed side by
    /// side.
    ComputeStream1,
};

constexpr int kMostComputeStreams = 8;

/// The stream of number i, 0 to kMostComputeStreams - 1.
constexpr Lane computeStream(int i) {
    return static_cast<Lane>(static_cast<int>(Lane::ComputeStream1) + i);
}

/// "calling thread", "copy threads", "upload stream", "default stream", "copy
/// stream", or "compute stream 1" to "compute stream 8".
FAISS_EXT_API const char* nameOf(Lane lane) noexcept;

/// One stage of one tile.
struct StageSpan {
    Stage stage = Stage::Compute;
    Lane lane = Lane::DefaultStream;
    /// 0 to tiles - 1; -1 for what belongs to several.
    int64_t tile = -1;
    /// What it moved; 0 for Compute and Wait.
    uint64_t bytes = 0;
    /// Seconds since the call began.
    double begin = 0;
    double end = 0;
};

/// Where the time of one search went.
///
/// What the GPU does is timed by CUDA events round it on its stream, behind
/// whatever it has to wait for: waiting and copying are told apart. An event
/// resolves about half a microsecond, and the time between two includes what
/// the GPU needs to begin. What the host does is timed by its steady clock.
struct FAISS_EXT_API SearchProfile {
    /// In the order in which they begin. Those of one lane do not overlap.
    std::vector<StageSpan> spans;

    /// From the call to the moment when its outputs are complete, wherever they
    /// lie. Where it began anew for want of GPU memory, all of this is of the
    /// last attempt. (TransferStats count what each has moved.)
    double seconds = 0;

    /// The clocks of the host and of the GPU may be apart by so many seconds:
    /// how exactly spans of the host lie beside those of the GPU.
    double clockError = 0;

    /// Arrays on the index's GPU are one tile, which may be computed in parts.
    int64_t tiles = 0;

    /// How it was done, in words (CallPlan::text).
    std::string plan;

    /// How long a stage was under way; parts that run side by side count once.
    /// Stages overlap, so these add up to more than `seconds` where copies are
    /// hidden behind the kernels.
    double secondsIn(Stage stage) const;
};

} // namespace gpu
} // namespace faiss_ext
