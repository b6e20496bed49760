// Searches of several threads that become one.

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/index/GpuIndexFlatCosine.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/SearchBatcher.h>

#include <faiss/IndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Interrupting.h"
#include "support/Neighbours.h"
#include "support/NormalizedRows.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::GpuIndexFlatCosine;
using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::idx_t;
using faiss_ext::gpu::Interrupted;
using faiss_ext::gpu::SearchBatcher;
using faiss_ext::gpu::SmallSearch;
using namespace test;

constexpr int kDims = 3;
constexpr int kNearest = 2;

/// One thread's arrays; query i is {id + i, ...}.
struct Caller {
    explicit Caller(float id, idx_t n = 1, idx_t k = kNearest, int d = kDims)
            : x(n * d),
              distances(n * k, -1),
              labels(n * k, -1),
              search{n, d, x.data(), k, distances.data(), labels.data()} {
        for (idx_t i = 0; i < n; ++i) {
            std::fill_n(&x[i * d], d, id + i);
        }
    }
    Caller(const Caller&) = delete;

    /// Whether the results are those of its own queries.
    bool isAnswered() const {
        for (idx_t i = 0; i < search.n * search.k; ++i) {
            if (distances[i] !=
                        10 * x[i / search.k * search.d] + i % search.k ||
                labels[i] != distances[i] + 1000) {
                return false;
            }
        }
        return true;
    }

    std::vector<float> x;
    std::vector<float> distances;
    std::vector<int64_t> labels;
    const SmallSearch search;
};

void answer(const SmallSearch& search) {
    for (idx_t i = 0; i < search.n * search.k; ++i) {
        search.distances[i] =
                10 * search.x[i / search.k * search.d] + i % search.k;
        search.labels[i] = static_cast<idx_t>(search.distances[i]) + 1000;
    }
}

class SearchBatching : public SimTest {
   protected:
    static constexpr idx_t kMost = 8;

    /// One search of one thread, as an index makes it. The first query of each
    /// one that is made goes to made_; fails where `fails` says so.
    void search(const Caller& caller) {
        SearchBatcher::Turn turn(batcher_, caller.search);
        if (turn.answered()) {
            return;
        }
        const bool hasOthers = turn.takeAlong();
        const SmallSearch made = hasOthers ? turn.together() : caller.search;
        {
            std::lock_guard<std::mutex> guard(lock_);
            made_.push_back(made.n);
        }
        during(made);
        answer(made);
        if (hasOthers) {
            turn.share();
        }
    }

    /// Lets `callers` queue in this order while another search is made.
    std::vector<std::future<void>> queueBehindAnother(
            const std::vector<Caller*>& callers) {
        std::promise<void> begun, end;
        Caller first(100);
        during = [&](const SmallSearch& made) {
            if (made.x == first.x.data()) {
                begun.set_value();
                end.get_future().wait();
            } else {
                whenQueued(made);
            }
        };
        std::thread other([&] { search(first); });
        begun.get_future().wait();
        std::vector<std::future<void>> results;
        for (size_t i = 0; i < callers.size(); ++i) {
            results.push_back(std::async(
                    std::launch::async,
                    [this, caller = callers[i]] { search(*caller); }));
            while (batcher_.waiting() != i + 1) {
                std::this_thread::yield();
            }
        }
        end.set_value();
        other.join();
        EXPECT_TRUE(first.isAnswered());
        for (auto& result : results) {
            result.wait();
        }
        EXPECT_EQ(batcher_.waiting(), 0u);
        return results;
    }

    /// Lets these queue behind another search; in so many searches, of so many
    /// queries each, they are made. Nothing is computed.
    void expectTurns(
            const std::vector<const SmallSearch*>& searches,
            const std::vector<idx_t>& expected) {
        std::vector<idx_t> made;
        std::mutex lock;
        std::vector<std::thread> threads;
        {
            Caller first(100);
            SearchBatcher::Turn turn(batcher_, first.search);
            for (size_t i = 0; i < searches.size(); ++i) {
                threads.emplace_back([&, search = searches[i]] {
                    SearchBatcher::Turn own(batcher_, *search);
                    if (own.answered()) {
                        return;
                    }
                    const bool hasOthers = own.takeAlong();
                    {
                        std::lock_guard<std::mutex> guard(lock);
                        made.push_back(
                                hasOthers ? own.together().n : search->n);
                    }
                    if (hasOthers) {
                        own.share();
                    }
                });
                while (batcher_.waiting() != i + 1) {
                    std::this_thread::yield();
                }
            }
        }
        for (auto& thread : threads) {
            thread.join();
        }
        EXPECT_EQ(made, expected);
    }

