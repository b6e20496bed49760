#pragma once

#include <cstddef>
#include <limits>
#include <string>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/TilePlan.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/Computation.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// What one row of all arrays that a call reads, or of all that it writes,
/// needs, in bytes.
struct RowBytes {
    /// In a block on the GPU; 0 if every array is used where it is.
    size_t staged = 0;
    /// Of these, through pinned memory, because the array is pageable.
    size_t pinned = 0;
    /// Of these, from or to host memory.
    size_t onHost = 0;
};

/// What is asked of a call.
struct CallRequest {
    /// >= 1.
    idx_t n;
    RowBytes in;
    RowBytes out;
    const Computation& computation;
};

/// Within what it has to be done.
struct CallLimits {
    const CallConfig& config;
    /// Of the index's own pool, and of Faiss' buffer, 0 where that is too small
    /// to be of use.
    size_t pinnedBytes;
    size_t faissPinnedBytes;
    /// Of Faiss' temporary memory, what is free.
    size_t temporaryBytes;
    /// Of the GPU, about.
    double operationsPerSecond;

    /// After an attempt for which memory was short: at most so many rows at
    /// once, nothing side by side, and no memory besides Faiss' temporary one.
    bool scarce = false;
    idx_t mostRows = std::numeric_limits<idx_t>::max();
};

/// How a call runs: every choice there is, made before anything is enqueued.
/// `Call` does what stands here and decides nothing.
struct CallPlan {
    enum class Path {
        /// All arrays are used where they are: no copy, no wait.
        InPlace,
        /// All rows at once, copied on the default stream.
        OneTile,
        /// Tile by tile: uploads, computation and copy-back on streams of their
        /// own.
        Tiles,
    };
    Path path = Path::InPlace;
    TilePlan tiles;

    /// Blocks on the GPU, if there are any, are taken from Faiss' temporary
    /// memory, for one tile at a time, and not from memory that the index
    /// keeps.
    bool temporaryBlocks = true;
    /// Results are stored into pinned memory by the kernels themselves.
    bool mapped = false;

    /// Streams on which parts are computed side by side; 1: the default stream
    /// alone.
    size_t streams = 1;
    /// Scratch memory of each.
    size_t laneBytes = 0;
    /// If slices.count > 1: each computes slices of the vectors, and not parts
    /// of the rows.
    Slices slices;
    /// For what all slices of a tile find.
    size_t foundBytes = 0;

    /// Rows that are computed at once, at most.
    idx_t rowsAtOnce = 0;

    /// Some output is in host memory: the call returns when all are complete.
    bool waits = false;
    /// Seconds for each row, about; whether all take so long that interrupts
    /// are looked for; and whether a call that waits then keeps so near to the
    /// GPU that little is left when it is ended.
    double rowSeconds = 0;
    bool interruptible = false;
    bool paced = false;

    /// The results of this tile and of those after it are copied into pageable
    /// arrays by the calling thread, once it has waited, and those of the
    /// others by host functions.
    idx_t firstCopiedByCaller = 0;

    /// In one line, for profiles and for people: "10000 rows in 5 tiles of up
    /// to 5120 (3 at once), computed whole on the default stream; one wait".
    FAISS_EXT_API std::string text() const;
};

/// Pure: no CUDA, no state.
FAISS_EXT_API CallPlan
planCall(const CallRequest& request, const CallLimits& limits);

/// The limits for another attempt, where `plan` met with too little memory:
/// nothing side by side, and if that was so already, half as many rows at once.
/// False where that was of one row.
FAISS_EXT_API bool halve(CallLimits& limits, const CallPlan& plan);

} // namespace gpu
} // namespace faiss_ext
