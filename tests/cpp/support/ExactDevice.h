#pragma once

// An exact search's arrays on a GPU, and the order in which its kernels are
// launched. No Faiss library, nothing of the index classes.

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <faiss_ext/gpu/compute/exact/CutRank.h>
#include <faiss_ext/gpu/compute/kernels/ExactFusedFilter.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/ExactFilter.h"

namespace test {

using exact::FilterPass;
using exact::IndexState;
using exact::QueryPath;
using exact::QueryState;
using exact::VectorRows;
using faiss_ext::gpu::VectorsView;

inline void check(cudaError_t error) {
    ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
}

inline void check(cublasStatus_t status) {
    ASSERT_EQ(status, CUBLAS_STATUS_SUCCESS);
}

/// Memory on the GPU, filled with what no kernel should read.
template <typename T>
class DeviceArray {
   public:
    explicit DeviceArray(size_t count) : count_(count) {
        check(cudaMalloc(&data_, bytes()));
        check(cudaMemset(data_, 0xcb, bytes()));
    }
    explicit DeviceArray(const std::vector<T>& values)
            : DeviceArray(values.size()) {
        write(values);
    }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    ~DeviceArray() {
        cudaFree(data_);
    }

    T* get() const {
        return static_cast<T*>(data_);
    }

    void write(const std::vector<T>& values) {
        check(cudaMemcpy(
                data_,
                values.data(),
                values.size() * sizeof(T),
                cudaMemcpyHostToDevice));
    }

    std::vector<T> read() const {
        std::vector<T> values(count_);
        check(cudaMemcpy(
                values.data(),
                data_,
                count_ * sizeof(T),
                cudaMemcpyDeviceToHost));
        return values;
    }

    T at(size_t i) const {
        T value;
        check(cudaMemcpy(
                &value, get() + i, sizeof value, cudaMemcpyDeviceToHost));
        return value;
    }

   private:
    size_t bytes() const {
        return std::max<size_t>(count_, 1) * sizeof(T);
    }

    size_t count_;
    void* data_ = nullptr;
};

inline exact::TensorArithmetic testedArithmetic() {
    return exact::hopperArithmetic();
}

/// A store on the GPU and what is kept beside it, once prepared.
class DeviceIndex {
   public:
    explicit DeviceIndex(const Store& given)
            : store(given),
              n(store.size()),
              rows_(store.rows),
              halves_(store.halves),
              terms(1),
              centre(store.d),
              vectors(n) {
        view.float16 = !store.halves.empty();
        view.data =
                view.float16 ? static_cast<void*>(halves_.get()) : rows_.get();
        view.norms = nullptr;
        view.n = n;
        view.d = store.d;
        state = {terms.get(), centre.get(), vectors.get()};
        DeviceArray<char> scratch(exact::prepareBytes(store.d));
        check(exact::launchPrepareVectors(
                store.metric,
                testedArithmetic(),
                view,
                state,
                scratch.get(),
                nullptr));
        check(cudaDeviceSynchronize());
    }

    const Store store;
    const int64_t n;

   private:
    DeviceArray<float> rows_;
    DeviceArray<Half> halves_;

   public:
    DeviceArray<IndexTerms> terms;
    DeviceArray<float> centre;
    DeviceArray<VectorTerms> vectors;
    VectorsView view;
    IndexState state;
};

/// A tile of queries on the GPU, and what a search keeps of them.
class DeviceQueries {
   public:
    DeviceQueries(const std::vector<float>& given, int d, int k, int capacity)
            : n(given.size() / d),
              x(given),
              copies(n * exact::copyWidth(d)),
              terms(n),
              cut(n),
              leastCut(n),
              best(size_t(n) * k),
              survivors(size_t(n) * capacity),
              counts(n),
              paths(n),
              last(n),
              lastCount(1),
              againCount(1),
              widenedCount(1) {
        state.n = n;
        state.d = d;
        state.k = k;
        state.capacity = capacity;
        state.x = x.get();
        state.copies = copies.get();
        state.terms = terms.get();
        state.cut = cut.get();
        state.leastCut = leastCut.get();
        state.best = best.get();
        state.survivors = survivors.get();
        state.counts = counts.get();
        state.paths = paths.get();
        state.last = last.get();
        state.lastCount = lastCount.get();
        state.againCount = againCount.get();
        state.widenedCount = widenedCount.get();
        state.rank = k;
    }

