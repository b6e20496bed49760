#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>

namespace faiss_ext {
namespace gpu {

/// Small pieces of pinned memory, cut out of larger buffers of a pool, for the
/// results of few queries: a page is the least that can be pinned. Pieces have
/// the sizes 64, 128, ... 2048; those of one buffer are of one size. A buffer
/// goes back to the pool when all its pieces are back, except the last of its
/// size that has room.
///
/// Safe for any number of threads. Pieces are back before this is destroyed.
class FAISS_EXT_API SmallBlocks {
   public:
    static constexpr size_t kLargest = 2048;

    explicit SmallBlocks(PinnedBufferPool& buffers);

    SmallBlocks(const SmallBlocks&) = delete;
    SmallBlocks& operator=(const SmallBlocks&) = delete;

    class Piece;

    /// A piece of at least `bytes`, 1 to kLargest, aligned to 64; an empty one
    /// where the pool has no memory. Throws CudaError if pinning fails.
    Piece tryTake(size_t bytes);

    /// Gives buffers back to the pool of which no piece is in use.
    void trim();

   private:
    struct Buffer {
        PinnedBuffer memory;
        size_t pieces = 0;
        /// The numbers of those not in use.
        std::vector<uint16_t> free;
        std::list<Buffer>::iterator self;
    };

    /// Of one size of pieces.
    struct Size {
        std::list<Buffer> withRoom;
        std::list<Buffer> full;
    };

    Piece takeFrom(Size& size, size_t bytes);
    void giveBack(const Piece& piece) noexcept;

    PinnedBufferPool& pool_;
    std::mutex mutex_;
    /// Under mutex_.
    std::array<Size, 6> sizes_;
};

/// One piece: move-only, goes back at the end of its life.
class FAISS_EXT_API SmallBlocks::Piece {
   public:
    Piece() = default;
    ~Piece();
    Piece(Piece&& other) noexcept;
    Piece& operator=(Piece&& other) noexcept;

    /// nullptr if it is empty.
    char* data() const noexcept {
        return data_;
    }

   private:
    friend class SmallBlocks;

    SmallBlocks* owner_ = nullptr;
    Buffer* buffer_ = nullptr;
    char* data_ = nullptr;
    size_t bytes_ = 0;
};

} // namespace gpu
} // namespace faiss_ext
