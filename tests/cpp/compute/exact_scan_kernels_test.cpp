// A scan's kernels, against a plain loop over D on the host, on a GPU.

#include <faiss_ext/gpu/compute/kernels/ExactScan.h>
#include <gtest/gtest.h>

#include "support/ExactCases.h"
#include "support/ExactDevice.h"

namespace test {
namespace {

using exact::ScanWay;

constexpr unsigned kSeed = 11;
/// What the counts of queries by path are before a search.
constexpr exact::PathCounts kBefore = {1, 2, 3};

class ExactScanKernels : public ::testing::Test {
   protected:
    void SetUp() override {
        int count = 0;
        const bool known = cudaGetDeviceCount(&count) == cudaSuccess;
        cudaGetLastError();
        if (!known || count == 0) {
            GTEST_SKIP() << "no GPU here";
        }
    }
};

/// How a scan compares.
enum class Scan {
    Plain,
    Tensor,
    /// By copies that were made before.
    TensorOfCopies,
};

/// What a scan is made with.
struct ScanSizes {
    int k;
    /// Of a list.
    int capacity;
    /// Cuts that all vectors pass, in place of those of a sample.
    bool cutsOfAll = false;
    /// Floats that the queries are away from a multiple of 16 bytes.
    int offset = 0;
};

/// A scan's scratch memory and what it works on.
struct DeviceScan {
    DeviceScan(
            const DeviceIndex& searched,
            const std::vector<float>& given,
            const ScanSizes& sizes)
            : index(searched),
              n(static_cast<int64_t>(given.size()) / searched.store.d),
              x(shifted(given, sizes.offset)),
              parts(n * exact::kScanParts),
              cuts(n),
              counts(n),
              lists(n * sizes.capacity),
              again(n),
              distances(n * sizes.k),
              labels(n * sizes.k),
              paths({kBefore}),
              copies(index.n * exact::copyWidth(index.store.d)) {
        state.n = n;
        state.d = index.store.d;
        state.k = sizes.k;
        state.capacity = sizes.capacity;
        state.x = x.get() + sizes.offset;
        state.parts = parts.get();
        state.cuts = cuts.get();
        state.counts = counts.get();
        state.lists = lists.get();
        state.again = again.get();
    }

    static std::vector<float> shifted(std::vector<float> values, int offset) {
        values.insert(values.begin(), offset, 0.0f);
        return values;
    }

    cudaError_t cut() const {
        return exact::launchScanCut(
                index.store.metric, index.view, state, nullptr);
    }

    cudaError_t scan(Scan way) const {
        const Metric metric = index.store.metric;
        if (way == Scan::Plain) {
            return exact::launchScan(metric, index.view, state, nullptr);
        }
        const bool copied = way == Scan::TensorOfCopies;
        if (copied) {
            check(exact::launchCopyVectors(
                    index.view,
                    {0, index.n, 1},
                    index.state,
                    copies.get(),
                    nullptr,
                    nullptr));
        }
        return exact::launchTensorScan(
                metric,
                index.view,
                copied ? copies.get() : nullptr,
                index.state,
                state,
                nullptr);
    }

    cudaError_t results() const {
        return exact::launchScanResults(
                index.store.metric,
                index.view,
                state,
                distances.get(),
                labels.get(),
                paths.get(),
                nullptr);
    }

