#include "Subject.h"

#include <faiss/IndexFlat.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/index/GpuIndexFlatCosine.h>

#include <algorithm>
#include <exception>
#include <thread>

#include "../support/Calls.h"
#include "../support/ExactNeighbours.h"
#include "../support/NormalizedRows.h"
#include "Caller.h"
#include "Oracle.h"

namespace scenarios {

namespace {

template <typename Index>
class IndexSubject : public Subject {
   public:
    IndexSubject(Run& run, const Setup& setup)
            : run_(run),
              d_(setup.dims > 0 ? setup.dims : 4 * run.pick(1, 4)),
              device_(setup.device),
              innerProduct_(setup.innerProduct || setup.cosine),
              cosine_(setup.cosine),
              float16_(setup.float16),
              scarce_(setup.config.pinnedBytes > 0),
              resources_(run.resources(setup.resources)),
              caller_(
                      run,
                      setup.device,
                      [this] { return defaultStream(); },
                      setup.full) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.device = setup.device;
        config.useFloat16 = setup.float16;
        test::TunedConfig staged = setup.config;
        if (staged.copyThreads == 0) {
            // Chunks of a cache line: even small arrays are shared out.
            staged.copyThreads = run.oneOf({1, 2, 8});
            staged.copyChunkBytes = 64;
        }
        if (staged.mappedBytes == 0) {
            // None, some and all calls of one tile.
            staged.mappedBytes = run.oneOf({1, 300, 1 << 20});
        }
        if (staged.tileRows > 0) {
            // Results of all tiles but the last by host functions, and of few.
            staged.oneTileBytes = run.oneOf({1, 300, 1 << 20});
        }
        if (staged.search.empty() && !run.faulty()) {
            staged.search = run.oneOf({"faiss", "exact"});
        }
        exact_ = staged.search == "exact";
        if (exact_) {
            run.makeExactMistakes();
        }
        index_ = makeIndex(config, staged);
        run.afterFault([this] { answer(); });
    }

    void search(const Places& places) override {
        searchBy(places, [this](auto... arguments) {
            index_->search(arguments...);
        });
    }

    void profileSearch(const Places& places) override {
        searchBy(places, [this](auto... arguments) {
            const auto profile = index_->profile_search(arguments...);
            require(!profile.spans.empty(), "a profile without stages");
            for (const auto& span : profile.spans) {
                require(span.begin <= span.end,
                        "a stage ends before it begins");
            }
            for (const auto& span : profile.computeSpans) {
                require(span.begin <= span.end,
                        "a stage of the engine ends before it begins");
            }
            for (const auto& stage : profile.computeStages) {
                require(stage.spans > 0 && stage.seconds >= 0 &&
                                (stage.floor == -1 || stage.floor >= 0),
                        "a stage of the engine that makes no sense");
            }
        });
    }

    void searchPacked(Memory x, Memory results) override {
        const idx_t n = rows(0);
        const idx_t k = neighbours(0);
        const auto queries = someVectors(n, d_);
        const size_t labelBytes = n * k * sizeof(idx_t);
        caller_.call(
                {input(x, queries)},
                {output(results, labelBytes + n * k * sizeof(float))},
                [this, n, k](const Pointers& in, const Pointers& out) {
                    test::searchPacked(
                            *index_,
                            n,
                            reinterpret_cast<float*>(in[0]),
                            k,
                            out[0]);
                },
                [verify = neighboursOf(queries, k),
                 labelBytes](const std::vector<Bytes>& out) {
                    const auto middle = out[0].begin() + labelBytes;
                    verify({Bytes(middle, out[0].end()),
                            Bytes(out[0].begin(), middle)});
                });
    }

    void assign(
            Memory x, Memory labels, int rowCount, int labelCount) override {
        const idx_t n = rows(rowCount);
        const idx_t k = neighbours(labelCount);
        const auto queries = someVectors(n, d_);
        caller_.call(
                {input(x, queries)},
                {output(labels, n * k * sizeof(idx_t))},
                [this, n, k](const Pointers& in, const Pointers& out) {
                    index_->assign(
                            n,
                            reinterpret_cast<float*>(in[0]),
                            reinterpret_cast<idx_t*>(out[0]),
                            k);
                },
                [this, queries, k, base = base_](
                        const std::vector<Bytes>& out) {
                    requireNeighbours(
                            base,
                            compared(queries),
                            d_,
                            k,
                            innerProduct_,
                            exact_,
                            nullptr,
                            valuesOf<idx_t>(out[0]).data());
                });
    }

