#include <faiss_ext/gpu/threads/SearchBatcher.h>

#include <algorithm>
#include <chrono>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/threads/Interrupts.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

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

SearchBatcher::SearchBatcher(idx_t mostQueries) : mostQueries_(mostQueries) {}

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
            {"x", search.x, search.n * search.d * sizeof(float)},
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

std::optional<SearchBatcher::Reason> SearchBatcher::Waiting::sleep() {
    const std::chrono::duration<double> period(tuning::kQueueSeconds);
    std::unique_lock<std::mutex> guard(mutex_);
    woken_.wait_for(guard, period, [this] { return reason_.has_value(); });
    return reason_;
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
    const auto next = queue_.front();
    queue_.pop_front();
    next->inUse = true;
    next->wake(Reason::HasTurn);
}

/// For a thread that was interrupted: takes it out, so that nobody looks at its
/// arrays any more. False where somebody does, or has given it the turn: then
/// it is woken at once.
bool SearchBatcher::leave(const std::shared_ptr<Waiting>& me) {
    std::lock_guard<std::mutex> guard(lock_);
    if (me->inUse) {
        return false;
    }
    const auto at = std::find(queue_.begin(), queue_.end(), me);
    if (at != queue_.end()) {
        queue_.erase(at);
    }
    me->left = true;
    return true;
}

SearchBatcher::Turn::Turn(SearchBatcher& batcher, const SmallSearch& mine)
        : batcher_(batcher), mine_(mine) {
    if (mine.n >= batcher.mostQueries_) {
        return;
    }
    // Those who held the lock, or the turn, at a fork are not in the child.
    beforeCuda();
    std::shared_ptr<Waiting> me;
    {
        std::lock_guard<std::mutex> guard(batcher.lock_);
        if (!batcher.busy_) {
            batcher.busy_ = true;
            hasTurn_ = true;
            return;
        }
        // The turn may be that of this thread's own search.
        refuseInQuestion(true);
        me = std::make_shared<Waiting>(mine);
        batcher.queue_.push_back(me);
    }
    std::optional<Reason> reason;
    try {
        while (!(reason = me->sleep())) {
            throwIfInterrupted();
        }
    } catch (...) {
        // Where it cannot leave, what it waits for comes at once.
        while (!batcher.leave(me) && !reason) {
            reason = me->sleep();
        }
        if (reason == Reason::HasTurn) {
            std::lock_guard<std::mutex> guard(batcher.lock_);
            batcher.endTurn();
        }
        throw;
    }
    hasTurn_ = reason == Reason::HasTurn;
    answered_ = !hasTurn_;
    alone_ = me->alone;
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
        return !other.alone && search.k == mine_.k && search.d == mine_.d &&
               queries + search.n <= batcher_.mostQueries_ &&
               batcher_.mayBeTaken(search);
    };
    // First come, first served.
    for (auto at = queue.begin(); at != queue.end();) {
        const auto other = at++;
        if (fits(**other)) {
            queries += (*other)->search.n;
            (*other)->inUse = true;
            others_.splice(others_.end(), queue, other);
        }
    }
    return !others_.empty();
}

SmallSearch SearchBatcher::Turn::together() {
    const int d = mine_.d;
    auto& x = batcher_.x_;
    x.assign(mine_.x, mine_.x + mine_.n * d);
    for (const auto& other : others_) {
        const SmallSearch& search = other->search;
        x.insert(x.end(), search.x, search.x + search.n * d);
    }
    setInUse(false);
    const idx_t n = static_cast<idx_t>(x.size()) / d;
    batcher_.distances_.resize(n * mine_.k);
    batcher_.labels_.resize(n * mine_.k);
    return {n,
            d,
            x.data(),
            mine_.k,
            batcher_.distances_.data(),
            batcher_.labels_.data()};
}

void SearchBatcher::Turn::share() {
    const float* distances = batcher_.distances_.data();
    const idx_t* labels = batcher_.labels_.data();
    const auto give = [&](const SmallSearch& search, bool left = false) {
        const idx_t results = search.n * search.k;
        if (!left) {
            std::copy_n(distances, results, search.distances);
            std::copy_n(labels, results, search.labels);
        }
        distances += results;
        labels += results;
    };
    // Whoever is interrupted from now on waits for its results.
    setInUse(true);
    give(mine_);
    for (const auto& other : others_) {
        give(other->search, other->left);
    }
    for (const auto& other : others_) {
        other->wake(Reason::Answered);
    }
    others_.clear();
}

void SearchBatcher::Turn::setInUse(bool inUse) {
    std::lock_guard<std::mutex> guard(batcher_.lock_);
    for (const auto& other : others_) {
        other->inUse = inUse;
    }
}

SearchBatcher::Turn::~Turn() {
    if (!hasTurn_) {
        return;
    }
    std::lock_guard<std::mutex> guard(batcher_.lock_);
    others_.remove_if([](const auto& other) { return other->left; });
    for (const auto& other : others_) {
        other->alone = true;
        other->inUse = false;
    }
    batcher_.queue_.splice(batcher_.queue_.begin(), others_);
    batcher_.endTurn();
}

} // namespace gpu
} // namespace faiss_ext
