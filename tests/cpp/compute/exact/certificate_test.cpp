// Whole searches on the CPU, filter, survivors, D and certificate, against a
// plain loop over D: what is certified is right, whatever the cuts were.

#include <faiss_ext/gpu/compute/exact/ExactArithmetic.h>

#include <gtest/gtest.h>

#include <algorithm>

#include "support/ExactCases.h"

namespace {

using faiss_ext::gpu::exact::Metric;
using faiss_ext::gpu::exact::VectorBounds;
using test::ExactCase;
using test::FilterIndex;
using test::FilterQuery;
using test::Scores;

namespace exact = faiss_ext::gpu::exact;

constexpr Metric kMetrics[] = {Metric::L2, Metric::InnerProduct};

/// Where the first cut comes from.
enum class FirstCut {
    /// D of the first chunk.
    Distances,
    /// Scores of the first chunk.
    Scores,
    /// Nowhere: somebody guessed it.
    Guess,
};

struct Settings {
    int k;
    Scores scores;
    FirstCut first;
    float guess;
    int64_t chunk;
    int64_t tile;
};

struct Result {
    /// The k smallest keys.
    std::vector<uint64_t> keys;
    bool certified;
    int64_t survivors;
};

std::vector<uint64_t> smallest(std::vector<uint64_t> keys, int k) {
    std::sort(keys.begin(), keys.end());
    keys.resize(k, exact::kMissing);
    return keys;
}

class Search {
   public:
    Search(const FilterIndex& index, const float* x, const Settings& settings)
            : index_(index), query_(index, x), settings_(settings) {}

    Result run() {
        float cut = exact::infinity(), leastCut = cut;
        int64_t begin = 0, size = settings_.chunk;
        if (settings_.first == FirstCut::Guess) {
            cut = settings_.guess;
        } else if (settings_.first == FirstCut::Scores) {
            cut = cutOfScores(std::min(size, index_.store.size()));
        }
        while (begin < index_.store.size()) {
            const int64_t end = std::min(begin + size, index_.store.size());
            filter(begin, end, cut);
            leastCut = std::min(leastCut, cut);
            // Tightened by what has been found; chunks grow.
            cut = std::min(cut, kth());
            begin = end;
            size *= 2;
        }
        return {smallest(keys_, settings_.k),
                query_.terms.inRange && exact::certified(kth(), leastCut),
                int64_t(keys_.size())};
    }

   private:
    float score(int64_t row) const {
        return test::scoreOf(
                settings_.scores,
                query_.copy.data(),
                index_.copy(row),
                index_.store.d,
                index_.terms.accumulation);
    }

    uint64_t key(int64_t row) const {
        return exact::resultKey(
                index_.terms.metric,
                index_.store.distance(query_.x.data(), row),
                static_cast<uint32_t>(row));
    }

    float kth() const {
        return exact::lossOf(smallest(keys_, settings_.k).back());
    }

    /// Of k vectors none has a greater loss than the kth of these bounds.
    float cutOfScores(int64_t end) const {
        VectorBounds bounds;
        for (int64_t row = 0; row < end; ++row) {
            bounds.addVector(index_.vectors[row]);
        }
        std::vector<float> most;
        for (int64_t row = 0; row < end; ++row) {
            if (exact::inRange(index_.vectors[row])) {
                most.push_back(exact::mostLoss(
                        index_.terms,
                        query_.terms,
                        query_.value(index_, row, score(row)),
                        bounds));
            }
        }
        std::sort(most.begin(), most.end());
        return int64_t(most.size()) < settings_.k ? exact::infinity()
                                                  : most[settings_.k - 1];
    }

    void filter(int64_t begin, int64_t end, float cut) {
        for (int64_t tile = begin; tile < end; tile += settings_.tile) {
            const int64_t last = std::min(tile + settings_.tile, end);
            VectorBounds bounds;
            for (int64_t row = tile; row < last; ++row) {
                bounds.addVector(index_.vectors[row]);
            }
            for (int64_t row = tile; row < last; ++row) {
                if (query_.passes(index_, row, score(row), cut, bounds)) {
                    keys_.push_back(key(row));
                }
            }
        }
    }

