#pragma once

#include <cstddef>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// Which rows of a call each of its lanes computes; pure arithmetic.
class FAISS_EXT_API LaneTurns {
   public:
    /// Rows of a tile that one lane computes, counted from the tile's first.
    struct Part {
        size_t lane;
        idx_t first;
        idx_t rows;
    };

    /// `lanes` of them for n rows, in tiles of up to tileRows. A single lane
    /// computes no more at once, should a tile be larger.
    LaneTurns(size_t lanes, idx_t n, idx_t tileRows);

    /// The next tile, of `rows` rows, cut into what each lane computes in turn.
    /// The lane that has waited longest is next, so that small tiles run side
    /// by side too.
    std::vector<Part> parts(idx_t rows);

   private:
    const size_t lanes_;
    /// Rows of a part, at most.
    idx_t turn_;
    size_t next_ = 0;
};

} // namespace gpu
} // namespace faiss_ext
