#include <faiss_ext/gpu/compute/ExactPlan.h>

#include <algorithm>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/compute/ArrayPlaces.h>

namespace faiss_ext {
namespace gpu {

namespace {

bool isPrime(idx_t number) {
    for (idx_t factor = 2; factor * factor <= number; ++factor) {
        if (number % factor == 0) {
            return false;
        }
    }
    return number > 1;
}

/// The least prime number from `least` on, or the greatest up to `most`, if
/// that is less; 1 where there is none.
idx_t primeWithin(idx_t least, idx_t most) {
    idx_t number = least;
    while (number > 1 && number <= most && !isPrime(number)) {
        ++number;
    }
    if (number > most) {
        number = most;
        while (number > 1 && !isPrime(number)) {
            --number;
        }
    }
    return number;
}

class Planner {
   public:
    Planner(const ExactShape& shape, const ExactSizes& most)
            : asked_(shape),
              scanAll_(
                      !shape.bounded ||
                      shape.k > shape.vectors / tuning::kScanShare),
              survivors_(
                      most.survivors > 0 ? most.survivors
                                         : survivorsOf(shape.k)) {
        queries_ = std::min(shape.n, most.queries);
        const idx_t vectors = std::min(most.vectors, most.scores / queries_);
        chunks_ = primeWithin(
                divideUp(shape.vectors, std::max<idx_t>(vectors, 1)),
                mostChunks(1));
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

    /// Chunks of so many vectors at least, and of enough for the first cut.
    idx_t mostChunks(idx_t vectors) const {
        vectors = std::max(vectors, tuning::kExactLeastVectors);
        if (!scanAll_) {
            vectors = std::max<idx_t>(vectors, asked_.k);
        }
        return std::max<idx_t>(asked_.vectors / vectors, 1);
    }

    /// First what costs least: chunks need their launches, and tiles of queries
    /// new copies of all vectors.
    bool shrink() {
        return shrinkChunks(tuning::kExactGoodVectors) ||
               halveQueries(tuning::kExactGoodQueries) || shrinkChunks(1) ||
               halveQueries(1);
    }

    bool shrinkChunks(idx_t least) {
        const idx_t former = chunks_;
        chunks_ = primeWithin(2 * chunks_, mostChunks(least));
        if (chunks_ > former) {
            return true;
        }
        chunks_ = former;
        return false;
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
        plan.chunks = chunks_;
        plan.vectors = divideUp(asked_.vectors, chunks_);
        plan.total = asked_.vectors;
        plan.survivors = static_cast<int>(std::max<idx_t>(
                asked_.k, std::min<idx_t>(plan.vectors, survivors_)));
        const size_t n = queries_;
        const size_t width = exact::copyWidth(asked_.d);
        const bool copies = !scanAll_ && !asked_.ownCopies;
        ArrayPlaces places;
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
        plan.at.againCount = places.take<uint32_t>(1);
        plan.at.vectorCopies =
                places.take<exact::Half>(copies ? plan.vectors * width : 0);
        plan.at.scores = places.take<float>(n * plan.ld());
        plan.bytes = places.bytes();
        return plan;
    }

    const ExactShape& asked_;
    const bool scanAll_;
    const int survivors_;
    idx_t queries_;
    idx_t chunks_;
};

} // namespace

ExactPlan planExact(
        const ExactShape& shape, const ExactSizes& most, size_t bytes) {
    return Planner(shape, most).plan(bytes);
}

} // namespace gpu
} // namespace faiss_ext
