#include "ExactFiltering.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ExactMemory.h"

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace stand_in {

namespace {

double normOf(const Half* row, int width) {
    double squares = 0;
    for (int i = 0; i < width; ++i) {
        const double component = floatOfHalf(row[i]);
        squares += component * component;
    }
    return std::sqrt(squares);
}

/// Products of halves are exact in double, and so are their sums, but for far
/// less than matters.
double productOf(const float* x, const float* y, int width) {
    double sums[4] = {};
    for (int i = 0; i < width; ++i) {
        sums[i % 4] += double(x[i]) * double(y[i]);
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// Up or down, without a pattern.
double signOf(idx_t i, idx_t j) {
    const uint64_t mixed = (uint64_t(i) * 2654435761u + j) * 0x9e3779b97f4a7c15;
    return mixed >> 63 ? 1.0 : -1.0;
}

/// Only inside an operation: what a filter adds to the list of one query.
class List {
   public:
    List(const QueryState& queries, idx_t query)
            : labels_(row(queries.survivors, query, queries.capacity)),
              count_(view(queries.counts)[query]),
              room_(queries.capacity) {}

    void add(uint32_t label) {
        const uint32_t place = count_++;
        if (place < room_) {
            labels_[place] = label;
        }
    }
    bool full() const {
        return count_ >= room_;
    }
    bool fullWith(idx_t more) const {
        return count_ + more >= room_;
    }

   private:
    uint32_t* const labels_;
    uint32_t& count_;
    const uint32_t room_;
};

} // namespace

void multiply(
        const Half* x,
        idx_t n,
        const Half* y,
        idx_t stride,
        idx_t count,
        int width,
        float* scores,
        idx_t ld,
        double errorPart) {
    std::vector<float> xs(n * width);
    std::vector<float> ys(count * width);
    std::transform(x, x + xs.size(), xs.begin(), floatOfHalf);
    for (idx_t j = 0; j < count; ++j) {
        std::transform(
                y + j * stride,
                y + j * stride + width,
                ys.begin() + j * width,
                floatOfHalf);
    }
    TensorArithmetic known = hopperArithmetic();
    known.factor = 1;
    // But for what the rounding below adds.
    const double error =
            errorPart == 0
                    ? 0
                    : errorPart * (1 - 1e-3) * accumulationError(known, width);
    std::vector<double> norms(count);
    for (idx_t j = 0; error != 0 && j < count; ++j) {
        norms[j] = normOf(y + j * stride, width);
    }
    for (idx_t i = 0; i < n; ++i) {
        const double norm = error != 0 ? normOf(x + i * width, width) : 0;
        for (idx_t j = 0; j < count; ++j) {
            double product = productOf(
                    xs.data() + i * width, ys.data() + j * width, width);
            if (error != 0) {
                product += signOf(i, j) * error * norm * norms[j];
            }
            scores[i * ld + j] = static_cast<float>(product);
        }
    }
}

void filterQuery(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        idx_t query,
        const float* scores,
        const cuda_sim_exact_faults& wrong) {
    const IndexTerms& index = *view(state.terms);
    const QueryTerms& terms = view(queries.terms)[query];
    const float cut = view(queries.cut)[query];
    float& least = view(queries.leastCut)[query];
    least = std::min(least, cut);
    const float base = thresholdBase(index, terms, cut);
    List list(queries, query);
    int extra = wrong.extra_survivors;
    const bool canOverflow = wrong.overflow && list.fullWith(rows.count);
    // The last ones: those that are no neighbours, from where they are found,
    // and what fills up a list that is to run over.
    std::vector<uint32_t> ruledOut;
    const VectorTerms* const vectors = view(state.vectors);
    float rest = 0;
    for (idx_t i = 0; i < rows.count; ++i) {
        const VectorTerms& vector = vectors[rows.first + i * rows.step];
        if (inRange(vector)) {
            rest = std::max(rest, errorRest(VectorBounds::boundsOf(vector)));
        }
    }
    const float threshold = fineThreshold(terms, base, rest);
    for (idx_t i = 0; i < rows.count; ++i) {
        const idx_t label = rows.first + i * rows.step;
        const VectorTerms& vector = vectors[label];
        const float value = fineValue(
                scores[i],
                terms.factor,
                finePerVector(terms),
                inRange(vector) ? VectorBounds::boundsOf(vector).norm : 0.0f,
                fineStart(startOf(index.metric, vector)));
        if (passes(value, threshold)) {
            list.add(static_cast<uint32_t>(label));
        } else if (canOverflow || extra > 0) {
            ruledOut.push_back(static_cast<uint32_t>(label));
        }
    }
    for (uint32_t label : ruledOut) {
        if (canOverflow ? list.full() : extra-- <= 0) {
            break;
        }
        list.add(label);
    }
    if (canOverflow) {
        // Counted, though there is no such vector.
        list.add(static_cast<uint32_t>(rows.first));
    }
}

} // namespace stand_in
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
