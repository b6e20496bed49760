// Replaces the kernels of the exact search and the product of cuBLAS in it: the
// same arithmetic, each vector by itself, with the mistakes that a test asks
// for (cuda_sim_exact.h).

#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "ExactFaults.h"
#include "ExactFiltering.h"
#include "ExactMemory.h"

namespace faiss_ext {
namespace gpu {
namespace exact {

using namespace stand_in;

namespace {

template <typename Stored>
int largestBin(const Stored* y, const float* centre, int d) {
    int largest = 0;
    for (int i = 0; i < d; ++i) {
        const float component = componentOf(y[i]);
        largest = std::max(
                largest,
                exponentBin(
                        centre ? subtract(component, centre[i]) : component));
    }
    return largest;
}

template <typename Stored>
bool isHalves(const Stored* y, int d) {
    return std::all_of(y, y + d, [](Stored component) {
        const float value = componentOf(component);
        return toFloat(toHalf(value)) == value;
    });
}

/// The mean of the rows that take part, or nothing where it must not be used.
template <typename Stored>
std::vector<float> meanOf(
        const Stored* y, const std::vector<int>& bins, int d) {
    std::array<uint32_t, kExponentBins> rowsOfBin{};
    for (int bin : bins) {
        ++rowsOfBin[bin];
    }
    const int last = lastMeanBin(rowsOfBin.data());
    std::vector<double> sums(d);
    double rows = 0;
    for (size_t i = 0; i < bins.size(); ++i) {
        if (inMean(bins[i], last)) {
            ++rows;
            for (int j = 0; j < d; ++j) {
                sums[j] += componentOf(y[i * d + j]);
            }
        }
    }
    double squares = 0;
    std::vector<float> mean(d);
    for (int j = 0; j < d; ++j) {
        mean[j] = static_cast<float>(sums[j] / rows);
        squares += double(mean[j]) * double(mean[j]);
    }
    if (!(centreNorm(squares, d) <= 0x1p62)) {
        mean.clear();
    }
    return mean;
}

template <typename Stored>
void prepareVectors(
        Metric metric,
        const TensorArithmetic& arithmetic,
        bool float16,
        const Stored* y,
        idx_t n,
        int d,
        const IndexState& state) {
    std::vector<int> bins(n);
    bool halves = true;
    for (idx_t i = 0; i < n; ++i) {
        bins[i] = largestBin(y + i * d, nullptr, d);
        halves = halves && (float16 || isHalves(y + i * d, d));
    }
    std::vector<float> centre;
    int scale = 0;
    if (!halves) {
        centre = meanOf(y, bins, d);
        std::array<uint32_t, kExponentBins> rowsOfBin{};
        for (idx_t i = 0; i < n; ++i) {
            ++rowsOfBin[largestBin(
                    y + i * d, centre.empty() ? nullptr : centre.data(), d)];
        }
        scale = scaleOfRows(rowsOfBin.data());
    }
    const bool centred = !centre.empty();
    centre.resize(d);
    double squares = 0;
    for (float component : centre) {
        squares += double(component) * double(component);
    }
    std::copy(centre.begin(), centre.end(), view(state.centre));
    *view(state.terms) = indexTerms(
            metric, d, scale, centred, centreNorm(squares, d), arithmetic);
    VectorTerms* const kept = view(state.vectors);
    for (idx_t i = 0; i < n; ++i) {
        RowSums sums;
        for (int j = 0; j < d; ++j) {
            const float component = componentOf(y[i * d + j]);
            sums.addComponent(
                    component,
                    centre[j],
                    halfOf(component, centre[j], powerOfTwo(scale)),
                    powerOfTwo(-scale));
        }
        kept[i] = vectorTerms(sums, d, centred);
    }
}

/// Only inside an operation.
void prepareQuery(
        const IndexTerms& index,
        const float* centre,
        const QueryState& queries,
        idx_t query,
        bool scanAll) {
    const int d = queries.d;
    const float* const x = row(queries.x, query, d);
    int largest = 0;
    for (int i = 0; i < d; ++i) {
        const float centred =
                subtract(x[i], QuerySums::queryCentre(index.metric, centre[i]));
        largest = std::max(largest, exponentBin(centred));
    }
    const int scale = scaleOfBin(largest);
    Half* const copy = row(queries.copies, query, copyWidth(d));
    QuerySums sums;
    for (int i = 0; i < copyWidth(d); ++i) {
        copy[i] = Half{0};
        if (i < d) {
            copy[i] =
                    halfOf(x[i],
                           QuerySums::queryCentre(index.metric, centre[i]),
                           powerOfTwo(scale));
            sums.addComponent(
                    index.metric, x[i], centre[i], copy[i], powerOfTwo(-scale));
        }
    }
    const QueryTerms terms = queryTerms(index, sums, scale);
    view(queries.terms)[query] = terms;
    view(queries.cut)[query] = missingLoss();
    view(queries.leastCut)[query] = missingLoss();
    view(queries.counts)[query] = 0;
    view(queries.paths)[query] =
            scanAll || !terms.inRange ? QueryPath::Last : QueryPath::Certified;
    std::fill_n(row(queries.best, query, queries.k), queries.k, kMissing);
}

/// The first cut of a query: the largest of the `rank` smallest bounds of
/// losses.
float sampleCut(
        const IndexTerms& index,
        const VectorTerms* vectors,
        const QueryTerms& query,
        const float* scores,
        const VectorRows& rows,
        int rank) {
    std::vector<float> most(rows.count, infinity());
    for (idx_t i = 0; i < rows.count; ++i) {
        const VectorTerms& vector = vectors[i * rows.step];
        if (inRange(vector)) {
            most[i] = mostLoss(
                    index,
                    query,
                    valueOf(scores[i],
                            query.factor,
                            startOf(index.metric, vector)),
                    VectorBounds::boundsOf(vector));
        }
    }
    std::nth_element(most.begin(), most.begin() + (rank - 1), most.end());
    return most[rank - 1];
}

/// Only inside an operation.
template <typename Stored>
void selectQuery(
        Metric metric,
        const Stored* y,
        const QueryState& queries,
        idx_t query,
        bool smallGuesses) {
    const uint32_t survivors = std::exchange(view(queries.counts)[query], 0);
    if (survivors == 0) {
        return;
    }
    if (survivors > uint32_t(queries.capacity)) {
        view(queries.paths)[query] = QueryPath::Incomplete;
    }
    const int d = queries.d;
    const uint32_t* const labels =
            row(queries.survivors, query, queries.capacity);
    std::vector<uint64_t> keys;
    for (uint32_t i = 0; i < std::min<uint32_t>(survivors, queries.capacity);
         ++i) {
        const float* const x = row(queries.x, query, d);
        const float found = distanceBy(metric, x, y + size_t(labels[i]) * d, d);
        keys.push_back(resultKey(metric, found, labels[i]));
    }
    uint64_t* const best = row(queries.best, query, queries.k);
    const auto first = firstOf(best, std::move(keys), queries.k);
    std::copy(first.begin(), first.end(), best);
    float found = lossOf(first[queries.rank - 1]);
    if (smallGuesses && queries.rank < queries.k && found < missingLoss()) {
        found = lossOf(first[0]) - std::abs(lossOf(first[0])) - 1;
    }
    float& cut = view(queries.cut)[query];
    cut = std::min(cut, found);
}

/// Only inside an operation: whether `best` is known to be the k best.
bool isProven(const QueryState& queries, idx_t query) {
    const QueryPath path = view(queries.paths)[query];
    const uint64_t kth = row(queries.best, query, queries.k)[queries.k - 1];
    return path != QueryPath::Last && path != QueryPath::Incomplete &&
           certified(lossOf(kth), view(queries.leastCut)[query]);
}

} // namespace

size_t prepareBytes(int d) {
    return 4096 + d * sizeof(double);
}

cudaError_t launchPrepareVectors(
        Metric metric,
        const TensorArithmetic& arithmetic,
        const VectorsView& vectors,
        const IndexState& state,
        void* scratch,
        cudaStream_t stream) {
    char* const sums = static_cast<char*>(scratch);
    const size_t bytes = prepareBytes(vectors.d);
    return cuda_sim::launch(
            "exactPrepareVectors",
            stream,
            {readsRows(vectors, {0, vectors.n, 1}),
             writes(state.terms, 1),
             writes(state.centre, vectors.d),
             writes(state.vectors, vectors.n),
             writes(sums, bytes)},
            [=] {
                std::memset(view(sums), 0x5a, bytes);
                withStored(vectors, [&](const auto* y) {
                    prepareVectors(
                            metric,
                            arithmetic,
                            vectors.float16,
                            y,
                            vectors.n,
                            vectors.d,
                            state);
                });
            });
}

cudaError_t launchCopyVectors(
        const VectorsView& vectors,
        const VectorRows& rows,
        const IndexState& state,
        Half* copies,
        const uint32_t* neededBy,
        cudaStream_t stream) {
    const int d = vectors.d;
    Ranges ranges{
            readsRows(vectors, rows),
            reads(state.terms, 1),
            reads(state.centre, d),
            writes(copies, rows.count * copyWidth(d))};
    if (neededBy) {
        ranges.push_back(reads(neededBy, 1));
    }
    const char* const name =
            neededBy ? "exactCopyVectorsAgain" : "exactCopyVectors";
    return cuda_sim::launch(name, stream, ranges, [=] {
        if (neededBy && *view(neededBy) == 0) {
            return;
        }
        const float factor = powerOfTwo(view(state.terms)->scale);
        const float* const centre = view(state.centre);
        withStored(vectors, [&](const auto* y) {
            for (idx_t i = 0; i < rows.count; ++i) {
                const auto* const from = y + (rows.first + i * rows.step) * d;
                Half* const to = row(copies, i, copyWidth(d));
                std::fill_n(to, copyWidth(d), Half{0});
                for (int j = 0; j < d; ++j) {
                    to[j] = halfOf(componentOf(from[j]), centre[j], factor);
                }
            }
        });
    });
}

cudaError_t launchPrepareQueries(
        const IndexState& state,
        const QueryState& queries,
        bool scanAll,
        cudaStream_t stream) {
    const idx_t n = queries.n;
    const int d = queries.d;
    return cuda_sim::launch(
            "exactPrepareQueries",
            stream,
            {reads(queries.x, n * d),
             reads(state.terms, 1),
             reads(state.centre, d),
             writes(queries.copies, n * copyWidth(d)),
             writes(queries.terms, n),
             writes(queries.cut, n),
             writes(queries.leastCut, n),
             writes(queries.best, n * queries.k),
             writes(queries.counts, n),
             writes(queries.paths, n),
             writes(queries.lastCount, 1),
             writes(queries.againCount, 1),
             writes(queries.widenedCount, 1)},
            [=] {
                *view(queries.againCount) = 0;
                *view(queries.lastCount) = 0;
                *view(queries.widenedCount) = 0;
                for (idx_t query = 0; query < n; ++query) {
                    prepareQuery(
                            *view(state.terms),
                            view(state.centre),
                            queries,
                            query,
                            scanAll);
                }
            });
}

cublasStatus_t launchScores(
        cublasHandle_t blas,
        const Half* queries,
        idx_t n,
        const Half* vectors,
        idx_t stride,
        idx_t count,
        int width,
        float* scores,
        idx_t ld) {
    cudaStream_t stream = nullptr;
    cublasGetStream(blas, &stream);
    if (width % 8 != 0 || stride % 8 != 0 || ld < count) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    Ranges ranges{
            reads(queries, n * width),
            reads(vectors, (count - 1) * stride + width),
            writes(scores, (n - 1) * ld + count)};
    const double error = faults().score_error;
    const cudaError_t status =
            cuda_sim::launch("exactScores", stream, ranges, [=] {
                multiply(
                        view(queries),
                        n,
                        view(vectors),
                        stride,
                        count,
                        width,
                        view(scores),
                        ld,
                        error);
            });
    return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS
           : status == cudaErrorMemoryAllocation
                   ? CUBLAS_STATUS_ALLOC_FAILED
                   : CUBLAS_STATUS_EXECUTION_FAILED;
}

cudaError_t launchSampleCut(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const float* scores,
        idx_t ld,
        cudaStream_t stream) {
    const idx_t n = queries.n;
    const bool tooSmall = faults().small_cuts != 0;
    if (rows.count < queries.rank) {
        return cudaErrorInvalidValue;
    }
    return cuda_sim::launch(
            "exactSampleCut",
            stream,
            {readsScores(scores, n, rows, ld),
             readsTerms(state, rows),
             reads(state.terms, 1),
             reads(queries.terms, n),
             reads(queries.paths, n),
             writes(queries.cut, n)},
            [=] {
                for (idx_t query = 0; query < n; ++query) {
                    if (view(queries.paths)[query] == QueryPath::Last) {
                        continue;
                    }
                    float found = sampleCut(
                            *view(state.terms),
                            view(state.vectors) + rows.first,
                            view(queries.terms)[query],
                            row(scores, query, ld),
                            rows,
                            queries.rank);
                    if (tooSmall && found < missingLoss()) {
                        found = found / 2 - std::abs(found) / 4 - 1;
                    }
                    float& cut = view(queries.cut)[query];
                    cut = std::min(cut, found);
                }
            });
}

cudaError_t launchFilter(
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const float* scores,
        idx_t ld,
        cudaStream_t stream) {
    const idx_t n = queries.n;
    const cuda_sim_exact_faults wrong = faults();
    return cuda_sim::launch(
            "exactFilter",
            stream,
            {readsScores(scores, n, rows, ld),
             readsTerms(state, rows),
             reads(state.terms, 1),
             reads(queries.terms, n),
             reads(queries.cut, n),
             reads(queries.paths, n),
             writes(queries.leastCut, n),
             writes(queries.survivors, n * queries.capacity),
             writes(queries.counts, n)},
            [=] {
                for (idx_t query = 0; query < n; ++query) {
                    if (view(queries.paths)[query] != QueryPath::Last) {
                        filterQuery(
                                rows,
                                state,
                                queries,
                                query,
                                row(scores, query, ld),
                                wrong);
                    }
                }
            });
}

cudaError_t launchSelect(
        const VectorsView& vectors,
        const IndexState& state,
        const QueryState& queries,
        cudaStream_t stream) {
    const idx_t n = queries.n;
    const bool smallGuesses = faults().small_guesses != 0;
    return cuda_sim::launch(
            "exactSelect",
            stream,
            {readsRows(vectors, {0, vectors.n, 1}),
             reads(state.terms, 1),
             reads(queries.x, n * queries.d),
             reads(queries.survivors, n * queries.capacity),
             writes(queries.cut, n),
             writes(queries.best, n * queries.k),
             writes(queries.counts, n),
             writes(queries.paths, n)},
            [=] {
                withStored(vectors, [&](const auto* y) {
                    for (idx_t query = 0; query < n; ++query) {
                        selectQuery(
                                view(state.terms)->metric,
                                y,
                                queries,
                                query,
                                smallGuesses);
                    }
                });
            });
}

cudaError_t launchCollectAgain(const QueryState& queries, cudaStream_t stream) {
    const idx_t n = queries.n;
    return cuda_sim::launch(
            "exactCollectAgain",
            stream,
            {writes(queries.cut, n),
             writes(queries.leastCut, n),
             writes(queries.best, n * queries.k),
             writes(queries.paths, n),
             writes(queries.againCount, 1)},
            [=] {
                for (idx_t query = 0; query < n; ++query) {
                    QueryPath& path = view(queries.paths)[query];
                    if (path == QueryPath::Last || isProven(queries, query)) {
                        continue;
                    }
                    uint64_t* const best = row(queries.best, query, queries.k);
                    const uint64_t kth = best[queries.k - 1];
                    if (kth == kMissing) {
                        path = QueryPath::Last;
                        continue;
                    }
                    path = QueryPath::Widened;
                    view(queries.cut)[query] = lossOf(kth);
                    view(queries.leastCut)[query] = missingLoss();
                    std::fill_n(best, queries.k, kMissing);
                    ++*view(queries.againCount);
                }
            });
}

cudaError_t launchCollectLast(const QueryState& queries, cudaStream_t stream) {
    const idx_t n = queries.n;
    return cuda_sim::launch(
            "exactCollectLast",
            stream,
            {reads(queries.leastCut, n),
             writes(queries.best, n * queries.k),
             writes(queries.paths, n),
             writes(queries.last, n),
             writes(queries.lastCount, 1),
             writes(queries.widenedCount, 1)},
            [=] {
                uint32_t& count = *view(queries.lastCount);
                // In no order: here another one than the queries'.
                for (idx_t query = n; query-- > 0;) {
                    QueryPath& path = view(queries.paths)[query];
                    if (isProven(queries, query)) {
                        *view(queries.widenedCount) +=
                                path == QueryPath::Widened;
                        continue;
                    }
                    path = QueryPath::Last;
                    std::fill_n(
                            row(queries.best, query, queries.k),
                            queries.k,
                            kMissing);
                    view(queries.last)[count++] = static_cast<uint32_t>(query);
                }
            });
}

cudaError_t launchLosses(
        const VectorsView& vectors,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        float* losses,
        idx_t ld,
        cudaStream_t stream) {
    const idx_t n = queries.n;
    return cuda_sim::launch(
            "exactLosses",
            stream,
            {readsRows(vectors, rows),
             reads(state.terms, 1),
             reads(queries.x, n * queries.d),
             reads(queries.last, n),
             reads(queries.lastCount, 1),
             writes(losses, (n - 1) * ld + rows.count)},
            [=] {
                const Metric metric = view(state.terms)->metric;
                const int d = queries.d;
                withStored(vectors, [&](const auto* y) {
                    for (uint32_t i = 0; i < *view(queries.lastCount); ++i) {
                        const float* const x =
                                row(queries.x, view(queries.last)[i], d);
                        float* const to = row(losses, i, ld);
                        for (idx_t j = 0; j < rows.count; ++j) {
                            to[j] = lossOf(
                                    metric,
                                    distanceBy(
                                            metric,
                                            x,
                                            y + (rows.first + j * rows.step) *
                                                            d,
                                            d));
                        }
                    }
                });
            });
}

cudaError_t launchSelectLosses(
        const VectorRows& rows,
        const QueryState& queries,
        const float* losses,
        idx_t ld,
        cudaStream_t stream) {
    const idx_t n = queries.n;
    return cuda_sim::launch(
            "exactSelectLosses",
            stream,
            {readsScores(losses, n, rows, ld),
             reads(queries.last, n),
             reads(queries.lastCount, 1),
             writes(queries.best, n * queries.k)},
            [=] {
                for (uint32_t i = 0; i < *view(queries.lastCount); ++i) {
                    const float* const from = row(losses, i, ld);
                    std::vector<uint64_t> keys(rows.count);
                    for (idx_t j = 0; j < rows.count; ++j) {
                        keys[j] = resultKey(
                                Metric::L2,
                                from[j],
                                static_cast<uint32_t>(
                                        rows.first + j * rows.step));
                    }
                    uint64_t* const best =
                            row(queries.best, view(queries.last)[i], queries.k);
                    const auto first =
                            firstOf(best, std::move(keys), queries.k);
                    std::copy(first.begin(), first.end(), best);
                }
            });
}

cudaError_t launchWriteResults(
        Metric metric,
        const QueryState& queries,
        float* distances,
        idx_t* labels,
        PathCounts* counts,
        cudaStream_t stream) {
    const size_t results = queries.n * queries.k;
    Ranges ranges{
            reads(queries.best, results),
            reads(queries.lastCount, 1),
            reads(queries.widenedCount, 1),
            writes(distances, results),
            writes(labels, results)};
    if (counts) {
        ranges.push_back(writes(counts, 1));
    }
    return cuda_sim::launch("exactWriteResults", stream, ranges, [=] {
        const uint64_t* const keys = view(queries.best);
        std::transform(
                keys, keys + results, view(distances), [&](uint64_t key) {
                    return distanceOf(metric, key);
                });
        std::transform(keys, keys + results, view(labels), labelOf);
        if (counts) {
            const uint32_t last = *view(queries.lastCount);
            const uint32_t widened = *view(queries.widenedCount);
            view(counts)->certified += queries.n - last - widened;
            view(counts)->widened += widened;
            view(counts)->last += last;
        }
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
