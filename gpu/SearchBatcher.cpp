#include <faiss_ext/gpu/SearchBatcher.h>

#include <algorithm>

#include <faiss_ext/gpu/Exceptions.h>
#include <faiss_ext/gpu/MemoryPlacement.h>
#include <faiss_ext/gpu/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

namespace {

struct Bytes {
    const char* name;
    const void* data;
    size_t size;

    const char* begin() const {
        return static_cast<const char*>(data);
    }
    bool overlaps(const Bytes& other) const {
        return begin() < other.begin() + other.size &&
               other.begin() < begin() + size;
    }
};

} // namespace

SearchBatcher::SearchBatcher(int dims, idx_t mostQueries)
        : dims_(dims), mostQueries_(mostQueries) {}

size_t SearchBatcher::waiting() const {
    std::lock_guard<std::mutex> guard(lock_);
    return queue_.size();
}

/// Whether another thread can make this search: read the queries now, and write
/// the results by itself. (Pinned queries are read in stream order, and some
/// hosts may not touch managed memory while the GPU works.) What is wrong with
/// an array is said where it is searched for its own sake.
bool SearchBatcher::mayBeTaken(const SmallSearch& search) const {
    const size_t results = search.n * search.k;
    const Bytes arrays[] = {
            {"x", search.x, search.n * dims_ * sizeof(float)},
            {"distances", search.distances, results * sizeof(float)},
            {"labels", search.labels, results * sizeof(idx_t)}};
    try {
        for (const Bytes& array : arrays) {
            const auto kind =
                    placementOf(array.data, array.size, array.name).kind;
            if (kind != MemoryKind::Pageable &&
                (array.data == search.x || kind != MemoryKind::Pinned)) {
                return false;
            }
        }
    } catch (const faiss::FaissException&) {
        return false;
    }
    return !arrays[0].overlaps(arrays[1]) && !arrays[0].overlaps(arrays[2]) &&
           !arrays[1].overlaps(arrays[2]);
}

SearchBatcher::Reason SearchBatcher::Waiting::sleep() {
    std::unique_lock<std::mutex> guard(mutex_);
    woken_.wait(guard, [this] { return reason_.has_value(); });
    return *reason_;
}

void SearchBatcher::Waiting::wake(Reason reason) {
    std::lock_guard<std::mutex> guard(mutex_);
    reason_ = reason;
    woken_.notify_one();
}

/// Whoever waits longest is next.
void SearchBatcher::endTurn() {
    if (queue_.empty()) {
        busy_ = false;
        return;
    }
    Waiting* next = queue_.front();
    queue_.pop_front();
    next->wake(Reason::HasTurn);
}

SearchBatcher::Turn::Turn(SearchBatcher& batcher, const SmallSearch& mine)
        : batcher_(batcher), mine_(mine) {
    if (mine.n >= batcher.mostQueries_) {
        return;
    }
    // Those who held the lock, or the turn, at a fork are not in the child.
    beforeCuda();
    Waiting me(mine);
    {
        std::lock_guard<std::mutex> guard(batcher.lock_);
        if (!batcher.busy_) {
            batcher.busy_ = true;
            hasTurn_ = true;
            return;
        }
        batcher.queue_.push_back(&me);
    }
    hasTurn_ = me.sleep() == Reason::HasTurn;
    answered_ = !hasTurn_;
    alone_ = me.alone;
}

bool SearchBatcher::Turn::takeAlong() {
    if (!hasTurn_ || alone_) {
        return false;
    }
    std::lock_guard<std::mutex> guard(batcher_.lock_);
    auto& queue = batcher_.queue_;
    if (queue.empty() || !batcher_.mayBeTaken(mine_)) {
        return false;
    }
    idx_t queries = mine_.n;
    const auto fits = [&](const Waiting& other) {
        const SmallSearch& search = other.search;
        return !other.alone && search.k == mine_.k &&
               queries + search.n <= batcher_.mostQueries_ &&
               batcher_.mayBeTaken(search);
    };
    // First come, first served.
    for (auto at = queue.begin(); at != queue.end();) {
        const auto other = at++;
        if (fits(**other)) {
            queries += (*other)->search.n;
            others_.splice(others_.end(), queue, other);
        }
    }
    return !others_.empty();
}

SmallSearch SearchBatcher::Turn::together() {
    const int d = batcher_.dims_;
    auto& x = batcher_.x_;
    x.assign(mine_.x, mine_.x + mine_.n * d);
    for (const Waiting* other : others_) {
        const SmallSearch& search = other->search;
        x.insert(x.end(), search.x, search.x + search.n * d);
    }
    const idx_t n = static_cast<idx_t>(x.size()) / d;
    batcher_.distances_.resize(n * mine_.k);
    batcher_.labels_.resize(n * mine_.k);
    return {n,
            x.data(),
            mine_.k,
            batcher_.distances_.data(),
            batcher_.labels_.data()};
}

void SearchBatcher::Turn::share() {
    const float* distances = batcher_.distances_.data();
    const idx_t* labels = batcher_.labels_.data();
    const auto give = [&](const SmallSearch& search) {
        const idx_t results = search.n * search.k;
        std::copy_n(distances, results, search.distances);
        std::copy_n(labels, results, search.labels);
        distances += results;
        labels += results;
    };
    give(mine_);
    for (const Waiting* other : others_) {
        give(other->search);
    }
    for (Waiting* other : others_) {
        other->wake(Reason::Answered);
    }
    others_.clear();
}

SearchBatcher::Turn::~Turn() {
    if (!hasTurn_) {
        return;
    }
    std::lock_guard<std::mutex> guard(batcher_.lock_);
    for (Waiting* other : others_) {
        other->alone = true;
    }
    batcher_.queue_.splice(batcher_.queue_.begin(), others_);
    batcher_.endTurn();
}

} // namespace gpu
} // namespace faiss_ext