    SearchBatcher batcher_{kMost};
    std::function<void(const SmallSearch&)> during = [](const SmallSearch&) {};
    std::function<void(const SmallSearch&)> whenQueued =
            [](const SmallSearch&) {};
    std::mutex lock_;
    std::vector<idx_t> made_;
};

TEST_F(SearchBatching, a_search_that_meets_no_other_is_made_where_it_is) {
    Caller one(1);
    during = [&](const SmallSearch& made) {
        EXPECT_EQ(made.distances, one.distances.data());
    };
    for (int i = 0; i < 2; ++i) {
        search(one);
    }
    EXPECT_TRUE(one.isAnswered());
    EXPECT_EQ(made_, (std::vector<idx_t>{1, 1}));
}

TEST_F(SearchBatching, those_that_wait_become_one_search) {
    Caller a(1), b(2, 3), c(5);
    queueBehindAnother({&a, &b, &c});
    EXPECT_EQ(made_, (std::vector<idx_t>{1, 5}));
    EXPECT_TRUE(a.isAnswered() && b.isAnswered() && c.isAnswered());
}

TEST_F(SearchBatching, with_as_many_neighbours_only) {
    Caller a(1), b(2, 1, 5), c(3), d(4, 1, 5);
    queueBehindAnother({&a, &b, &c, &d});
    EXPECT_EQ(made_, (std::vector<idx_t>{1, 2, 2}));
    EXPECT_TRUE(a.isAnswered() && b.isAnswered());
    EXPECT_TRUE(c.isAnswered() && d.isAnswered());
}

// As where copyFrom has given the index vectors of other dimensions.
TEST_F(SearchBatching, of_queries_as_long_only) {
    Caller a(1), b(2, 3, kNearest, 7), c(5), d(6, 2, kNearest, 7);
    queueBehindAnother({&a, &b, &c, &d});
    EXPECT_EQ(made_, (std::vector<idx_t>{1, 2, 5}));
    EXPECT_TRUE(a.isAnswered() && b.isAnswered());
    EXPECT_TRUE(c.isAnswered() && d.isAnswered());
}

TEST_F(SearchBatching, up_to_the_limit) {
    Caller a(1, 5), b(10, 4), c(20, 3), d(30, 1);
    queueBehindAnother({&a, &b, &c, &d});
    // b does not fit behind a, c does; d finds no room.
    EXPECT_EQ(made_, (std::vector<idx_t>{1, 8, 5}));
    EXPECT_TRUE(a.isAnswered() && b.isAnswered());
    EXPECT_TRUE(c.isAnswered() && d.isAnswered());
}

TEST_F(SearchBatching, large_ones_wait_for_nobody) {
    Caller small(1), large(2, kMost);
    during = [&](const SmallSearch& made) {
        if (made.n == 1) {
            search(large);
        }
    };
    search(small);
    EXPECT_TRUE(small.isAnswered() && large.isAnswered());
    EXPECT_EQ(made_, (std::vector<idx_t>{1, kMost}));
}

/// What it says its queries and results are, in place of its own arrays.
struct Elsewhere : Caller {
    Elsewhere(float id, const float* x, float* distances, int64_t* labels)
            : Caller(id),
              search{1,
                     kDims,
                     x ? x : this->x.data(),
                     kNearest,
                     distances ? distances : this->distances.data(),
                     labels ? labels : this->labels.data()} {}
    const SmallSearch search;
};

