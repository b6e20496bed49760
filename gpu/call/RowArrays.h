#pragma once

#include <cstddef>
#include <vector>

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

/// The arrays that a call reads, or those that it writes: row-major, all with
/// the same number of rows. Knows how each gets to or from the index's GPU and
/// where its rows lie in the staging block of a tile. Makes no copy itself.
class RowArrays {
   public:
    enum class Direction { ToDevice, FromDevice };

    RowArrays(Direction direction, idx_t n, int device);

    /// Adds the array `name` of [n, rowBytes] bytes at `data`. nullptr: an
    /// output that is computed and dropped. Throws InvalidArray if it cannot
    /// be used, CudaError if the runtime cannot tell what it is.
    void add(const char* name, const void* data, size_t rowBytes);

    /// The same for an array that begins where the one added last, which is not
    /// nullptr, ends, and lies in the same allocation. Copied whole, both are
    /// one copy.
    void addBehindLast(const char* name, size_t rowBytes);

    /// Throws InvalidArray if an array here shares memory with one of `other`,
    /// or with another one here if `other` is this object.
    void refuseOverlap(const RowArrays& other) const;

    /// Lets the GPU's kernels write the arrays in host memory where they are,
    /// and the pageable ones to `pinned`, from where hostCopies takes them:
    /// these need no copy by the GPU. Outputs only; managed memory is copied as
    /// before. Returns their bytes a row. Throws CudaError.
    size_t mapHost(char* pinned);

    /// Bytes that one row needs in a staging block; 0 if every array is used
    /// where it is.
    size_t stagedRowBytes() const {
        return stagedRowBytes_;
    }
    /// Of these, the bytes that go through pinned memory.
    size_t pinnedRowBytes() const {
        return pinnedRowBytes_;
    }
    /// Of these, the bytes that end in host memory.
    size_t hostRowBytes() const {
        return hostRowBytes_;
    }
    /// Whether some array lies in host memory.
    bool anyOnHost() const {
        return anyOnHost_;
    }

    /// Arranges the staging block of a tile of `rows` rows; what follows speaks
    /// of this tile until the next call.
    void layOut(idx_t rows);
    /// Bytes of the block that go through pinned memory, in one copy: they lie
    /// first, without gaps between them.
    size_t packedBytes() const {
        return packedBytes_;
    }
    /// Bytes that are left free before the first array: tuning::kInputGap.
    size_t gap() const {
        return gap_;
    }
    /// Of the gap and the arrays.
    size_t blockBytes() const {
        return blockBytes_;
    }

    /// The host's part for the tile that begins at row `first`: between
    /// pageable arrays and `pinned`.
    std::vector<HostCopy> hostCopies(idx_t first, char* pinned) const;

    /// The GPU's part: between `block` and what it can copy by itself.
    std::vector<DeviceCopy> deviceCopies(
            idx_t first, char* block, char* pinned) const;

    /// Device pointers to row `within` of the tile that begins at row `first`,
    /// one for each array.
    std::vector<void*> devicePointers(
            idx_t first, char* block, idx_t within) const;

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
        bool behindLast;
        /// Where its rows begin in the tile's block.
        size_t offset;
    };

    void append(
            const char* name,
            char* data,
            size_t rowBytes,
            size_t allRowBytes,
            bool behindLast);
    bool joinsLast(const Array& array) const;

    const Direction direction_;
    const idx_t n_;
    const int device_;
    std::vector<Array> arrays_;
    size_t stagedRowBytes_ = 0;
    size_t pinnedRowBytes_ = 0;
    size_t hostRowBytes_ = 0;
    bool mapped_ = false;
    /// Then: where the GPU has the pinned memory that pageable arrays pass.
    char* passage_ = nullptr;
    bool anyOnHost_ = false;

    // Of the tile laid out last.
    idx_t rows_ = 0;
    size_t gap_ = 0;
    size_t packedBytes_ = 0;
    size_t blockBytes_ = 0;
};

} // namespace gpu
} // namespace faiss_ext
