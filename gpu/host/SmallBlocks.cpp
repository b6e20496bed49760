#include <faiss_ext/gpu/host/SmallBlocks.h>

#include <utility>

#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr size_t kSmallest = 64;
constexpr size_t kBufferBytes = 64 * 1024;

/// Which size has room for `bytes`.
size_t sizeFor(size_t bytes) {
    size_t size = 0;
    while (kSmallest << size < bytes) {
        ++size;
    }
    return size;
}

} // namespace

SmallBlocks::SmallBlocks(PinnedBufferPool& buffers) : pool_(buffers) {}

SmallBlocks::Piece SmallBlocks::tryTake(size_t bytes) {
    const size_t pieceBytes = kSmallest << sizeFor(bytes);
    Size& size = sizes_[sizeFor(bytes)];
    {
        std::lock_guard<std::mutex> guard(mutex_);
        if (!size.withRoom.empty()) {
            return takeFrom(size, pieceBytes);
        }
    }
    // Without the lock: this may call CUDA.
    std::list<Buffer> made;
    made.emplace_back();
    Buffer& buffer = made.front();
    buffer.memory = pool_.tryAcquire(kBufferBytes);
    buffer.pieces = kBufferBytes / pieceBytes;
    if (!buffer.memory.data()) {
        return {};
    }
    for (size_t i = buffer.pieces; i > 0; --i) {
        buffer.free.push_back(static_cast<uint16_t>(i - 1));
    }
    buffer.self = made.begin();
    std::lock_guard<std::mutex> guard(mutex_);
    size.withRoom.splice(size.withRoom.end(), made);
    return takeFrom(size, pieceBytes);
}

/// There is one with room; under the lock.
SmallBlocks::Piece SmallBlocks::takeFrom(Size& size, size_t bytes) {
    // The one that has had room for longest: later ones may become empty.
    Buffer& buffer = size.withRoom.front();
    Piece piece;
    piece.owner_ = this;
    piece.buffer_ = &buffer;
    piece.data_ = buffer.memory.data() + buffer.free.back() * bytes;
    piece.bytes_ = bytes;
    buffer.free.pop_back();
    if (buffer.free.empty()) {
        size.full.splice(size.full.begin(), size.withRoom, buffer.self);
    }
    return piece;
}

void SmallBlocks::giveBack(const Piece& piece) noexcept {
    if (lostByFork()) {
        // The lock may be held by a thread of the parent, and the memory is
        // not to be used.
        return;
    }
    // Goes back to the pool without the lock.
    std::list<Buffer> unused;
    Buffer& buffer = *piece.buffer_;
    Size& size = sizes_[sizeFor(piece.bytes_)];
    std::lock_guard<std::mutex> guard(mutex_);
    if (buffer.free.empty()) {
        size.withRoom.splice(size.withRoom.end(), size.full, buffer.self);
    }
    // There is room: it has held as many.
    buffer.free.push_back(static_cast<uint16_t>(
            (piece.data_ - buffer.memory.data()) / piece.bytes_));
    if (buffer.free.size() == buffer.pieces && size.withRoom.size() > 1) {
        unused.splice(unused.end(), size.withRoom, buffer.self);
    }
}

void SmallBlocks::trim() {
    if (lostByFork()) {
        return;
    }
    std::list<Buffer> unused;
    std::lock_guard<std::mutex> guard(mutex_);
    for (Size& size : sizes_) {
        for (auto at = size.withRoom.begin(); at != size.withRoom.end();) {
            const auto buffer = at++;
            if (buffer->free.size() == buffer->pieces) {
                unused.splice(unused.end(), size.withRoom, buffer);
            }
        }
    }
}

SmallBlocks::Piece::~Piece() {
    if (data_) {
        owner_->giveBack(*this);
    }
}

SmallBlocks::Piece::Piece(Piece&& other) noexcept
        : owner_(other.owner_),
          buffer_(other.buffer_),
          data_(std::exchange(other.data_, nullptr)),
          bytes_(other.bytes_) {}

SmallBlocks::Piece& SmallBlocks::Piece::operator=(Piece&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(buffer_, other.buffer_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

} // namespace gpu
} // namespace faiss_ext
