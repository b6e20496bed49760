#include <faiss_ext/gpu/call/ComputeTurns.h>

#include <algorithm>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/call/Tuning.h>

namespace faiss_ext {
namespace gpu {

ComputeTurns::ComputeTurns(size_t streams, idx_t n, idx_t tileRows)
        : streams_(streams), turn_(streams == 1 ? tileRows : n) {
    // Many streams fill the GPU with what Faiss computes at once, and turns
    // even out what each has to do. Few do best with one long stretch each.
    if (streams > tuning::kFewLanes) {
        const idx_t atOnce = tuning::kComputeRows;
        const idx_t turn = std::min(n / tuning::kTurns, tileRows) /
                           static_cast<idx_t>(streams);
        turn_ = std::max(turn - turn % atOnce, atOnce);
    }
}

std::vector<ComputeTurns::Part> ComputeTurns::parts(idx_t rows) {
    idx_t step = turn_;
    if (streams_ > 1) {
        // A part for each stream, so that none works on long after the others.
        const idx_t equal = divideUp(rows, static_cast<idx_t>(streams_));
        step = std::min(roundUp<idx_t>(equal, tuning::kComputeRows), turn_);
    }
    std::vector<Part> parts;
    for (idx_t first = 0; first < rows; first += step) {
        parts.push_back({next_, first, std::min(step, rows - first)});
        next_ = (next_ + 1) % streams_;
    }
    return parts;
}

} // namespace gpu
} // namespace faiss_ext