    void searchAndReconstruct(const Places& places, Memory recons) override {
        const idx_t n = rows(places.n);
        const idx_t k = neighbours(places.k);
        const auto queries = someVectors(n, d_);
        const auto verifySearch = neighboursOf(queries, k);
        caller_.call(
                {input(places.x, queries)},
                {output(places.distances, n * k * sizeof(float)),
                 output(places.labels, n * k * sizeof(idx_t)),
                 output(recons, n * k * d_ * sizeof(float))},
                [this, n, k](const Pointers& in, const Pointers& out) {
                    index_->search_and_reconstruct(
                            n,
                            reinterpret_cast<float*>(in[0]),
                            k,
                            reinterpret_cast<float*>(out[0]),
                            reinterpret_cast<idx_t*>(out[1]),
                            reinterpret_cast<float*>(out[2]));
                },
                [this, verifySearch, base = base_](
                        const std::vector<Bytes>& out) {
                    verifySearch(out);
                    requireRows(base, d_, valuesOf<idx_t>(out[1]), {}, out[2]);
                });
    }

    void reconstructN(Memory out, int rowCount) override {
        const idx_t ntotal = base_.size() / d_;
        const idx_t n = std::min<idx_t>(rows(rowCount), ntotal);
        const idx_t first = run_.pick(0, ntotal - n);
        std::vector<idx_t> keys(n);
        for (idx_t i = 0; i < n; ++i) {
            keys[i] = first + i;
        }
        caller_.call(
                {},
                {output(out, n * d_ * sizeof(float))},
                [this, n, first](const Pointers&, const Pointers& out) {
                    index_->reconstruct_n(
                            first, n, reinterpret_cast<float*>(out[0]));
                },
                [this, keys, base = base_](const std::vector<Bytes>& out) {
                    requireRows(base, d_, keys, {}, out[0]);
                });
    }

    void reconstructBatch(Memory keys, Memory out, int rowCount) override {
        const auto wanted = someKeys(rows(rowCount));
        caller_.call(
                {input(keys, wanted)},
                {output(out, wanted.size() * d_ * sizeof(float))},
                [this, n = wanted.size()](
                        const Pointers& in, const Pointers& out) {
                    index_->reconstruct_batch(
                            n,
                            reinterpret_cast<idx_t*>(in[0]),
                            reinterpret_cast<float*>(out[0]));
                },
                [this, wanted, base = base_](const std::vector<Bytes>& out) {
                    requireRows(base, d_, wanted, {}, out[0]);
                });
    }

    void residuals(Memory xs, Memory keys, Memory out, int rowCount) override {
        const auto wanted = someKeys(rows(rowCount));
        const auto vectors = someVectors(wanted.size(), d_);
        caller_.call(
                {input(xs, vectors), input(keys, wanted)},
                {output(out, vectors.size() * sizeof(float))},
                [this, n = wanted.size()](
                        const Pointers& in, const Pointers& out) {
                    index_->compute_residual_n(
                            n,
                            reinterpret_cast<float*>(in[0]),
                            reinterpret_cast<float*>(out[0]),
                            reinterpret_cast<idx_t*>(in[1]));
                },
                [this, wanted, vectors, base = base_](
                        const std::vector<Bytes>& out) {
                    requireRows(base, d_, wanted, vectors, out[0]);
                });
    }

    void add(Memory x, int n) override {
        const auto vectors = someVectors(n, d_);
        auto buffer = caller_.given(input(x, vectors));
        const auto before = index_->ntotal;
        try {
            FaissAtWork here;
            index_->add(n, reinterpret_cast<float*>(buffer->data()));
        } catch (...) {
            remember(vectors, before);
            throw;
        }
        remember(vectors, before);
        // Read when the call returns, wherever it was; in device memory, in the
        // order of the default stream.
        caller_.takeAway(*buffer, true);
    }

    void clear() override {
        FaissAtWork here;
        index_->reset();
        base_.clear();
    }

