#include <faiss_ext/gpu/call/Pace.h>

#include <utility>

namespace faiss_ext {
namespace gpu {

Pace::~Pace() {
    // A mark that is not reached yet is replaced by the next one.
    for (Piece& piece : pieces_) {
        spare_.push_back(std::move(piece.end));
    }
}

void Pace::earliestIsDone() {
    ahead_ -= pieces_.front().seconds;
    spare_.push_back(std::move(pieces_.front().end));
    pieces_.pop_front();
}

void Pace::enqueued(double seconds, cudaStream_t stream) {
    if (spare_.empty()) {
        spare_.emplace_back();
    }
    spare_.back().record(stream);
    pieces_.push_back({std::move(spare_.back()), seconds});
    spare_.pop_back();
    ahead_ += seconds;
}

} // namespace gpu
} // namespace faiss_ext
