#pragma once

#include <cstddef>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// Which rows of a call each of its streams computes; pure arithmetic.
class FAISS_EXT_API ComputeTurns {
   public:
    /// Rows of a tile that one stream computes, counted from the tile's first.
    struct Part {
        size_t stream;
        idx_t first;
        idx_t rows;
    };

    /// `streams` of them for n rows, in tiles of up to tileRows. A single one
    /// computes no more than that at once, should a tile be larger.
    ComputeTurns(size_t streams, idx_t n, idx_t tileRows);

    size_t streams() const {
        return streams_;
    }

    /// The next tile, of `rows` rows, cut into what each stream computes in
    /// turn. The one that has waited longest is next, so that small tiles run
    /// side by side too.
    std::vector<Part> parts(idx_t rows);

   private:
    const size_t streams_;
    /// Rows of a part, at most.
    idx_t turn_;
    size_t next_ = 0;
};

} // namespace gpu
} // namespace faiss_ext
