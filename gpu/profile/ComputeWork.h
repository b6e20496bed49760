#pragma once

namespace faiss_ext {
namespace gpu {

/// What the GPU has to do at the least, by whatever kernels: each array that is
/// needed read or written once, and the operations that no way around is known
/// for. The rest, such as scratch memory and sorting, is not in it; so the time
/// that it takes (floorSeconds) is less than any that is measured, unless the
/// GPU's cache still holds what is read.
struct ComputeWork {
    /// Multiplications and additions of half-precision products, on tensor
    /// cores.
    double tensorOperations = 0;
    /// Float32 instructions of a thread; a fused multiply-add is one.
    double floatInstructions = 0;
    /// To and from GPU memory.
    double bytes = 0;

    /// Of which queries, where all of them are counted above.
    enum class Of {
        All,
        /// But for the last path's, some of which were out of range before any
        /// filter.
        Filtered,
        /// What QueryPaths::widened are of all.
        Widened,
        /// What QueryPaths::last are of all.
        Last,
    };
    Of of = Of::All;

    /// Nothing is known of what it takes at the least.
    bool unknown() const {
        return tensorOperations == 0 && floatInstructions == 0 && bytes == 0;
    }
};

/// A stage of a computation: what was enqueued since the stage before.
struct ComputePart {
    /// Lives for ever.
    const char* name;
    ComputeWork work = {};
    /// Of several of one name, from 1 on; 0: of the only one.
    int number = 0;
};

} // namespace gpu
} // namespace faiss_ext