TEST_F(SearchBatching, arrays_that_others_may_not_touch_are_searched_alone) {
    Caller own(1);
    Array<float> managed(Memory::Managed, 2), device(Memory::Device, 2);
    Array<float> pinned(Memory::Pinned, own.x);
    auto* sharedMemory = reinterpret_cast<float*>(own.labels.data());
    const Elsewhere callers[] = {
            {2, nullptr, managed.data(), nullptr},
            {3, nullptr, device.data(), nullptr},
            {4, pinned.data(), nullptr, nullptr},
            // An error that only its own search may make.
            {5, nullptr, sharedMemory, own.labels.data()}};
    for (const Elsewhere& caller : callers) {
        Caller before(10), after(20);
        // As one that is taken along, and as one that takes along.
        expectTurns({&before.search, &caller.search, &after.search}, {2, 1});
        expectTurns({&caller.search, &after.search}, {1, 1});
    }
}

TEST_F(SearchBatching, pinned_results_are_written_by_others) {
    Array<float> pinned(Memory::Pinned, 2);
    Caller before(1);
    const Elsewhere caller(2, nullptr, pinned.data(), nullptr);
    expectTurns({&before.search, &caller.search}, {2});
}

TEST_F(SearchBatching, where_one_search_for_all_fails_each_is_made_alone) {
    Caller a(1), b(2), c(3);
    whenQueued = [](const SmallSearch& made) {
        if (made.n == 3) {
            throw std::runtime_error("together");
        }
    };
    auto results = queueBehindAnother({&a, &b, &c});
    EXPECT_EQ(made_, (std::vector<idx_t>{1, 3, 1, 1}));
    EXPECT_THROW(results[0].get(), std::runtime_error);
    EXPECT_NO_THROW(results[1].get());
    EXPECT_NO_THROW(results[2].get());
    EXPECT_TRUE(b.isAnswered() && c.isAnswered());
    search(a);
    EXPECT_TRUE(a.isAnswered());
}

TEST_F(SearchBatching, after_a_failure_the_next_has_its_turn) {
    Caller a(1), b(2, 1, 5);
    whenQueued = [](const SmallSearch& made) {
        if (made.k == kNearest) {
            throw std::runtime_error("alone");
        }
    };
    auto results = queueBehindAnother({&a, &b});
    EXPECT_THROW(results[0].get(), std::runtime_error);
    EXPECT_NO_THROW(results[1].get());
    EXPECT_TRUE(b.isAnswered());
}

/// Whether this thread is the one to be interrupted.
thread_local bool isToEnd = false;

/// The same, and one of the threads that wait is interrupted.
class InterruptedBatching : public SearchBatching {
   protected:
    /// Searches on a thread of its own.
    std::future<void> begin(const Caller& caller, bool toEnd = false) {
        return std::async(std::launch::async, [this, &caller, toEnd] {
            isToEnd = toEnd;
            search(caller);
        });
    }

    /// The same, in the queue when this returns.
    std::future<void> queue(const Caller& caller, bool toEnd = false) {
        const size_t before = batcher_.waiting();
        auto result = begin(caller, toEnd);
        while (batcher_.waiting() == before) {
            std::this_thread::yield();
        }
        return result;
    }

    static void expectUntouched(const Caller& caller) {
        EXPECT_EQ(
                caller.labels, std::vector<int64_t>(caller.labels.size(), -1));
    }
};

TEST_F(InterruptedBatching, a_thread_in_the_queue_leaves_it) {
    Caller first(100), goes(1), stays(2);
    std::future<void> result;
    const Interrupting interrupt([](int) { return isToEnd; });
    during = [&](const SmallSearch& made) {
        if (made.x == first.x.data()) {
            EXPECT_THROW(begin(goes, true).get(), Interrupted);
            EXPECT_EQ(batcher_.waiting(), 0u);
            result = queue(stays);
        }
    };
    search(first);
    result.get();
    EXPECT_TRUE(first.isAnswered() && stays.isAnswered());
    expectUntouched(goes);
    EXPECT_EQ(made_, (std::vector<idx_t>{1, 1}));
}