    const FilterIndex& index_;
    const FilterQuery<> query_;
    const Settings settings_;
    std::vector<uint64_t> keys_;
};

/// A plain loop over D.
std::vector<uint64_t> everyKey(const FilterIndex& index, const float* x) {
    std::vector<uint64_t> keys;
    for (int64_t row = 0; row < index.store.size(); ++row) {
        keys.push_back(exact::resultKey(
                index.terms.metric,
                index.store.distance(x, row),
                static_cast<uint32_t>(row)));
    }
    return keys;
}

/// Runs a check on every kind of data, metric and store.
template <typename Check>
void forAllIndexes(int d, const Check& check) {
    for (const ExactCase& data : test::exactCases(d, 60, 3, 21)) {
        for (Metric metric : kMetrics) {
            for (bool half : {false, true}) {
                SCOPED_TRACE(
                        data.name + ", d " + std::to_string(d) +
                        (half ? ", float16" : "") +
                        (metric == Metric::L2 ? ", L2" : ", product"));
                check(data,
                      FilterIndex(
                              data.store(metric, half),
                              exact::hopperArithmetic()));
            }
        }
    }
}

TEST(ExactCertificate, searches_with_proven_cuts_are_certified_and_right) {
    int64_t searches = 0, survivors = 0, compared = 0;
    for (int d : {1, 4, 17, 64}) {
        forAllIndexes(d, [&](const ExactCase& data, const FilterIndex& index) {
            for (int64_t i = 0; i < data.n(); ++i) {
                const auto every = everyKey(index, data.query(i));
                const bool inRange =
                        FilterQuery<>(index, data.query(i)).terms.inRange;
                for (int k : {1, 3, 20, 59, 60, 61, 100}) {
                    const Scores scores = test::kAllScores[searches % 5];
                    const FirstCut first = searches % 2 ? FirstCut::Distances
                                                        : FirstCut::Scores;
                    const Result result =
                            Search(index,
                                   data.query(i),
                                   {k, scores, first, 0, 8 + k, 7})
                                    .run();
                    ++searches;
                    survivors += result.survivors;
                    compared += index.store.size();
                    EXPECT_EQ(result.keys, smallest(every, k));
                    EXPECT_EQ(result.certified, inRange);
                }
            }
        });
    }
    EXPECT_GT(searches, 5000);
    // The filter does something.
    EXPECT_LT(survivors, compared * 9 / 10);
}

TEST(ExactCertificate, no_guess_makes_it_say_yes_to_a_wrong_result) {
    int64_t certified = 0, refused = 0, wrong = 0;
    std::mt19937 random(22);
    for (int d : {1, 4, 33}) {
        forAllIndexes(d, [&](const ExactCase& data, const FilterIndex& index) {
            for (int64_t i = 0; i < data.n(); ++i) {
                const auto every = everyKey(index, data.query(i));
                const auto sorted = smallest(every, int(every.size()));
                for (int round = 0; round < 6; ++round) {
                    const int k = 1 + int(random() % 70);
                    // The loss of some vector, or next to it, or of none.
                    float guess =
                            exact::lossOf(sorted[random() % sorted.size()]);
                    if (round % 3 == 1) {
                        guess = exact::nextDown(guess);
                    } else if (round % 3 == 2) {
                        guess -= std::fabs(guess) * 0.01f;
                    }
                    const Result result =
                            Search(index,
                                   data.query(i),
                                   {k,
                                    test::kAllScores[random() % 5],
                                    FirstCut::Guess,
                                    guess,
                                    16,
                                    int64_t(1 + random() % 20)})
                                    .run();
                    const bool right = result.keys == smallest(every, k);
                    wrong += !right;
                    (result.certified ? certified : refused) += 1;
                    EXPECT_TRUE(right || !result.certified);
                }
            }
        });
    }
    EXPECT_GT(certified, 500);
    EXPECT_GT(refused, 500);
    EXPECT_GT(wrong, 200);
}

TEST(ExactCertificate, of_equal_distances_the_smaller_labels_are_found) {
    for (const ExactCase& data : test::exactCases(16, 40, 1, 23)) {
        if (data.name != "all equal" && data.name != "all zero") {
            continue;
        }
        for (Metric metric : kMetrics) {
            const FilterIndex index(
                    data.store(metric, false), exact::hopperArithmetic());
            const Result result =
                    Search(index,
                           data.query(0),
                           {7, Scores::Hopper, FirstCut::Distances, 0, 8, 8})
                            .run();
            EXPECT_TRUE(result.certified);
            for (int j = 0; j < 7; ++j) {
                EXPECT_EQ(exact::labelOf(result.keys[j]), j);
            }
        }
    }
}

TEST(ExactCertificate, says_yes_where_the_kth_is_at_the_cut_not_above) {
    EXPECT_TRUE(exact::certified(1, 1));
    EXPECT_FALSE(exact::certified(exact::nextUp(1), 1));
    EXPECT_TRUE(exact::certified(-3, -2));
    EXPECT_FALSE(exact::certified(-2, -3));
}

TEST(ExactCertificate,
     fewer_than_k_are_right_only_where_nothing_was_ruled_out) {
    EXPECT_FALSE(exact::certified(exact::missingLoss(), 1e30f));
    EXPECT_TRUE(exact::certified(exact::missingLoss(), exact::missingLoss()));
    EXPECT_TRUE(exact::certified(exact::missingLoss(), exact::infinity()));
    EXPECT_TRUE(exact::certified(0, exact::infinity()));
}

} // namespace
