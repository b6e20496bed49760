// How many vectors the exact search's filter lets pass, counted on the CPU with
// the functions that the GPU runs; for benchs/filter_rates.py, through ctypes,
// which makes the scores. No CUDA, no Faiss.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "support/ExactFilter.h"

namespace {

namespace exact = faiss_ext::gpu::exact;

using test::FilterIndex;
using test::FilterQuery;
using test::Half;
using test::Metric;
using test::Store;
using test::VectorBounds;

/// Vectors that share a threshold, as in the tile of a kernel.
constexpr int64_t kTile = 128;

struct Data {
    FilterIndex index;
    /// Of each vector, as in its bounds.
    std::vector<float> norms;
    std::vector<FilterQuery<>> queries;
};

/// What the thresholds of a tile are made of.
struct Tile {
    VectorBounds bounds;
    float errorRest;
};

struct Survivor {
    int64_t row;
    float score;
    float loss;
    Tile tile;
};

/// One search of all queries for k neighbours.
struct Search {
    const Data& data;
    int k;
    /// Whether by the finer filter, which has a spread for each vector.
    bool fine;
    /// No more than these are kept of a query; all are counted.
    int64_t most;
    std::vector<float> cuts;
    std::vector<int64_t> counts;
    /// At the end of the last chunk, and the longest that the list of a query
    /// has been: the k best until then, and what passed in a chunk.
    std::vector<int64_t> before;
    std::vector<int64_t> longest;
    std::vector<std::vector<Survivor>> survivors;

    float lossOf(int64_t query, int64_t row) const {
        return exact::lossOf(
                data.index.terms.metric,
                data.index.store.distance(data.queries[query].x.data(), row));
    }

    float kth(std::vector<float> losses) const {
        if (int64_t(losses.size()) < k) {
            return exact::infinity();
        }
        std::nth_element(losses.begin(), losses.begin() + k - 1, losses.end());
        return losses[k - 1];
    }
};

/// The filter, of one query and the vectors of one tile.
class Judge {
   public:
    Judge(const Search& search, int64_t query, const Tile& tile)
            : index_(search.data.index),
              norms_(search.data.norms),
              terms_(search.data.queries[query].terms),
              fine_(search.fine),
              perVector_(exact::finePerVector(terms_)) {
        const float base =
                exact::thresholdBase(index_.terms, terms_, search.cuts[query]);
        threshold_ = fine_ ? exact::fineThreshold(terms_, base, tile.errorRest)
                           : test::thresholdOver(terms_, base, tile.bounds);
    }

    bool passes(int64_t row, float score) const {
        const test::VectorTerms& vector = index_.vectors[row];
        const float start = exact::startOf(index_.terms.metric, vector);
        if (!fine_) {
            return exact::passes(
                    exact::valueOf(score, terms_.factor, start), threshold_);
        }
        return exact::passes(
                exact::fineValue(
                        score,
                        terms_.factor,
                        perVector_,
                        norms_[row],
                        exact::fineStart(start)),
                threshold_);
    }

   private:
    const FilterIndex& index_;
    const std::vector<float>& norms_;
    const test::QueryTerms& terms_;
    const bool fine_;
    const float perVector_;
    float threshold_;
};

void writeFloats(const Half* copies, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) {
        to[i] = exact::toFloat(copies[i]);
    }
}

} // namespace

#define FILTER_RATES_API extern "C" __attribute__((visibility("default")))

/// Of vectors [nb, d]; their copies go to `copies`, as float32.
FILTER_RATES_API void* faiss_ext_filter_rates_new(
        const float* rows,
        int64_t nb,
        int d,
        int product,
        int half,
        float* copies) {
    Store store{product ? Metric::InnerProduct : Metric::L2, d, {}, {}};
    if (half) {
        for (int64_t i = 0; i < nb * d; ++i) {
            store.halves.push_back(exact::toHalf(rows[i]));
        }
    } else {
        store.rows.assign(rows, rows + nb * d);
    }
    auto* data =
            new Data{FilterIndex(store, exact::hopperArithmetic()), {}, {}};
    for (const test::VectorTerms& vector : data->index.vectors) {
        data->norms.push_back(
                exact::inRange(vector) ? VectorBounds::boundsOf(vector).norm
                                       : 0);
    }
    writeFloats(data->index.copy(0), nb * d, copies);
    return data;
}

FILTER_RATES_API void faiss_ext_filter_rates_delete(void* data) {
    delete static_cast<Data*>(data);
}

