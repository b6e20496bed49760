#include <faiss_ext/gpu/compute/ExactPlan.h>

#include <algorithm>

#include <faiss_ext/gpu/Rounding.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Places of arrays that follow each other.
class Places {
   public:
    template <typename T>
    size_t take(size_t count) {
        const size_t place = bytes_;
        bytes_ += roundUp(count * sizeof(T), ExactPlan::kAlignment);
        return place;
    }

    size_t bytes() const {
        return bytes_;
    }

   private:
    size_t bytes_ = 0;
};

class Planner {
   public:
    Planner(const ExactShape& shape, const ExactSizes& most)
            : asked_(shape),
              scanAll_(
                      !shape.bounded ||
                      shape.k > shape.vectors / tuning::kScanShare),
              // The sample has k vectors.
              leastVectors_(wholeTiles(scanAll_ ? 1 : shape.k)),
              survivors_(
                      most.survivors > 0 ? most.survivors
                                         : survivorsOf(shape.k)) {
        queries_ = std::min(shape.n, most.queries);
        vectors_ = cut(std::min(most.vectors, most.scores / queries_));
    }

    ExactPlan plan(size_t bytes) {
        ExactPlan plan = laidOut();
        while (plan.bytes > bytes && shrink()) {
            plan = laidOut();
        }
        return plan;
    }

   private:
    static int survivorsOf(int k) {
        int survivors = tuning::kExactSurvivors;
        while (survivors < tuning::kSurvivorsOfNeighbour * k) {
            survivors *= 2;
        }
        return survivors;
    }

    static idx_t wholeTiles(idx_t vectors) {
        return roundUp(std::max<idx_t>(vectors, 1), exact::kBoundsTile);
    }

    /// Chunks of `most` vectors, about, which are as large as each other.
    idx_t cut(idx_t most) const {
        const idx_t chunks =
                divideUp(asked_.vectors, std::max(most, leastVectors_));
        return std::min(
                asked_.vectors, wholeTiles(divideUp(asked_.vectors, chunks)));
    }

    /// First what costs least: chunks need their launches, and tiles of queries
    /// new copies of all vectors.
    bool shrink() {
        return halveVectors(
                       std::max(tuning::kExactGoodVectors, leastVectors_)) ||
               halveQueries(tuning::kExactGoodQueries) ||
               halveVectors(leastVectors_) || halveQueries(1);
    }

    bool halveVectors(idx_t least) {
        if (vectors_ <= least) {
            return false;
        }
        vectors_ = std::max(least, wholeTiles(vectors_ / 2));
        return true;
    }

    bool halveQueries(idx_t least) {
        if (queries_ <= least) {
            return false;
        }
        queries_ = std::max(least, divideUp<idx_t>(queries_, 2));
        return true;
    }

    ExactPlan laidOut() const {
        ExactPlan plan;
        plan.scanAll = scanAll_;
        plan.queries = queries_;
        plan.vectors = vectors_;
        plan.total = asked_.vectors;
        plan.survivors = static_cast<int>(std::max<idx_t>(
                asked_.k, std::min<idx_t>(vectors_, survivors_)));
        plan.samples = std::min(
                vectors_,
                std::max(
                        {tuning::kSampleVectors,
                         tuning::kSampleOfNeighbour * asked_.k,
                         tuning::kRoomForSurvivors * asked_.k * vectors_ /
                                 plan.survivors}));
        const size_t n = queries_;
        const size_t width = exact::copyWidth(asked_.d);
        const bool copies = !scanAll_ && !asked_.ownCopies;
        Places places;
        plan.at.copies = places.take<exact::Half>(n * width);
        plan.at.terms = places.take<exact::QueryTerms>(n);
        plan.at.cut = places.take<float>(n);
        plan.at.leastCut = places.take<float>(n);
        plan.at.best = places.take<uint64_t>(n * asked_.k);
        plan.at.survivors =
                places.take<uint32_t>(scanAll_ ? 0 : n * plan.survivors);
        plan.at.counts = places.take<uint32_t>(n);
        plan.at.paths = places.take<exact::QueryPath>(n);
        plan.at.last = places.take<uint32_t>(n);
        plan.at.lastCount = places.take<uint32_t>(1);
        plan.at.vectorCopies =
                places.take<exact::Half>(copies ? vectors_ * width : 0);
        plan.at.scores = places.take<float>(n * plan.ld());
        plan.bytes = places.bytes();
        return plan;
    }

    const ExactShape& asked_;
    const bool scanAll_;
    const idx_t leastVectors_;
    const int survivors_;
    idx_t queries_;
    idx_t vectors_;
};

} // namespace

ExactPlan planExact(
        const ExactShape& shape, const ExactSizes& most, size_t bytes) {
    return Planner(shape, most).plan(bytes);
}

} // namespace gpu
} // namespace faiss_ext
