#include <faiss_ext/gpu/compute/ExactPlan.h>

#include <algorithm>
#include <string>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/compute/ArrayPlaces.h>
#include <faiss_ext/gpu/compute/exact/CutRank.h>

namespace faiss_ext {
namespace gpu {

namespace {

using exact::VectorRows;

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

/// Every step-th of `total` vectors, from `first` on.
VectorRows everyOther(idx_t first, idx_t step, idx_t total) {
    return {first, divideUp(total - first, step), step};
}

/// Appends `rows`, in parts of `most` at most.
void appendParts(
        const VectorRows& rows, idx_t most, std::vector<VectorRows>& parts) {
    const idx_t count = divideUp(rows.count, divideUp(rows.count, most));
    for (idx_t first = 0; first < rows.count; first += count) {
        parts.push_back(
                {rows.first + first * rows.step,
                 std::min(count, rows.count - first),
                 rows.step});
    }
}

class Planner {
   public:
    Planner(const ExactShape& shape, const ExactSizes& most)
            : asked_(shape),
              scanAll_(
                      !shape.bounded ||
                      shape.k > shape.vectors /
                                        (shape.fused ? tuning::kFusedScanShare
                                                     : tuning::kScanShare)),
              fused_(shape.fused && !scanAll_),
              survivors_(
                      most.survivors > 0 ? most.survivors
                                         : survivorsOf(shape.k)),
              sample_(most.sample) {
        queries_ = std::min(
                shape.n,
                most.queries > 0 ? most.queries
                : fused_         ? tuning::kExactFusedQueries
                                 : tuning::kExactQueries);
        const idx_t vectors = std::min(
                most.vectors > 0 ? most.vectors
                : fused_         ? shape.vectors
                                 : tuning::kExactVectors,
                most.scores / queries_);
        chunks_ = primeWithin(
                divideUp(shape.vectors, std::max<idx_t>(vectors, 1)),
                mostChunks(1));
        copied_ = std::min(
                shape.vectors, most.copied > 0 ? most.copied : shape.vectors);
    }

