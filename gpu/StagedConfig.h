#pragma once

#include <cstddef>
#include <cstdint>

namespace faiss_ext {
namespace gpu {

/// How one index moves data. 0 means: choose.
struct StagedConfig {
    /// Upper bound, in bytes, of the pinned host memory that this index
    /// allocates beyond the buffer of Faiss' resources. 0: 256 MiB. Nothing is
    /// allocated before it is needed.
    size_t pinnedBytes = 0;

    /// Largest number of queries in one tile. 0: as many as make tiles of about
    /// 16 MiB. Searches that transfer no more than one tile are not cut.
    int64_t tileRows = 0;

    /// How many tiles are under way at once, 2 or more. 0: 3.
    int pipelineDepth = 0;
};

} // namespace gpu
} // namespace faiss_ext