    void copyFrom(int n) override {
        const auto vectors = someVectors(n, d_);
        faiss::IndexFlat cpu(
                d_,
                innerProduct_ ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2);
        cpu.add(n, vectors.data());
        known_ = false;
        FaissAtWork here;
        copyInto(*index_, cpu);
        known_ = true;
        base_ = stored(vectors);
    }

    void destroy() override {
        index_.reset();
        resources_.reset();
    }

    cudaStream_t defaultStream() override {
        return resources_->getDefaultStream(device_);
    }

    void waitForStream(cudaStream_t stream) override {
        index_->waitForStream(stream);
    }

    void makeStreamWait(cudaStream_t stream) override {
        index_->makeStreamWait(stream);
    }

    void searchBetween(
            cudaStream_t producer,
            cudaStream_t consumer,
            const Places& places) override {
        const idx_t n = rows(places.n);
        const idx_t k = neighbours(places.k);
        const auto queries = someVectors(n, d_);
        auto x = run_.buffer(places.x, queries.size() * sizeof(float));
        auto distances = run_.buffer(places.distances, n * k * sizeof(float));
        auto labels = run_.buffer(places.labels, n * k * sizeof(idx_t));
        x->streamWrite(bytesOf(queries), producer);
        index_->waitForStream(producer);
        index_->search(
                n,
                reinterpret_cast<float*>(x->data()),
                k,
                reinterpret_cast<float*>(distances->data()),
                reinterpret_cast<idx_t*>(labels->data()));
        index_->makeStreamWait(consumer);
        // The consumer may hand the queries' memory to somebody else, too.
        x->streamWrite(rubbish(x->size()), consumer);
        const auto verify = neighboursOf(queries, k);
        run_.later([=] {
            verify({distances->streamRead(consumer),
                    labels->streamRead(consumer)});
        });
    }

    void searchFromThreads(int threads, int rounds) override {
        struct Round {
            std::vector<float> queries;
            std::vector<float> distances;
            std::vector<idx_t> labels;
        };
        const idx_t k = neighbours(0);
        std::vector<Round> work(threads * rounds);
        for (auto& one : work) {
            const idx_t n = rows(0);
            one = {someVectors(n, d_),
                   std::vector<float>(n * k),
                   std::vector<idx_t>(n * k)};
        }
        std::mutex mutex;
        std::exception_ptr failure;
        std::vector<std::thread> running;
        for (int t = 0; t < threads; ++t) {
            running.emplace_back([&, t] {
                for (int round = 0; round < rounds; ++round) {
                    Round& mine = work[t * rounds + round];
                    try {
                        index_->search(
                                mine.queries.size() / d_,
                                mine.queries.data(),
                                k,
                                mine.distances.data(),
                                mine.labels.data());
                    } catch (...) {
                        std::lock_guard<std::mutex> guard(mutex);
                        failure = std::current_exception();
                        mine.queries.clear();
                    }
                }
            });
        }
        for (auto& thread : running) {
            thread.join();
        }
        for (const Round& one : work) {
            if (!one.queries.empty()) {
                requireNeighbours(
                        base_,
                        compared(one.queries),
                        d_,
                        k,
                        innerProduct_,
                        exact_,
                        one.distances.data(),
                        one.labels.data());
            }
        }
        if (failure) {
            std::rethrow_exception(failure);
        }
    }

    void fill(int n) {
        if (n > 0) {
            add(Memory::Pageable, n);
        }
    }

   private:
    template <typename Search>
    void searchBy(const Places& places, const Search& search) {
        const idx_t n = rows(places.n);
        const idx_t k = neighbours(places.k);
        const auto queries = someVectors(n, d_);
        caller_.call(
                {input(places.x, queries)},
                {output(places.distances, n * k * sizeof(float)),
                 output(places.labels, n * k * sizeof(idx_t))},
                [n, k, search](const Pointers& in, const Pointers& out) {
                    search(n,
                           reinterpret_cast<float*>(in[0]),
                           k,
                           reinterpret_cast<float*>(out[0]),
                           reinterpret_cast<idx_t*>(out[1]));
                },
                neighboursOf(queries, k));
    }

    std::unique_ptr<Index> makeIndex(
            const faiss::gpu::GpuIndexFlatConfig& config,
            const test::TunedConfig& staged) {
        if constexpr (std::is_same_v<Index, faiss_ext::gpu::GpuIndexFlat>) {
            return std::make_unique<Index>(
                    resources_,
                    d_,
                    innerProduct_ ? faiss::METRIC_INNER_PRODUCT
                                  : faiss::METRIC_L2,
                    config,
                    staged);
        } else {
            return std::make_unique<Index>(resources_, d_, config, staged);
        }
    }

