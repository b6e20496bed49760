#include <faiss_ext/gpu/compute/PathCounters.h>

#include <new>

#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

PathCounters::PathCounters(TransferCounters& counters)
        : pool_(PinnedBufferPool::bucketSize(sizeof(exact::PathCounts)),
                counters) {}

exact::PathCounts* PathCounters::forKernels() {
    if (!memory_.data()) {
        try {
            memory_ = pool_.acquire(sizeof(exact::PathCounts));
        } catch (const faiss::FaissException& e) {
            if (!isOutOfMemory(e)) {
                throw;
            }
            return nullptr;
        }
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
    // These first: another thread may raise them to counts that come later.
    const Counts before{before_[0], before_[1], before_[2]};
    const Counts now = read();
    stats.certifiedQueries += now[0] - before[0];
    stats.widenedQueries += now[1] - before[1];
    stats.lastPathQueries += now[2] - before[2];
}

QueryPaths PathCounters::counted() const {
    const Counts now = read();
    return {true,
            static_cast<int64_t>(now[0]),
            static_cast<int64_t>(now[1]),
            static_cast<int64_t>(now[2])};
}

void PathCounters::reset() {
    const Counts now = read();
    for (size_t i = 0; i < now.size(); ++i) {
        before_[i] = now[i];
    }
}

} // namespace gpu
} // namespace faiss_ext
