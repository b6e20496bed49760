#pragma once

#include <condition_variable>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

/// Queries and where their results go: x [n, d] float32, distances [n, k]
/// float32, labels [n, k] int64, in any memory.
struct SmallSearch {
    idx_t n;
    int d;
    const float* x;
    idx_t k;
    float* distances;
    idx_t* labels;
};

/// Dynamic batching: searches of few queries that several threads ask of one
/// index while it is searching become one search. A GPU answers sixteen queries
/// in about the time of one, and Faiss' resources are for one thread at a time.
///
/// A thread that finds nobody searching goes on at once, without a copy. The
/// others queue. When a search is over, the thread that waits longest has its
/// turn, and takes with it those behind it that ask for as many neighbours of
/// queries as long, up to the limit, if they are of a kind that it can make for
/// them: it reads their queries, and writes their results, by itself. They
/// sleep until it has shared the results. One that an interrupt ends
/// (Interrupts.h) leaves the queue, or its place in the search that another
/// thread makes; and where that one's search is ended, the others make theirs
/// by themselves.
///
/// Thread-safe.
class FAISS_EXT_API SearchBatcher {
   public:
    class Turn;

    /// No search becomes larger than `mostQueries`; larger ones, and all where
    /// it is 1, pay no regard to the others.
    explicit SearchBatcher(idx_t mostQueries);

    /// How many threads are in the queue.
    size_t waiting() const;

   private:
    enum class Reason { HasTurn, Answered };

    /// A thread that sleeps, with a lock of its own: those that are woken
    /// together do not wait for each other. Held by that thread and by whoever
    /// has its pointer.
    class Waiting {
       public:
        explicit Waiting(const SmallSearch& asked) : search(asked) {}

        /// Returns when it is woken, and why; or, with none, some time later.
        std::optional<Reason> sleep();
        void wake(Reason reason);

        const SmallSearch search;
        // Under lock_ of the batcher until it is woken:
        /// To be searched alone: a search with others has failed.
        bool alone = false;
        /// Another thread reads its queries, or writes its results.
        bool inUse = false;
        /// Its thread has gone. Nobody may touch its arrays any more.
        bool left = false;

       private:
        std::mutex mutex_;
        std::condition_variable woken_;
        std::optional<Reason> reason_;
    };
    using Queue = std::list<std::shared_ptr<Waiting>>;

    bool leave(const std::shared_ptr<Waiting>& me);
    bool mayBeTaken(const SmallSearch& search) const;
    void endTurn();

    const idx_t mostQueries_;

    mutable std::mutex lock_;
    /// Whether some thread has its turn.
    bool busy_ = false;
    /// Lists, because what moves from one to another cannot fail.
    Queue queue_;

    // Of the thread that has its turn.
    std::vector<float> x_;
    std::vector<float> distances_;
    std::vector<idx_t> labels_;
};

/// One thread's search, which it makes between the two ends of this object's
/// life unless it is answered by then.
class FAISS_EXT_API SearchBatcher::Turn {
   public:
    /// Returns when it is this thread's turn, or its search is answered. Throws
    /// Interrupted while it waits for either. `mine` outlives this. Not for a
    /// thread that holds the lock of the resources: those before it need that.
    Turn(SearchBatcher& batcher, const SmallSearch& mine);

    /// Passes the turn on. Those taken along whose results have not been shared
    /// will search by themselves.
    ~Turn();

    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    /// Another thread has made this search.
    bool answered() const {
        return answered_;
    }

    /// Takes along who waits by now; whether there is anybody. Asks CUDA where
    /// arrays lie, so the caller holds the lock of the resources.
    bool takeAlong();

    /// All queries, with room for their results.
    SmallSearch together();

    /// Gives every thread the results that are in that room, and wakes it. (Not
    /// after the turn is passed on: those who come back at once are taken along
    /// by the next one.)
    void share();

   private:
    void setInUse(bool inUse);

    SearchBatcher& batcher_;
    const SmallSearch& mine_;
    bool hasTurn_ = false;
    bool answered_ = false;
    bool alone_ = false;
    Queue others_;
};

} // namespace gpu
} // namespace faiss_ext