    static void copyInto(
            faiss_ext::gpu::GpuIndexFlat& index, faiss::IndexFlat& cpu) {
        index.copyFrom(&cpu);
    }
    template <typename Other>
    static void copyInto(Other& index, faiss::IndexFlat& cpu) {
        index.copyFrom(&cpu);
    }

    std::vector<float> someVectors(idx_t n, int d) {
        auto made = run_.vectors(n, d);
        for (size_t i = 0; cosine_ && !exact_ && i < made.size(); ++i) {
            // In a row one component of those that a row has.
            made[i] = i % d == i / d % d ? made[i] : 0;
        }
        return made;
    }

    /// As the index compares, and stores, what it is given.
    std::vector<float> compared(const std::vector<float>& given) const {
        return cosine_ ? test::asDocumented(given, d_) : given;
    }
    std::vector<float> stored(const std::vector<float>& given) const {
        // What others store, small integers, no float16 rounds.
        return test::asStored(compared(given), float16_);
    }

    idx_t rows(int n) {
        return n > 0 ? n : run_.pick(5, 24);
    }
    idx_t neighbours(int k) {
        return k > 0 ? k : run_.pick(1, 6);
    }

    std::vector<idx_t> someKeys(idx_t n) {
        std::vector<idx_t> keys(n);
        for (idx_t& key : keys) {
            key = run_.pick(0, base_.size() / d_ - 1);
        }
        return keys;
    }

    Verify neighboursOf(const std::vector<float>& queries, idx_t k) {
        return [this, queries, k, base = base_](const std::vector<Bytes>& out) {
            requireNeighbours(
                    base,
                    compared(queries),
                    d_,
                    k,
                    innerProduct_,
                    exact_,
                    valuesOf<float>(out[0]).data(),
                    valuesOf<idx_t>(out[1]).data());
        };
    }

    /// After an `add` that may have failed: ntotal tells what is stored.
    void remember(const std::vector<float>& vectors, idx_t before) {
        if (index_->ntotal == before + idx_t(vectors.size() / d_)) {
            const auto added = stored(vectors);
            base_.insert(base_.end(), added.begin(), added.end());
        }
    }

    /// After a fault: right answers, of one tile and of many.
    void answer() {
        if (!index_ || !known_) {
            return;
        }
        // A tiny pool has no room for queries and results.
        const Memory host = scarce_ ? Memory::Pinned : Memory::Pageable;
        for (int n : {1, 13}) {
            search({host, host, host, n, 3});
        }
        search({Memory::Pageable, Memory::Device, Memory::Device, 13, 3});
        run_.settle();
    }

    Run& run_;
    const int d_;
    const int device_;
    const bool innerProduct_;
    const bool cosine_;
    const bool float16_;
    const bool scarce_;
    /// Searched by the exact engine.
    bool exact_ = false;
    std::shared_ptr<faiss::gpu::GpuResources> resources_;
    Caller caller_;
    std::unique_ptr<Index> index_;
    std::vector<float> base_;
    /// Whether base_ is what the index holds: not after a failed copyFrom.
    bool known_ = true;
};

template <typename Index>
std::shared_ptr<Subject> makeSubject(Run& run, const Setup& setup) {
    auto subject = std::make_shared<IndexSubject<Index>>(run, setup);
    run.keep(subject);
    subject->fill(setup.vectors >= 0 ? setup.vectors : run.pick(30, 80));
    return subject;
}

} // namespace

std::shared_ptr<Subject> Subject::make(Run& run, const Setup& setup) {
    if (setup.cosine) {
        return makeSubject<faiss_ext::gpu::GpuIndexFlatCosine>(run, setup);
    }
    if (run.coin()) {
        return makeSubject<faiss_ext::gpu::GpuIndexFlat>(run, setup);
    }
    if (setup.innerProduct) {
        return makeSubject<faiss_ext::gpu::GpuIndexFlatIP>(run, setup);
    }
    return makeSubject<faiss_ext::gpu::GpuIndexFlatL2>(run, setup);
}

} // namespace scenarios