TEST_F(InterruptedBatching, a_thread_taken_along_leaves_the_others) {
    for (bool fails : {false, true}) {
        made_.clear();
        Caller first(100), maker(1), stays(2);
        auto goes = std::make_unique<Caller>(3);
        std::future<void> results[3];
        std::atomic<bool> now{false};
        const Interrupting interrupt([&](int) { return now && isToEnd; });
        during = [&](const SmallSearch& made) {
            if (made.x == first.x.data()) {
                results[0] = queue(maker);
                results[1] = queue(*goes, true);
                results[2] = queue(stays);
            } else if (made.n == 3) {
                now = true;
                EXPECT_THROW(results[1].get(), Interrupted);
                expectUntouched(*goes);
                // Whoever touches its arrays now is told by a sanitizer.
                goes.reset();
                if (fails) {
                    throw std::runtime_error("together");
                }
            }
        };
        search(first);
        if (fails) {
            EXPECT_THROW(results[0].get(), std::runtime_error);
        } else {
            results[0].get();
            EXPECT_TRUE(maker.isAnswered());
        }
        results[2].get();
        EXPECT_TRUE(first.isAnswered() && stays.isAnswered());
        EXPECT_EQ(
                made_,
                fails ? (std::vector<idx_t>{1, 3, 1})
                      : (std::vector<idx_t>{1, 3}));
        EXPECT_EQ(batcher_.waiting(), 0u);
    }
}

TEST_F(InterruptedBatching, a_thread_that_has_its_turn_by_then_passes_it_on) {
    // Again and again: what no lock orders must meet to be seen.
    for (int round = 0; round < 20; ++round) {
        made_.clear();
        Caller first(100), goes(1), next(2, 1, 5);
        std::promise<void> mayEnd, begun;
        std::atomic<bool> looking{false};
        std::future<void> results[2];
        during = [&](const SmallSearch& made) {
            if (made.x == first.x.data()) {
                results[0] = queue(goes, true);
                results[1] = queue(next);
                mayEnd.get_future().wait();
            }
        };
        std::future<void> result;
        // The thread gets its turn between the question and the answer.
        const Interrupting interrupt([&](int) {
            if (isToEnd) {
                mayEnd.set_value();
                begun.get_future().wait();
                result.wait();
                while (!looking.load(std::memory_order_relaxed)) {
                    std::this_thread::yield();
                }
            }
            return isToEnd;
        });
        result = begin(first);
        begun.set_value();
        result.wait();
        // Another thread looks at the queue all the while, and no lock but the
        // batcher's orders the two.
        while (results[0].wait_for(std::chrono::seconds(0)) !=
               std::future_status::ready) {
            batcher_.waiting();
            looking.store(true, std::memory_order_relaxed);
        }
        EXPECT_THROW(results[0].get(), Interrupted);
        results[1].get();
        EXPECT_TRUE(first.isAnswered() && next.isAnswered());
        expectUntouched(goes);
        EXPECT_EQ(made_, (std::vector<idx_t>{1, 1}));
    }
}

TEST_F(InterruptedBatching, a_thread_that_is_answered_by_then_is_interrupted) {
    Caller first(100), maker(1), goes(2);
    std::promise<void> mayEnd;
    std::future<void> results[2];
    during = [&](const SmallSearch& made) {
        if (made.x == first.x.data()) {
            results[0] = queue(maker);
            results[1] = queue(goes, true);
        } else if (made.n == 2) {
            mayEnd.get_future().wait();
        }
    };
    // The results are shared between the question and the answer.
    const Interrupting interrupt([&](int) {
        if (!isToEnd) {
            return false;
        }
        if (batcher_.waiting() == 2) {
            return false; // not taken along yet
        }
        mayEnd.set_value();
        results[0].wait();
        return true;
    });
    search(first);
    EXPECT_THROW(results[1].get(), Interrupted);
    EXPECT_TRUE(first.isAnswered() && maker.isAnswered() && goes.isAnswered());
}

