#include <faiss_ext/gpu/compute/PathCounters.h>

#include <new>

namespace faiss_ext {
namespace gpu {

PathCounters::PathCounters(TransferCounters& counters)
        : pool_(PinnedBufferPool::bucketSize(sizeof(exact::PathCounts)),
                counters) {}

exact::PathCounts* PathCounters::forKernels() {
    if (!memory_.data()) {
        memory_ = pool_.acquire(sizeof(exact::PathCounts));
        counts_ = new (memory_.data()) exact::PathCounts{};
    }
    return counts_;
}

void PathCounters::freeNow() noexcept {
    counts_ = nullptr;
    memory_ = PinnedBuffer();
    pool_.trim();
}

PathCounters::Counts PathCounters::read() const {
    // The GPU writes them.
    const volatile exact::PathCounts* const counts = counts_.load();
    return counts ? Counts{counts->certified, counts->widened, counts->last}
                  : Counts{};
}

void PathCounters::addTo(TransferStats& stats) const {
    const Counts now = read();
    stats.certifiedQueries += now[0] - before_[0];
    stats.widenedQueries += now[1] - before_[1];
    stats.lastPathQueries += now[2] - before_[2];
}

void PathCounters::reset() {
    const Counts now = read();
    for (size_t i = 0; i < now.size(); ++i) {
        before_[i] = now[i];
    }
}

} // namespace gpu
} // namespace faiss_ext