/// Queries [n, d]; their copies go to `copies`.
FILTER_RATES_API void faiss_ext_filter_rates_queries(
        void* handle, const float* x, int64_t n, float* copies) {
    Data& data = *static_cast<Data*>(handle);
    const int d = data.index.store.d;
    data.queries.clear();
    for (int64_t i = 0; i < n; ++i) {
        data.queries.emplace_back(data.index, x + i * d);
        writeFloats(data.queries.back().copy.data(), d, copies + i * d);
    }
}

FILTER_RATES_API void* faiss_ext_filter_rates_search(
        const void* handle, int k, int fine, int64_t most) {
    const Data& data = *static_cast<const Data*>(handle);
    const size_t n = data.queries.size();
    return new Search{
            data,
            k,
            fine != 0,
            most,
            std::vector<float>(n, exact::infinity()),
            std::vector<int64_t>(n),
            std::vector<int64_t>(n),
            std::vector<int64_t>(n),
            std::vector<std::vector<Survivor>>(n)};
}

FILTER_RATES_API void faiss_ext_filter_rates_end(void* search) {
    delete static_cast<Search*>(search);
}

/// A first cut: D of the k best scores [n, count] of a sample, whose rows are
/// `rows` [count].
FILTER_RATES_API void faiss_ext_filter_rates_sample(
        void* handle, const float* scores, const int64_t* rows, int64_t count) {
    Search& search = *static_cast<Search*>(handle);
    const Data& data = search.data;
    for (size_t query = 0; query < data.queries.size(); ++query) {
        std::vector<std::pair<float, int64_t>> values;
        for (int64_t j = 0; j < count; ++j) {
            const float score = scores[int64_t(query) * count + j];
            values.push_back(
                    {data.queries[query].value(data.index, rows[j], score),
                     rows[j]});
        }
        const auto end = values.begin() + std::min<int64_t>(count, search.k);
        std::partial_sort(values.begin(), end, values.end());
        std::vector<float> losses;
        for (auto best = values.begin(); best != end; ++best) {
            losses.push_back(search.lossOf(int64_t(query), best->second));
        }
        search.cuts[query] = search.kth(losses);
    }
}

/// Compares the scores [n, count] of the vectors `rows`.
FILTER_RATES_API void faiss_ext_filter_rates_filter(
        void* handle, const float* scores, const int64_t* rows, int64_t count) {
    Search& search = *static_cast<Search*>(handle);
    const FilterIndex& index = search.data.index;
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t end = std::min(count, begin + kTile);
        Tile tile{{}, 0};
        for (int64_t j = begin; j < end; ++j) {
            if (exact::inRange(index.vectors[rows[j]])) {
                const auto bounds =
                        VectorBounds::boundsOf(index.vectors[rows[j]]);
                tile.bounds.addBounds(bounds);
                tile.errorRest =
                        std::max(tile.errorRest, exact::errorRest(bounds));
            }
        }
        for (size_t query = 0; query < search.cuts.size(); ++query) {
            const Judge judge(search, int64_t(query), tile);
            for (int64_t j = begin; j < end; ++j) {
                const float score = scores[int64_t(query) * count + j];
                if (judge.passes(rows[j], score) &&
                    ++search.counts[query] <= search.most) {
                    search.survivors[query].push_back(
                            {rows[j],
                             score,
                             search.lossOf(int64_t(query), rows[j]),
                             tile});
                }
            }
        }
    }
}

/// The end of a chunk: cuts become D of the k-th survivor, and the k best stay
/// on the list.
FILTER_RATES_API void faiss_ext_filter_rates_tighten(void* handle) {
    Search& search = *static_cast<Search*>(handle);
    for (size_t query = 0; query < search.cuts.size(); ++query) {
        const int64_t kept = std::min<int64_t>(search.k, search.before[query]);
        search.longest[query] = std::max(
                search.longest[query],
                kept + search.counts[query] - search.before[query]);
        search.before[query] = search.counts[query];
        std::vector<float> losses;
        for (const Survivor& survivor : search.survivors[query]) {
            losses.push_back(survivor.loss);
        }
        search.cuts[query] = std::min(search.cuts[query], search.kth(losses));
    }
}

/// Of each query: how many passed, how long its list was, and how many of those
/// that were kept pass the last cut, too: what no schedule of cuts can do
/// without.
FILTER_RATES_API void faiss_ext_filter_rates_counts(
        const void* handle, int64_t* passed, int64_t* list, int64_t* window) {
    const Search& search = *static_cast<const Search*>(handle);
    for (size_t query = 0; query < search.cuts.size(); ++query) {
        passed[query] = search.counts[query];
        list[query] = search.longest[query];
        window[query] = 0;
        for (const Survivor& survivor : search.survivors[query]) {
            const Judge judge(search, int64_t(query), survivor.tile);
            window[query] += judge.passes(survivor.row, survivor.score);
        }
    }
}