    const DeviceIndex& index;
    const int64_t n;
    const DeviceArray<float> x;
    const DeviceArray<uint64_t> parts;
    DeviceArray<uint64_t> cuts;
    const DeviceArray<uint32_t> counts;
    const DeviceArray<uint64_t> lists;
    const DeviceArray<exact::ScanAgain> again;
    const DeviceArray<float> distances;
    const DeviceArray<faiss_ext::gpu::idx_t> labels;
    const DeviceArray<exact::PathCounts> paths;
    const DeviceArray<Half> copies;
    exact::ScanState state;
};

/// A whole search. (No paths.)
SearchResults scanOnDevice(
        const DeviceIndex& index,
        const std::vector<float>& given,
        const ScanSizes& sizes,
        Scan way) {
    DeviceScan scan(index, given, sizes);
    check(scan.cut());
    if (sizes.cutsOfAll && index.n > sizes.capacity) {
        check(cudaDeviceSynchronize());
        scan.cuts.write(std::vector<uint64_t>(scan.n, exact::kMissing));
    }
    check(scan.scan(way));
    check(scan.results());
    check(cudaDeviceSynchronize());
    const std::vector<faiss_ext::gpu::idx_t> found = scan.labels.read();
    return {scan.distances.read(),
            std::vector<int64_t>(found.begin(), found.end()),
            {},
            scan.paths.at(0)};
}

bool serves(Scan way, int64_t n, int k, const Store& store) {
    return way == Scan::Plain
                   ? exact::scanServes(n, store.d, k)
                   : exact::tensorScanServes(
                             n,
                             store.d,
                             k,
                             !store.halves.empty() && way == Scan::Tensor);
}

/// The results of every way to scan are those of a plain loop, bit for bit.
void expectTheNearest(
        const ExactCase& data, const Store& store, const ScanSizes& sizes) {
    const int k = sizes.k;
    const int64_t n = data.n();
    const DeviceIndex device(store);
    std::vector<uint64_t> expected;
    for (int64_t query = 0; query < n; ++query) {
        auto keys = keysOf(store, data.query(query));
        keys.resize(k, exact::kMissing);
        expected.insert(expected.end(), keys.begin(), keys.end());
    }
    for (Scan way : {Scan::Plain, Scan::Tensor, Scan::TensorOfCopies}) {
        if (!serves(way, n, k, store)) {
            continue;
        }
        const SearchResults found =
                scanOnDevice(device, data.queries, sizes, way);
        for (size_t i = 0; i < expected.size(); ++i) {
            ASSERT_EQ(found.labels[i], exact::labelOf(expected[i]))
                    << "way " << int(way) << ", query " << i / k << ", place "
                    << i % k;
            ASSERT_EQ(
                    exact::bitsOf(found.distances[i]),
                    exact::bitsOf(
                            exact::distanceOf(store.metric, expected[i])));
        }
        const uint64_t once = found.counts.certified - kBefore.certified;
        const uint64_t again = found.counts.widened - kBefore.widened;
        const uint64_t last = found.counts.last - kBefore.last;
        ASSERT_EQ(once + again + last, uint64_t(n));
        if (data.nb() <= sizes.capacity) {
            ASSERT_EQ(once, uint64_t(n));
        }
    }
}

struct ScanShape {
    int n;
    int nb;
    int d;
    int k;
    int capacity;
};

void PrintTo(const ScanShape& shape, std::ostream* out) {
    *out << "n " << shape.n << ", nb " << shape.nb << ", d " << shape.d
         << ", k " << shape.k << ", capacity " << shape.capacity;
}

class ExactScanKernelsOf : public ExactScanKernels,
                           public ::testing::WithParamInterface<ScanShape> {
   protected:
    /// With every kind of data.
    void expectTheNearestOfAll(bool cutsOfAll) {
        const ScanShape& shape = GetParam();
        const ScanSizes sizes = {shape.k, shape.capacity, cutsOfAll};
        for (const ExactCase& data :
             exactCases(shape.d, shape.nb, shape.n, kSeed)) {
            for (Metric metric : {Metric::L2, Metric::InnerProduct}) {
                for (bool half : {false, true}) {
                    SCOPED_TRACE(
                            data.name +
                            (metric == Metric::L2 ? ", L2"
                                                  : ", inner product") +
                            (half ? ", float16" : ""));
                    expectTheNearest(data, data.store(metric, half), sizes);
                    if (HasFailure()) {
                        return;
                    }
                }
            }
        }
    }
};

TEST_P(ExactScanKernelsOf, FindTheNearestBitForBit) {
    expectTheNearestOfAll(false);
}

INSTANTIATE_TEST_SUITE_P(
        ListsOfAll,
        ExactScanKernelsOf,
        ::testing::Values(
                ScanShape{1, 1, 1, 1, 64},
                ScanShape{1, 700, 33, 10, 1000},
                ScanShape{2, 300, 128, 100, 512},
                ScanShape{3, 500, 20, 600, 1000},
                ScanShape{16, 333, 64, 5, 1000},
                ScanShape{33, 200, 8, 5, 256},
                ScanShape{5, 900, 1100, 2048, 1024}));

INSTANTIATE_TEST_SUITE_P(
        Cuts,
        ExactScanKernelsOf,
        ::testing::Values(
                ScanShape{1, 20000, 8, 10, 8000},
                ScanShape{5, 20000, 12, 100, 3000},
                ScanShape{2, 30000, 3, 1000, 12000},
                ScanShape{9, 17000, 4, 1, 4000},
                ScanShape{32, 9000, 20, 7, 6000},
                ScanShape{1, 70000, 4, 2048, 30000},
                ScanShape{2, 10000, 301, 20, 5000},
                ScanShape{70, 9500, 24, 3, 4000},
                ScanShape{17, 9500, 200, 30, 9000}));

class ExactScanKernelsAgain : public ExactScanKernelsOf {};

TEST_P(ExactScanKernelsAgain, FindTheNearestThoughListsRunOver) {
    expectTheNearestOfAll(true);
}

// What is found is divided by capacity / k each time.
INSTANTIATE_TEST_SUITE_P(
        Once,
        ExactScanKernelsAgain,
        ::testing::Values(
                ScanShape{4, 900, 16, 3, 64},
                ScanShape{7, 400, 132, 9, 128},
                ScanShape{13, 1100, 40, 30, 400},
                ScanShape{3, 9000, 6, 300, 3000}));

INSTANTIATE_TEST_SUITE_P(
        Often,
        ExactScanKernelsAgain,
        ::testing::Values(
                ScanShape{2, 9000, 12, 1, 32},
                ScanShape{33, 2500, 8, 10, 60},
                ScanShape{2, 4000, 36, 40, 200}));

INSTANTIATE_TEST_SUITE_P(
        TooOften,
        ExactScanKernelsAgain,
        ::testing::Values(
                ScanShape{1, 3000, 20, 1, 1},
                ScanShape{3, 2000, 8, 90, 100},
                ScanShape{2, 4000, 5, 2048, 2048}));

/// The nearest are last: the first that are found say nothing of them.
ExactCase sortedCase(int nb, int d, int n) {
    return makeCase("sorted", d, nb, n, [=](int64_t row, int i) {
        return row < nb ? float(nb - row) + 0.001f * float(i) : 0.0f;
    });
}

TEST_F(ExactScanKernels, ListsThatRanOverAreMadeAgainFromAFairSample) {
    const int nb = 100000, d = 4, n = 3, k = 10;
    const ExactCase data = sortedCase(nb, d, n);
    const Store store = data.store(Metric::L2, false);
    // 100,000 of which 2,000 remain, of which 40 do.
    const ScanSizes sizes = {k, 500, true};
    expectTheNearest(data, store, sizes);
    const DeviceIndex device(store);
    for (Scan way : {Scan::Plain, Scan::Tensor}) {
        const SearchResults found =
                scanOnDevice(device, data.queries, sizes, way);
        EXPECT_EQ(found.counts.certified, kBefore.certified);
        EXPECT_EQ(found.counts.widened, kBefore.widened + n);
        EXPECT_EQ(found.counts.last, kBefore.last);
    }
}

TEST_F(ExactScanKernels, ListsWithoutRoomAreGivenUp) {
    const int nb = 5000, d = 4, n = 2, k = 100;
    const ExactCase data = sortedCase(nb, d, n);
    const DeviceIndex device(data.store(Metric::L2, false));
    const SearchResults found = scanOnDevice(
            device, data.queries, ScanSizes{k, k, true}, Scan::Plain);
    EXPECT_EQ(found.counts.certified, kBefore.certified);
    EXPECT_EQ(found.counts.widened, kBefore.widened);
    EXPECT_EQ(found.counts.last, kBefore.last + n);
}

TEST_F(ExactScanKernels, QueriesNeedNotBeAligned) {
    for (int d : {8, 104, 128}) {
        for (const ExactCase& data : exactCases(d, 9000, 5, kSeed)) {
            if (data.name == "normal") {
                for (bool over : {false, true}) {
                    expectTheNearest(
                            data,
                            data.store(Metric::L2, false),
                            ScanSizes{20, 3000, over, 1});
                }
            }
        }
    }
}

TEST_F(ExactScanKernels, ListsDoNotRunOverWithOrdinaryData) {
    const int d = 8, n = 6, nb = 100000;
    for (int k : {1, 10, 100, 1000, 2048}) {
        for (const ExactCase& data : exactCases(d, nb, n, kSeed)) {
            if (data.name == "normal" || data.name == "bytes" ||
                data.name == "all equal" || data.name == "near duplicates") {
                const DeviceIndex device(data.store(Metric::L2, false));
                const SearchResults found = scanOnDevice(
                        device,
                        data.queries,
                        ScanSizes{k, exact::scanCapacity(k)},
                        k == 10 ? Scan::Tensor : Scan::Plain);
                EXPECT_EQ(found.counts.certified, kBefore.certified + n)
                        << data.name << ", k " << k;
            }
        }
    }
}

TEST_F(ExactScanKernels, WhatIsNotServedIsRefused) {
    const auto refuses = [](int n, int d, int k, bool half, Scan way) {
        const ExactCase data =
                makeCase("ones", d, 20, n, [](int64_t, int) { return 1.0f; });
        const Store store = data.store(Metric::L2, half);
        const DeviceIndex device(store);
        const DeviceScan scan(device, data.queries, ScanSizes{k, 10});
        const bool refused = scan.scan(way) == cudaErrorInvalidValue;
        EXPECT_EQ(refused, !serves(way, n, k, store));
        check(cudaDeviceSynchronize());
        return refused;
    };
    EXPECT_TRUE(
            refuses(1, exact::kScanMostDimensions + 1, 1, false, Scan::Plain));
    EXPECT_TRUE(refuses(1, 8, exact::kScanMostResults + 1, false, Scan::Plain));
    EXPECT_TRUE(refuses(
            1, exact::kTensorScanMostDimensions + 8, 1, false, Scan::Tensor));
    EXPECT_TRUE(refuses(1, 6, 1, false, Scan::Tensor));
    EXPECT_TRUE(refuses(1, 12, 1, true, Scan::Tensor));
    EXPECT_TRUE(refuses(1, 6, 1, true, Scan::TensorOfCopies));
}

TEST(ExactScan, MostDimensionsAreServed) {
    EXPECT_TRUE(exact::scanServes(1, exact::kScanMostDimensions, 2048));
    EXPECT_FALSE(exact::scanServes(0, 8, 1));
    EXPECT_FALSE(exact::scanServes(1, 8, 0));
    EXPECT_TRUE(exact::tensorScanServes(
            64, exact::kTensorScanMostDimensions, 1, true));
}

TEST(ExactScan, TheBestWayIsOneThatServes) {
    for (Metric metric : {Metric::L2, Metric::InnerProduct}) {
        for (int64_t vectors : {1000, 1000000}) {
            for (int n : {1, 4, 5, 8, 9, 32, 64, 65, 1000}) {
                for (int d : {1, 4, 12, 128, 512, 1024, 1032, 8192, 8193}) {
                    for (int k : {1, 2048, 2049}) {
                        for (bool half : {false, true}) {
                            const ScanWay way = exact::scanBest(
                                    metric, vectors, n, d, k, half);
                            EXPECT_TRUE(
                                    way == ScanWay::None ||
                                    (way == ScanWay::Plain
                                             ? exact::scanServes(n, d, k)
                                             : exact::tensorScanServes(
                                                       n, d, k, half)));
                        }
                    }
                }
            }
        }
    }
    const auto best = [](int64_t n) {
        return exact::scanBest(Metric::L2, 1000000, n, 128, 10, false);
    };
    EXPECT_EQ(best(1), ScanWay::Plain);
    EXPECT_EQ(best(32), ScanWay::Tensor);
    EXPECT_EQ(best(1000), ScanWay::None);
}

} // namespace
} // namespace test