    const int64_t n;
    DeviceArray<float> x;
    DeviceArray<Half> copies;
    DeviceArray<QueryTerms> terms;
    DeviceArray<float> cut;
    DeviceArray<float> leastCut;
    DeviceArray<uint64_t> best;
    DeviceArray<uint32_t> survivors;
    DeviceArray<uint32_t> counts;
    DeviceArray<QueryPath> paths;
    DeviceArray<uint32_t> last;
    DeviceArray<uint32_t> lastCount;
    DeviceArray<uint32_t> againCount;
    DeviceArray<uint32_t> widenedCount;
    QueryState state;
};

/// Copies of some rows, if a query is to be filtered again, or always.
class DeviceCopies {
   public:
    DeviceCopies(
            const DeviceIndex& index,
            const VectorRows& rows,
            const uint32_t* neededBy = nullptr)
            : copies(rows.count * exact::copyWidth(index.store.d)) {
        check(exact::launchCopyVectors(
                index.view,
                rows,
                index.state,
                copies.get(),
                neededBy,
                nullptr));
    }

    DeviceArray<Half> copies;
};

inline cublasHandle_t testedBlas() {
    static const cublasHandle_t handle = [] {
        cublasHandle_t made = nullptr;
        check(cublasCreate(&made));
        return made;
    }();
    return handle;
}

/// Copies and scores [n, ld] of some rows.
class DeviceScores : public DeviceCopies {
   public:
    DeviceScores(
            const DeviceIndex& index,
            const DeviceQueries& queries,
            const VectorRows& of,
            int64_t padding = 0)
            : DeviceCopies(index, of),
              rows(of),
              ld(rows.count + padding),
              scores(queries.n * ld) {
        const int width = exact::copyWidth(index.store.d);
        // As in searches, some stores are their own copies.
        const bool own = index.view.float16 && width == index.store.d;
        check(exact::launchScores(
                testedBlas(),
                queries.copies.get(),
                queries.n,
                own ? static_cast<const Half*>(index.view.data) +
                                rows.first * width
                    : copies.get(),
                own ? rows.step * width : width,
                rows.count,
                width,
                scores.get(),
                ld));
    }

