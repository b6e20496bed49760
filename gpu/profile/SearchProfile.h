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

/// One stage of what is computed for one tile, or a part of it: the kernels of
/// the exact engine that do one thing. Lies within a span of Stage::Compute.
struct ComputeSpan {
    /// "normalise queries" (cosine), "prepare index", "copy vectors", "prepare
    /// queries", "sample scores",
    /// "first cut", "filter 1", "select 1", "filter 2" and so on, "second
    /// filter", "second select", "last path", "write results"; where cuBLAS
    /// makes scores "scores", "filter" and "select", without numbers; of a scan
    /// "scan cut", "scan" or "tensor scan", "scan results".
    std::string name;
    Lane lane = Lane::DefaultStream;
    int64_t tile = -1;
    /// Seconds since the call began. The first of a tile begins with it, each
    /// other one where the former ends: where nothing is launched in time, that
    /// is in it.
    double begin = 0;
    double end = 0;
};

/// All spans of one name.
struct ComputeStage {
    std::string name;
    int64_t spans = 0;
    double seconds = 0;
    /// Seconds that the GPU needs for it at the least (docs/architecture.md,
    /// "Where times are taken"); floor / seconds is its fraction of the
    /// roofline. -1: not known, for this stage or this GPU.
    double floor = -1;
};

/// The queries of a search by the exact engine, as TransferStats has them.
struct QueryPaths {
    /// False where Faiss' kernels searched, or where there was no pinned memory
    /// for the counts.
    bool counted = false;
    int64_t certified = 0;
    int64_t widened = 0;
    int64_t last = 0;
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

    // Of a search by the exact engine; Faiss' kernels leave all of this as it
    // is.

    /// Its stages, in their order, and their times by name. (What
    /// Stage::Compute has beyond them is the end of the computation.)
    std::vector<ComputeSpan> computeSpans;
    std::vector<ComputeStage> computeStages;

    /// How it computed, in words: a line for each size of its tiles.
    std::string computePlan;

    QueryPaths paths;

    /// Seconds that the GPU needs for the search at the least, by the best way
    /// that there may be: every pair of query and vector by tensor cores, or
    /// all arrays once through its memory, whichever takes longer. -1: not
    /// known.
    double floor = -1;

    /// The GPU's peaks, of which floors are made, or why they are not known.
    std::string peaks;

    /// How long a stage was under way; parts that run side by side count once.
    /// Stages overlap, so these add up to more than `seconds` where copies are
    /// hidden behind the kernels.
    double secondsIn(Stage stage) const;

    /// floor / secondsIn(Stage::Compute): what part of the time the GPU needs
    /// in any case; more than 1 where its cache holds a small store; -1: not
    /// known.
    double roofline() const;
};

} // namespace gpu
} // namespace faiss_ext