    ExactPlan plan(size_t bytes) {
        ExactPlan plan = laidOut();
        while (plan.bytes > bytes && shrink()) {
            plan = laidOut();
        }
        plan.sample = sample();
        plan.sampleRank = sampleRank(plan.sample);
        for (idx_t i = 0; i < chunks_; ++i) {
            plan.chunks.push_back(everyOther(i, chunks_, asked_.vectors));
        }
        if (fused_) {
            planStages(plan);
        } else if (!scanAll_) {
            for (const VectorRows& chunk : plan.chunks) {
                plan.stages.push_back({{chunk}, asked_.k});
            }
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
        return std::clamp<idx_t>(
                asked_.vectors / vectors, 1, tuning::kExactMostChunks);
    }

    idx_t chunkVectors() const {
        return divideUp(asked_.vectors, chunks_);
    }

    /// Whose copies exist at once.
    idx_t copiedVectors() const {
        return fused_ ? std::max(copied_, chunkVectors()) : chunkVectors();
    }

    /// First what costs least: chunks need their launches, and tiles of queries
    /// new copies of all vectors.
    bool shrink() {
        return shrinkChunks(tuning::kExactGoodVectors) ||
               halveCopied(tuning::kExactVectors) ||
               halveQueries(tuning::kExactGoodQueries) || halveCopied(1) ||
               shrinkChunks(1) || halveQueries(1);
    }

    bool shrinkChunks(idx_t least) {
        const idx_t former = chunks_;
        chunks_ = primeWithin(
                chunks_ + divideUp<idx_t>(chunks_, 4), mostChunks(least));
        if (chunks_ > former) {
            return true;
        }
        chunks_ = former;
        return false;
    }

    bool halveCopied(idx_t least) {
        least = std::max(least, chunkVectors());
        if (!fused_ || asked_.ownCopies || copied_ <= least) {
            return false;
        }
        copied_ = std::max(least, divideUp<idx_t>(copied_, 2));
        return true;
    }

    bool halveQueries(idx_t least) {
        if (queries_ <= least) {
            return false;
        }
        queries_ = std::max(least, divideUp<idx_t>(queries_, 2));
        return true;
    }

    /// Fewer than what a chunk has room for; by a step that is a prime number,
    /// if that is more than 1.
    VectorRows sample() const {
        const idx_t total = asked_.vectors;
        const idx_t wanted = std::clamp<idx_t>(
                sampleWanted(), std::min<idx_t>(asked_.k, total), total);
        idx_t step = primeWithin(total / wanted, total / wanted);
        if (divideUp(total, step) > chunkVectors()) {
            // (The chunks' own step is a prime number, or 1.)
            step = chunks_;
        }
        return everyOther(0, step, total);
    }

    idx_t sampleWanted() const {
        if (sample_ > 0) {
            return sample_;
        }
        return fused_ ? std::min(
                                tuning::kExactSample,
                                asked_.vectors / tuning::kExactSampleShare)
                      : std::max<idx_t>(
                                tuning::kExactProvenSample,
                                tuning::kExactProvenSamples * idx_t(asked_.k));
    }

    /// A guess needs the second round, which cuBLAS' scores do not have.
    int sampleRank(const VectorRows& sample) const {
        return fused_ ? cutRank(sample.count) : asked_.k;
    }

    int cutRank(idx_t seen) const {
        return exact::cutRank(asked_.k, seen, asked_.vectors);
    }

    /// How often stages grow to kExactGrowth times as many vectors: often
    /// enough for the first one's survivors to be few.
    int growths(const ExactPlan& plan) const {
        const double few = std::min<double>(
                std::max(tuning::kExactFewSurvivors, asked_.k),
                plan.survivors / 4.0);
        double passing = double(plan.sampleRank) / plan.sample.count *
                         double(asked_.vectors);
        int growths = 0;
        idx_t first = asked_.vectors / tuning::kExactGrowth;
        while (passing > few &&
               first >= tuning::kExactStageSamples * plan.sample.count) {
            passing /= tuning::kExactGrowth;
            first /= tuning::kExactGrowth;
            ++growths;
        }
        return growths;
    }

    /// Every step-th vector, then those between them which make the step a part
    /// of what it was, and so on: all that were seen are a sample each time.
    void planStages(ExactPlan& plan) const {
        const idx_t most = asked_.ownCopies || plan.wholeCopies
                                   ? asked_.vectors
                                   : copiedVectors();
        const idx_t total = asked_.vectors;
        idx_t step = 1;
        for (int i = growths(plan); i > 0; --i) {
            step *= tuning::kExactGrowth;
        }
        ExactStage first;
        appendParts(everyOther(0, step, total), most, first.rows);
        idx_t seen = divideUp(total, step);
        first.rank = cutRank(seen);
        plan.stages.push_back(std::move(first));
        while (step > 1) {
            step /= tuning::kExactGrowth;
            ExactStage stage;
            for (idx_t i = 1; i < tuning::kExactGrowth; ++i) {
                const VectorRows rows = everyOther(
                        i * step, step * tuning::kExactGrowth, total);
                appendParts(rows, most, stage.rows);
                seen += rows.count;
            }
            stage.rank = cutRank(seen);
            plan.stages.push_back(std::move(stage));
        }
        appendParts({0, total, 1}, most, plan.again);
    }

    ExactPlan laidOut() const {
        ExactPlan plan;
        plan.scanAll = scanAll_;
        plan.queries = queries_;
        plan.ld = roundUp<idx_t>(chunkVectors(), 8);
        plan.survivors = static_cast<int>(std::max<idx_t>(
                asked_.k,
                std::min<idx_t>(
                        fused_ ? asked_.vectors : chunkVectors(), survivors_)));
        const bool copies = !scanAll_ && !asked_.ownCopies;
        plan.wholeCopies =
                copies && fused_ && copiedVectors() == asked_.vectors;
        const size_t n = queries_;
        const size_t width = exact::copyWidth(asked_.d);
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
        plan.at.widenedCount = places.take<uint32_t>(1);
        plan.at.vectorCopies =
                places.take<exact::Half>(copies ? copiedVectors() * width : 0);
        plan.at.scores = places.take<float>(n * plan.ld);
        plan.bytes = places.bytes();
        return plan;
    }

    const ExactShape& asked_;
    const bool scanAll_;
    const bool fused_;
    const int survivors_;
    const idx_t sample_;
    idx_t queries_;
    idx_t chunks_;
    /// Vectors whose copies are made at once, by fused filters.
    idx_t copied_;
};

} // namespace

std::string ExactPlan::text(const ExactShape& asked) const {
    const auto number = [](auto value) { return std::to_string(value); };
    const auto count = [&](idx_t value, const char* what) {
        return number(value) + " " + what + (value == 1 ? "" : "s");
    };
    const bool fused = asked.fused && !scanAll;
    std::string text = number(asked.n) + " queries in " +
                       count(divideUp(asked.n, queries), "tile") + ", ";
    if (scanAll) {
        text += "all " + number(asked.vectors) + " vectors compared, in " +
                count(chunks.size(), "chunk");
    } else {
        text += fused ? "by fused filters" : "by scores of cuBLAS and filters";
        text += " of " + number(asked.vectors) + " vectors: sample of " +
                number(sample.count) + " (rank " + number(sampleRank) + "), " +
                count(stages.size(), "stage");
        // Chunks are all about as large, and their cuts of k vectors.
        const size_t listed = fused ? stages.size() : 0;
        for (size_t i = 0; i < listed; ++i) {
            idx_t vectors = 0;
            for (const VectorRows& rows : stages[i].rows) {
                vectors += rows.count;
            }
            text += (i == 0 ? " of " : ", ") + number(vectors) + " (rank " +
                    number(stages[i].rank) + ")";
        }
        text += again.empty() ? ", no second round" : ", second round";
        text += ", lists of " + number(survivors) + ", last path in " +
                count(chunks.size(), "chunk");
        text += asked.ownCopies ? "; the vectors are their own copies"
                : wholeCopies   ? "; copies of all vectors at once"
                                : "; copies of the rows of each filter";
    }
    return text + "; " + number(bytes) + " bytes of scratch memory";
}

ExactPlan planExact(
        const ExactShape& shape, const ExactSizes& most, size_t bytes) {
    return Planner(shape, most).plan(bytes);
}

} // namespace gpu
} // namespace faiss_ext
