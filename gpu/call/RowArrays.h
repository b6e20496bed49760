#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include <faiss_ext/gpu/call/CallPlan.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>
#include <faiss_ext/gpu/host/CopyTeam.h>

namespace faiss_ext {
namespace gpu {

/// A copy that the GPU makes.
struct DeviceCopy {
    void* destination;
    MemoryPlacement to;
    const void* source;
    MemoryPlacement from;
    size_t bytes;
};

/// Where the rows of one tile lie in its staging block. What goes through
/// pinned memory lies first, without gaps, and so is one copy.
struct BlockLayout {
    static constexpr size_t kMostArrays = 4;

    idx_t rows = 0;
    /// Bytes of the block that go through pinned memory.
    size_t packedBytes = 0;
    size_t blockBytes = 0;
    /// Where each array begins.
    std::array<size_t, kMostArrays> offsets{};
};

/// The arrays that a call reads, or those that it writes: row-major, all with
/// the same number of rows. Knows how each gets to or from the index's GPU.
/// Makes no copy itself.
class RowArrays {
   public:
    enum class Direction { ToDevice, FromDevice };

    RowArrays(Direction direction, idx_t n, int device);

    /// Adds the array `name` of [n, rowBytes] bytes at `data`, up to
    /// BlockLayout::kMostArrays. nullptr: an output that is computed and
    /// dropped. Throws InvalidArray if it cannot be used, CudaError if the
    /// runtime cannot tell what it is.
    void add(const char* name, const void* data, size_t rowBytes);

    /// Throws InvalidArray if an array here shares memory with one of `other`,
    /// or with another one here if `other` is this object.
    void refuseOverlap(const RowArrays& other) const;

    /// Lets the GPU's kernels write the arrays in host memory where they are,
    /// and the pageable ones to `pinned`, from where hostCopies takes them:
    /// these need no copy by the GPU. Outputs only; managed memory is copied as
    /// before. Returns their bytes a row. Throws CudaError.
    size_t mapHost(char* pinned);

    const RowBytes& rowBytes() const {
        return rowBytes_;
    }

    /// The staging block of a tile of `rows` rows.
    BlockLayout layOut(idx_t rows) const;

    /// The host's part for the tile that begins at row `first`: between
    /// pageable arrays and `pinned`.
    std::vector<HostCopy> hostCopies(
            const BlockLayout& tile, idx_t first, char* pinned) const;

    /// The GPU's part: between `block` and what it can copy by itself.
    std::vector<DeviceCopy> deviceCopies(
            const BlockLayout& tile,
            idx_t first,
            char* block,
            char* pinned) const;

    /// Device pointers to row `within` of the tile that begins at row `first`,
    /// one for each array.
    std::array<void*, BlockLayout::kMostArrays> devicePointers(
            const BlockLayout& tile,
            idx_t first,
            char* block,
            idx_t within) const;

   private:
    /// How an array gets to or from the GPU.
    enum class Route {
        /// It lies on the index's GPU and is used where it is.
        InPlace,
        /// The GPU copies between it and a staging block by itself.
        Copied,
        /// It is pageable: through pinned memory.
        ThroughPinned,
        /// An output nobody asked for.
        Dropped,
    };

    struct Array {
        const char* name;
        char* data;
        size_t rowBytes;
        MemoryPlacement place;
        Route route;
    };

    const Direction direction_;
    const idx_t n_;
    const int device_;
    std::vector<Array> arrays_;
    RowBytes rowBytes_;
    bool mapped_ = false;
    /// Then: where the GPU has the pinned memory that pageable arrays pass.
    char* passage_ = nullptr;
};

} // namespace gpu
} // namespace faiss_ext