    const VectorRows rows;
    const int64_t ld;
    DeviceArray<float> scores;
};

inline bool fusedFilterRuns() {
    bool runs = false;
    check(exact::fusedFilterRuns(runs));
    return runs;
}

/// How a search is cut.
struct SearchSizes {
    int64_t chunk;
    int capacity;
    /// Of each row of scores, beyond the vectors.
    int64_t padding;
    bool scanAll;
    /// Filters without scores in memory, in two rounds.
    bool fused = false;
    /// Cuts are guessed, as if what was seen were a fair sample.
    bool guessed = false;
    /// In the first round of the fused filter, so many are filtered before each
    /// selection.
    int chunksOfSelection = 1;
};

struct SearchResults {
    std::vector<float> distances;
    std::vector<int64_t> labels;
    std::vector<QueryPath> paths;
    exact::PathCounts counts;
};

/// Filters all vectors, as a search does between its first cut and its last
/// path.
template <typename EachChunk, typename Guess>
void filterOnDevice(
        const DeviceIndex& index,
        const DeviceQueries& queries,
        const SearchSizes& sizes,
        const EachChunk& eachChunk,
        const Guess& guess) {
    const QueryState& state = queries.state;
    const auto select = [&] {
        check(exact::launchSelect(index.view, index.state, state, nullptr));
    };
    if (!sizes.fused) {
        eachChunk([&](const VectorRows& rows) {
            const DeviceScores scored(index, queries, rows, sizes.padding);
            check(exact::launchFilter(
                    rows,
                    index.state,
                    state,
                    scored.scores.get(),
                    scored.ld,
                    nullptr));
            guess(rows.first + rows.count);
            select();
            check(cudaDeviceSynchronize());
        });
        return;
    }
    const auto filter = [&](FilterPass pass, const VectorRows& rows) {
        const DeviceCopies copied(
                index,
                rows,
                pass == FilterPass::Again ? state.againCount : nullptr);
        check(exact::launchFusedFilter(
                pass,
                rows,
                index.state,
                state,
                copied.copies.get(),
                exact::copyWidth(index.store.d),
                nullptr));
        check(cudaDeviceSynchronize());
    };
    int chunks = 0;
    eachChunk([&](const VectorRows& rows) {
        filter(FilterPass::First, rows);
        const int64_t seen = rows.first + rows.count;
        if (++chunks % sizes.chunksOfSelection == 0 || seen == index.n) {
            guess(seen);
            select();
        }
    });
    check(exact::launchCollectAgain(state, nullptr));
    eachChunk([&](const VectorRows& rows) { filter(FilterPass::Again, rows); });
    select();
}

/// A whole search.
inline SearchResults searchOnDevice(
        const DeviceIndex& index,
        const std::vector<float>& x,
        int k,
        const SearchSizes& sizes) {
    DeviceQueries queries(x, index.store.d, k, sizes.capacity);
    QueryState& state = queries.state;
    const auto guess = [&](int64_t seen) {
        state.rank = sizes.guessed ? exact::cutRank(k, seen, index.n) : k;
    };
    check(exact::launchPrepareQueries(
            index.state, state, sizes.scanAll, nullptr));
    if (!sizes.scanAll) {
        const VectorRows sample = {0, sizes.chunk, index.n / sizes.chunk};
        const DeviceScores scored(index, queries, sample, sizes.padding);
        guess(sizes.chunk);
        check(exact::launchSampleCut(
                sample,
                index.state,
                state,
                scored.scores.get(),
                scored.ld,
                nullptr));
        check(cudaDeviceSynchronize());
    }
    const auto eachChunk = [&](const auto& function) {
        for (int64_t first = 0; first < index.n; first += sizes.chunk) {
            function(VectorRows{
                    first, std::min(sizes.chunk, index.n - first), 1});
        }
    };
    if (!sizes.scanAll) {
        filterOnDevice(index, queries, sizes, eachChunk, guess);
    }
    check(exact::launchCollectLast(state, nullptr));
    eachChunk([&](const VectorRows& rows) {
        const int64_t ld = rows.count + sizes.padding;
        DeviceArray<float> losses(queries.n * ld);
        check(exact::launchLosses(
                index.view,
                rows,
                index.state,
                state,
                losses.get(),
                ld,
                nullptr));
        check(exact::launchSelectLosses(
                rows, state, losses.get(), ld, nullptr));
        check(cudaDeviceSynchronize());
    });
    DeviceArray<float> distances(queries.n * k);
    DeviceArray<faiss_ext::gpu::idx_t> labels(queries.n * k);
    DeviceArray<exact::PathCounts> counts({{1, 2, 3}});
    check(exact::launchWriteResults(
            index.store.metric,
            state,
            distances.get(),
            labels.get(),
            counts.get(),
            nullptr));
    check(cudaDeviceSynchronize());
    const std::vector<faiss_ext::gpu::idx_t> found = labels.read();
    return {distances.read(),
            std::vector<int64_t>(found.begin(), found.end()),
            queries.paths.read(),
            counts.at(0)};
}

/// Result keys of a query and some rows, ascending.
inline std::vector<uint64_t> keysOf(
        const Store& store,
        const float* x,
        const std::vector<uint32_t>& labels) {
    std::vector<uint64_t> keys;
    for (uint32_t label : labels) {
        keys.push_back(exact::resultKey(
                store.metric, store.distance(x, label), label));
    }
    std::sort(keys.begin(), keys.end());
    return keys;
}

/// As many as there are rows.
inline std::vector<uint64_t> keysOf(const Store& store, const float* x) {
    std::vector<uint32_t> labels(store.size());
    for (size_t i = 0; i < labels.size(); ++i) {
        labels[i] = static_cast<uint32_t>(i);
    }
    return keysOf(store, x, labels);
}

} // namespace test