TEST_F(InterruptedBatching, of_many_threads_leave_the_others_their_results) {
    struct Sometimes : faiss::InterruptCallback {
        bool want_interrupt() override {
            thread_local unsigned questions = 0;
            return ++questions % 3 == 2;
        }
    };
    faiss::InterruptCallback::instance = std::make_unique<Sometimes>();
    // Longer than a thread waits before it asks.
    during = [](const SmallSearch&) {
        std::this_thread::sleep_for(std::chrono::milliseconds(35));
    };
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 6; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 8; ++i) {
                Caller mine(100 * t + i);
                try {
                    search(mine);
                    wrong += !mine.isAnswered();
                } catch (const Interrupted&) {
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    faiss::InterruptCallback::clear_instance();
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(batcher_.waiting(), 0u);
}

double threadSeconds() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

TEST_F(InterruptedBatching, a_thread_in_the_queue_sleeps) {
    Caller first(100), waits(1);
    double computed = 0;
    std::future<void> result;
    during = [&](const SmallSearch& made) {
        if (made.x == first.x.data()) {
            const size_t before = batcher_.waiting();
            result = std::async(std::launch::async, [&] {
                const double begin = threadSeconds();
                search(waits);
                computed = threadSeconds() - begin;
            });
            while (batcher_.waiting() == before) {
                std::this_thread::yield();
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(400));
        }
    };
    search(first);
    result.get();
    EXPECT_LT(computed, 0.05);
}

TEST_F(InterruptedBatching, a_thread_in_the_queue_is_woken_for_its_turn) {
    // At the best of several times: the machine may be busy.
    using Clock = std::chrono::steady_clock;
    auto best = Clock::duration::max();
    for (int i = 0; i < 5; ++i) {
        Caller first(100), next(1);
        Clock::time_point ended, begun;
        std::future<void> result;
        during = [&](const SmallSearch& made) {
            if (made.x == first.x.data()) {
                result = queue(next);
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
                ended = Clock::now();
            } else {
                begun = Clock::now();
            }
        };
        search(first);
        result.get();
        best = std::min(best, begun - ended);
    }
    EXPECT_LT(best, std::chrono::milliseconds(15));
}

/// An index that tells how many searches queue.
template <typename Base>
struct Queued : Base {
    using Base::Base;
    size_t waiting() const {
        return this->waitingSearches();
    }
};

class BatchedIndex : public SimTest {
   protected:
    using Index = Queued<GpuIndexFlatL2>;

    /// Until one is under way: who comes later is not taken along by it.
    static void waitForASearch() {
        while (cuda_sim_calls("kernel:bfKnnOnDevice") == 0) {
            std::this_thread::yield();
        }
    }

    /// Each of n queries x [n, d] by a thread of its own; all but the first
    /// queue behind that one, unless `apart`.
    template <typename Base>
    static Neighbours searchByThreads(
            const Queued<Base>& index,
            cudaStream_t stream,
            const float* x,
            int n,
            int k,
            bool apart) {
        const int d = index.d;
        cuda_sim_reset_counters();
        if (!apart) {
            cuda_sim_hold_stream(stream);
        }
        Neighbours found{
                std::vector<float>(n * k), std::vector<int64_t>(n * k)};
        std::vector<std::thread> threads;
        for (int t = 0; t < n; ++t) {
            threads.emplace_back([&, t] {
                index.search(
                        1,
                        x + t * d,
                        k,
                        &found.distances[t * k],
                        &found.labels[t * k]);
            });
            if (!apart) {
                waitForASearch();
            }
        }
        while (!apart && index.waiting() + 1 < threads.size()) {
            std::this_thread::yield();
        }
        cuda_sim_release_all();
        for (auto& thread : threads) {
            thread.join();
        }
        return found;
    }
};

TEST_F(BatchedIndex, sixteen_threads_make_two_searches) {
    constexpr int kThreads = 16, d = 8, k = 5;
    faiss::gpu::StandardGpuResources resources;
    const auto base = randomVectors(100, d, 1);
    const auto queries = randomVectors(kThreads, d, 2);
    const auto oracle = searchOnCpu(base, queries, d, k);
    for (int64_t batched : {0, 1}) {
        SCOPED_TRACE(batched);
        TunedConfig config;
        // Whose kernels are counted.
        config.search = "faiss";
        config.batchedQueries = batched;
        Index index(&resources, d, faiss::gpu::GpuIndexFlatConfig(), config);
        index.add(100, base.data());
        const auto found = searchByThreads(
                index,
                resources.getDefaultStream(0),
                queries.data(),
                kThreads,
                k,
                batched == 1);
        expectNeighbours(found, oracle, base, queries, d, k);
        EXPECT_EQ(
                cuda_sim_calls("kernel:bfKnnOnDevice"),
                batched == 1 ? 16u : 2u);
    }
}

/// Numbers with a page behind them: who reads that ends the process.
class GuardedFloats {
   public:
    explicit GuardedFloats(const std::vector<float>& values) {
        const size_t page = sysconf(_SC_PAGESIZE);
        const size_t bytes = values.size() * sizeof(float);
        const size_t used = (bytes + page - 1) / page * page;
        bytes_ = used + page;
        pages_ = static_cast<char*>(
                mmap(nullptr,
                     bytes_,
                     PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS,
                     -1,
                     0));
        EXPECT_NE(pages_, MAP_FAILED);
        EXPECT_EQ(mprotect(pages_ + used, page, PROT_NONE), 0);
        data_ = reinterpret_cast<float*>(pages_ + used - bytes);
        std::copy(values.begin(), values.end(), data_);
    }
    ~GuardedFloats() {
        munmap(pages_, bytes_);
    }
    GuardedFloats(const GuardedFloats&) = delete;

    const float* data() const {
        return data_;
    }

   private:
    char* pages_;
    size_t bytes_;
    float* data_;
};

// Both wait, one for the lock and one for its turn, with queries as long as the
// vectors were.
TEST_F(BatchedIndex,
       calls_that_wait_while_copyFrom_changes_dimensions_are_errors) {
    constexpr int kFirst = 8, k = 1;
    for (int d : {3, 20}) {
        SCOPED_TRACE(d);
        faiss::gpu::StandardGpuResources resources;
        Index index(&resources, kFirst);
        index.add(7, randomVectors(7, kFirst, 1).data());
        const auto queries = randomVectors(2, kFirst, 2);
        const GuardedFloats x(queries);
        faiss::IndexFlatL2 other(d);
        other.add(9, randomVectors(9, d, 3).data());
        std::vector<float> row(std::max(kFirst, d));
        int64_t assigned = -1;
        std::atomic<int> begun{0};
        std::vector<std::future<void>> searches;
        {
            const auto lock =
                    faiss_ext::gpu::lockOf(resources.getResources().get());
            const std::lock_guard<faiss_ext::gpu::ResourcesLock> held(*lock);
            for (int i = 0; i < 2; ++i) {
                searches.push_back(std::async(std::launch::async, [&, i] {
                    float distance;
                    int64_t label;
                    index.search(
                            1, x.data() + i * kFirst, k, &distance, &label);
                }));
            }
            while (index.waiting() < 1) {
                std::this_thread::yield();
            }
            // Of the others no one knows that they wait: long enough is.
            const auto later = [&](auto call) {
                searches.push_back(std::async(
                        std::launch::async, [&begun, call = std::move(call)] {
                            ++begun;
                            call();
                        }));
            };
            later([&] { index.add(1, x.data()); });
            later([&] { index.assign(1, x.data(), &assigned, 1); });
            later([&] { index.reconstruct(0, row.data()); });
            while (begun < 3) {
                std::this_thread::yield();
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            index.copyFrom(&other);
        }
        for (auto& search : searches) {
            try {
                search.get();
                ADD_FAILURE() << "no error";
            } catch (const faiss::FaissException& e) {
                EXPECT_NE(
                        e.msg.find("had 8 dimensions when the call began"),
                        std::string::npos)
                        << e.msg;
            }
        }
        // Later ones are right.
        float distance;
        int64_t label;
        index.search(1, other.get_xb() + 4 * d, k, &distance, &label);
        EXPECT_EQ(label, 4);
    }
}

// Searches become one by the dimensions of now, not by those of construction.
TEST_F(BatchedIndex, threads_search_what_copyFrom_gave_other_dimensions) {
    constexpr int kThreads = 16, kFirst = 8, k = 5;
    faiss::gpu::StandardGpuResources resources;
    TunedConfig config;
    config.search = "faiss";
    for (int d : {3, 20}) {
        SCOPED_TRACE(d);
        const auto base = randomVectors(100, d, 1);
        const auto queries = randomVectors(kThreads, d, 2);
        const GuardedFloats x(queries);
        const auto expectRight = [&](auto& index,
                                     const std::vector<float>& vectors,
                                     const std::vector<float>& asked,
                                     faiss::MetricType metric) {
            index.add(7, randomVectors(7, kFirst, 3).data());
            faiss::IndexFlatL2 other(d);
            other.add(100, base.data());
            index.copyFrom(&other);
            ASSERT_EQ(index.d, d);
            const auto found = searchByThreads(
                    index,
                    resources.getDefaultStream(0),
                    x.data(),
                    kThreads,
                    k,
                    false);
            EXPECT_EQ(cuda_sim_calls("kernel:bfKnnOnDevice"), 2u);
            expectNeighbours(
                    found,
                    searchOnCpu(vectors, asked, d, k, metric),
                    vectors,
                    asked,
                    d,
                    k,
                    metric);
        };
        Index byDistance(&resources, kFirst, {}, config);
        expectRight(byDistance, base, queries, faiss::METRIC_L2);
        Queued<GpuIndexFlatCosine> byCosine(&resources, kFirst, {}, config);
        expectRight(
                byCosine,
                asDocumented(base, d),
                asDocumented(queries, d),
                faiss::METRIC_INNER_PRODUCT);
    }
}

// It holds the lock of the resources, which the others need.
TEST_F(BatchedIndex, search_and_reconstruct_waits_for_no_other_search) {
    constexpr int d = 8, k = 2;
    faiss::gpu::StandardGpuResources resources;
    const auto base = randomVectors(100, d, 1);
    GpuIndexFlatL2 index(&resources, d);
    index.add(100, base.data());
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            std::vector<float> distances(k), found(k * d);
            std::vector<int64_t> labels(k);
            for (int i = 0; i < 20; ++i) {
                if (t % 2) {
                    index.search_and_reconstruct(
                            1,
                            &base[t * d],
                            k,
                            distances.data(),
                            labels.data(),
                            found.data());
                } else {
                    index.search(
                            1,
                            &base[t * d],
                            k,
                            distances.data(),
                            labels.data());
                }
                wrong += labels[0] != t;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(wrong, 0);
}

// As an index of inverted lists does that asks its coarse quantizer.
TEST_F(BatchedIndex, who_holds_the_lock_queues_behind_no_other_search) {
    constexpr int d = 8, k = 2;
    faiss::gpu::StandardGpuResources resources;
    const auto base = randomVectors(100, d, 1);
    Index index(&resources, d);
    index.add(100, base.data());
    std::vector<std::vector<float>> distances(3, std::vector<float>(k));
    std::vector<std::vector<int64_t>> labels(3, std::vector<int64_t>(k));
    const auto search = [&](int t) {
        index.search(1, &base[t * d], k, distances[t].data(), labels[t].data());
    };
    std::vector<int64_t> packed((k * 12 + 7) / 8);
    // A thread that queues is never woken, and the lock it holds never free.
    alarm(20);
    const auto lock = faiss_ext::gpu::lockOf(resources.getResources().get());
    std::vector<std::thread> others;
    {
        std::lock_guard guard(*lock);
        for (int t : {1, 2}) {
            others.emplace_back(search, t);
        }
        // One has its turn and needs the lock, one is behind it.
        while (index.waiting() != 1) {
            std::this_thread::yield();
        }
        search(0);
        searchPacked(index, 1, &base[3 * d], k, packed.data());
        EXPECT_EQ(labels[0][0], 0);
        EXPECT_EQ(packed[0], 3);
        EXPECT_EQ(index.waiting(), 1u);
    }
    for (auto& other : others) {
        other.join();
    }
    alarm(0);
    EXPECT_EQ(labels[1][0], 1);
    EXPECT_EQ(labels[2][0], 2);
}

} // namespace
