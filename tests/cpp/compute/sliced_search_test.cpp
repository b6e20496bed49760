// Few queries among many vectors: slices of the vectors, searched side by side.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Neighbours.h"
#include "support/PortableFlat.h"

namespace {

using faiss_ext::gpu::GpuIndexFlat;
using namespace test;

constexpr size_t kVectors = 601;

class SlicedSearch : public PortableFlat {
   protected:
    /// Eight slices where n * k allows; of one vector at least.
    static TunedConfig inSlices(int lanes, int64_t least = 1) {
        TunedConfig config;
        config.search = "faiss";
        config.computeLanes = lanes;
        config.sliceVectors = least;
        return config;
    }

    static Neighbours search(
            const faiss::gpu::GpuIndexFlat& index,
            const std::vector<float>& queries,
            int k,
            Memory in = Memory::Pageable,
            Memory out = Memory::Pageable) {
        const size_t n = queries.size() / kDims;
        Array<float> x(in, queries);
        Array<float> distances(out, n * k);
        Array<int64_t> labels(out, n * k);
        index.search(n, x.data(), k, distances.data(), labels.data());
        return {distances.get(), labels.get()};
    }
};

TEST_F(SlicedSearch, finds_what_a_search_of_all_vectors_finds) {
    const auto base = randomVectors(kVectors, kDims, 1);
    for (auto metric :
         {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT, faiss::METRIC_L1}) {
        for (auto [n, k] : {std::pair(1, 1), {1, 70}, {7, 10}, {60, 3}}) {
            const auto queries = randomVectors(n, kDims, 2);
            const auto oracle = searchOnCpu(base, queries, kDims, k, metric);
            for (bool float16 : {false, true}) {
                for (int lanes : {2, 3, 8}) {
                    SCOPED_TRACE(
                            std::to_string(n) + " queries, k " +
                            std::to_string(k) + ", metric " +
                            std::to_string(metric) + ", float16 " +
                            std::to_string(float16) + ", lanes " +
                            std::to_string(lanes));
                    expectNeighbours(
                            search(*makeIndex(
                                           base,
                                           inSlices(lanes),
                                           metric,
                                           float16),
                                   queries,
                                   k),
                            oracle,
                            base,
                            queries,
                            kDims,
                            k,
                            metric);
                }
            }
        }
    }
}

TEST_F(SlicedSearch, finds_every_vector) {
    std::vector<float> base;
    for (size_t i = 0; i < kVectors; ++i) {
        base.insert(base.end(), {float(i % 25), float(i / 25), 0, 0});
    }
    for (int lanes : {2, 7, 8}) {
        const auto index = makeIndex(base, inSlices(lanes));
        for (size_t first = 0; first < kVectors; first += 70) {
            const size_t last = std::min<size_t>(first + 70, kVectors);
            const auto found = search(
                    *index,
                    {base.begin() + first * kDims, base.begin() + last * kDims},
                    1);
            for (size_t i = first; i < last; ++i) {
                EXPECT_EQ(found.labels[i - first], int64_t(i)) << lanes;
            }
        }
    }
}

TEST_F(SlicedSearch, takes_arrays_wherever_they_lie) {
    const auto base = randomVectors(kVectors, kDims, 1);
    const auto queries = randomVectors(20, kDims, 2);
    const auto oracle = searchOnCpu(base, queries, kDims, 5);
    for (int64_t tileRows : {0, 6}) {
        for (Memory in : {Memory::Pageable, Memory::Pinned, Memory::Device}) {
            for (Memory out :
                 {Memory::Pageable, Memory::Pinned, Memory::Device}) {
                for (size_t mapped : {0, 1}) {
                    SCOPED_TRACE(
                            std::string(nameOf(in)) + " to " + nameOf(out) +
                            ", tiles of " + std::to_string(tileRows) +
                            ", mapped " + std::to_string(mapped));
                    auto config = inSlices(3);
                    config.tileRows = tileRows;
                    config.mappedBytes = mapped;
                    const auto index = makeIndex(base, config);
                    for (int again : {0, 1}) {
                        SCOPED_TRACE(again);
                        expectNeighbours(
                                search(*index, queries, 5, in, out),
                                oracle,
                                base,
                                queries,
                                kDims,
                                5);
                    }
                }
            }
        }
    }
}

TEST_F(SlicedSearch, finds_equal_vectors_of_all_slices) {
    // 100 vectors, each six times, far from each other in the store.
    const auto distinct = randomVectors(100, kDims, 3);
    std::vector<float> base;
    for (int copy = 0; copy < 6; ++copy) {
        base.insert(base.end(), distinct.begin(), distinct.end());
    }
    const std::vector<float> queries(
            distinct.begin(), distinct.begin() + 10 * kDims);
    const auto oracle = searchOnCpu(base, queries, kDims, 12);
    for (int lanes : {2, 5}) {
        expectNeighbours(
                search(*makeIndex(base, inSlices(lanes)), queries, 12),
                oracle,
                base,
                queries,
                kDims,
                12);
    }
}

TEST_F(SlicedSearch, gives_no_label_where_there_is_no_distance) {
    // As Faiss does, whose merge of tiles would make labels of the -1 of each.
    const auto base = randomVectors(kVectors, kDims, 1);
    auto queries = randomVectors(3, kDims, 2);
    const auto oracle = searchOnCpu(base, queries, kDims, 4);
    queries[kDims + 1] = std::nanf("");
    const auto found = search(*makeIndex(base, inSlices(3)), queries, 4);
    for (int i = 0; i < 12; ++i) {
        if (i / 4 == 1) {
            EXPECT_EQ(found.labels[i], -1);
        } else {
            EXPECT_EQ(found.distances[i], oracle.distances[i]);
        }
    }
}

TEST_F(SlicedSearch, passes_over_slices_whose_vectors_are_no_numbers) {
    auto base = randomVectors(kVectors, kDims, 1);
    const std::vector<float> some(base.begin() + 300 * kDims, base.end());
    std::fill_n(base.begin(), 300 * kDims, std::nanf(""));
    const auto queries = randomVectors(3, kDims, 2);
    for (auto metric :
         {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT, faiss::METRIC_L1}) {
        SCOPED_TRACE(metric);
        auto found = search(*makeIndex(base, inSlices(8), metric), queries, 4);
        for (auto& label : found.labels) {
            label -= 300;
        }
        expectNeighbours(
                found,
                searchOnCpu(some, queries, kDims, 4, metric),
                some,
                queries,
                kDims,
                4,
                metric);
    }
}

TEST_F(SlicedSearch, takes_the_argument_of_the_metric) {
    const auto base = randomVectors(kVectors, kDims, 1);
    const auto queries = randomVectors(6, kDims, 2);
    for (float argument : {0.5f, 2.f, 3.f}) {
        SCOPED_TRACE(argument);
        auto index = makeIndex(base, inSlices(3), faiss::METRIC_Lp);
        index->metric_arg = argument;
        const auto found = search(*index, queries, 5);
        const auto oracle = searchOnCpu(
                base, queries, kDims, 5, faiss::METRIC_Lp, argument);
        for (size_t i = 0; i < oracle.distances.size(); ++i) {
            const float distance = oracle.distances[i];
            EXPECT_NEAR(found.distances[i], distance, 1e-4 * distance + 1e-4);
        }
    }
}

TEST_F(SlicedSearch, sees_the_vectors_that_are_stored_when_it_is_asked) {
    const auto base = randomVectors(kVectors, kDims, 1);
    const auto more = randomVectors(200, kDims, 4);
    const auto queries = randomVectors(5, kDims, 2);
    auto all = base;
    all.insert(all.end(), more.begin(), more.end());
    auto index = makeIndex(base, inSlices(4));
    const auto expectFoundIn = [&](const std::vector<float>& stored) {
        expectNeighbours(
                search(*index, queries, 3),
                searchOnCpu(stored, queries, kDims, 3),
                stored,
                queries,
                kDims,
                3);
    };
    expectFoundIn(base);
    index->add(200, more.data());
    expectFoundIn(all);
    index->reset();
    index->add(200, more.data());
    expectFoundIn(more);
}

TEST_F(SlicedSearch, finds_its_scratch_memory_in_that_of_faiss) {
    // More vectors in a slice than a tile of Faiss' has columns.
    const auto base = randomVectors(1100000, kDims, 1);
    for (bool float16 : {false, true}) {
        auto index = makeIndex(base, inSlices(2), faiss::METRIC_L2, float16);
        for (auto [n, k] : {std::pair(1, 1), {3, 40}, {100, 1}, {1, 2000}}) {
            SCOPED_TRACE(std::to_string(n) + " of k " + std::to_string(k));
            const auto queries = randomVectors(n, kDims, 2);
            search(*index, queries, k, Memory::Device, Memory::Device);
            EXPECT_EQ(index->getTransferStats().deviceAllocations, 0u);
        }
    }
}

} // namespace
