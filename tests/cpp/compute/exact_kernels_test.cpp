// The kernels of the exact search, each against the arithmetic of the host, on
// a GPU.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "support/ExactCases.h"
#include "support/ExactDevice.h"

namespace test {
namespace {

constexpr unsigned kSeed = 11;

class ExactKernels : public ::testing::Test {
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

constexpr Metric kMetrics[] = {Metric::L2, Metric::InnerProduct};

const char* nameOf(Metric metric) {
    return metric == Metric::L2 ? "L2" : "inner product";
}

/// Calls function(case, store) with every kind of data.
template <typename Function>
void forEachStore(int d, int nb, int n, Function&& function) {
    for (const ExactCase& data : exactCases(d, nb, n, kSeed)) {
        for (Metric metric : kMetrics) {
            for (bool half : {false, true}) {
                SCOPED_TRACE(
                        data.name + ", " + nameOf(metric) + ", d " +
                        std::to_string(d) + ", nb " + std::to_string(nb) +
                        ", n " + std::to_string(n) + (half ? ", float16" : ""));
                function(data, data.store(metric, half));
                if (::testing::Test::HasFailure()) {
                    return;
                }
            }
        }
    }
}

/// The sum that the lanes of a warp make of their parts, each `lanes`-th
/// component.
template <typename Sums, typename Add>
Sums sumOfLanes(int lanes, int d, Add&& add) {
    std::vector<Sums> parts(lanes);
    for (int i = 0; i < d; ++i) {
        add(parts[i % lanes], i);
    }
    for (int step = lanes / 2; step > 0; step /= 2) {
        for (int lane = 0; lane < step; ++lane) {
            parts[lane].addPart(parts[lane + step]);
        }
    }
    return parts[0];
}

/// Equal, but for the last bit: a compiler may make one operation of a product
/// and a sum in double.
bool nearly(float a, float b) {
    return a == b || exact::nextUp(a) == b || exact::nextDown(a) == b;
}

bool nearly(double a, double b, double size) {
    return a == b || std::fabs(a - b) <= 1e-12 * size;
}

/// Equal in all bits, or both NaN.
bool same(float a, float b) {
    return exact::bitsOf(a) == exact::bitsOf(b) ||
           (std::isnan(a) && std::isnan(b));
}

std::vector<float> rowOf(const Store& store, int64_t row) {
    std::vector<float> components(store.d);
    for (int i = 0; i < store.d; ++i) {
        components[i] = store.at(row, i);
    }
    return components;
}

void expectCopy(
        const Half* copy,
        const float* y,
        const std::vector<float>& centre,
        int scale,
        const char* what) {
    const int d = static_cast<int>(centre.size());
    for (int i = 0; i < exact::copyWidth(d); ++i) {
        const Half expected =
                i < d ? exact::halfOf(y[i], centre[i], exact::powerOfTwo(scale))
                      : Half{0};
        ASSERT_EQ(copy[i].bits, expected.bits) << what << ", component " << i;
    }
}

TEST_F(ExactKernels, VectorsTermsCentreAndBoundsAreTheHosts) {
    for (const auto& [d, nb] : std::vector<std::pair<int, int>>{
                 {1, 1}, {3, 130}, {16, 1000}, {17, 300}, {128, 257}}) {
        forEachStore(d, nb, 1, [&](const ExactCase&, const Store& store) {
            const DeviceIndex device(store);
            const FilterIndex host(store, testedArithmetic());
            const IndexTerms terms = device.terms.at(0);
            ASSERT_EQ(terms.metric, store.metric);
            ASSERT_EQ(terms.d, d);
            ASSERT_EQ(terms.centred, host.terms.centred);
            ASSERT_EQ(terms.scale, host.terms.scale);
            ASSERT_EQ(terms.accumulation, host.terms.accumulation);
            ASSERT_EQ(terms.distance.relative, host.terms.distance.relative);
            ASSERT_EQ(terms.distance.absolute, host.terms.distance.absolute);
            const std::vector<float> centre = device.centre.read();
            double squares = 0;
            for (int i = 0; i < d; ++i) {
                ASSERT_TRUE(
                        nearly(centre[i], host.centre[i]) ||
                        std::fabs(centre[i] - host.centre[i]) <=
                                1e-12 * std::fabs(terms.centre))
                        << centre[i] << " is not " << host.centre[i];
                squares += double(centre[i]) * centre[i];
            }
            ASSERT_TRUE(
                    nearly(terms.centre,
                           terms.centred ? exact::centreNorm(squares, d) : 0,
                           terms.centre));

            const std::vector<VectorTerms> vectors = device.vectors.read();
            for (int64_t row = 0; row < nb; ++row) {
                const float factor = exact::powerOfTwo(terms.scale);
                const float inverse = exact::powerOfTwo(-terms.scale);
                const auto sums = sumOfLanes<exact::RowSums>(
                        d <= 16 ? 4 : 32, d, [&](exact::RowSums& part, int i) {
                            const float y = store.at(row, i);
                            part.addComponent(
                                    y,
                                    centre[i],
                                    exact::halfOf(y, centre[i], factor),
                                    inverse);
                        });
                const VectorTerms expected =
                        exact::vectorTerms(sums, d, terms.centred);
                ASSERT_TRUE(nearly(vectors[row].square, expected.square))
                        << "row " << row;
                ASSERT_TRUE(nearly(vectors[row].error, expected.error))
                        << "row " << row;
            }
        });
    }
}

TEST_F(ExactKernels, MostVectorsTermsAreTheHostsBitForBit) {
    // The last bit of few may differ; here it differs of none or hardly any.
    const int d = 40, nb = 2000;
    int64_t different = 0;
    forEachStore(d, nb, 1, [&](const ExactCase&, const Store& store) {
        const DeviceIndex device(store);
        FilterIndex host(store, testedArithmetic());
        if (device.centre.read() != host.centre) {
            return;
        }
        const std::vector<VectorTerms> vectors = device.vectors.read();
        for (int64_t row = 0; row < nb; ++row) {
            different += vectors[row].square != host.vectors[row].square ||
                         vectors[row].error != host.vectors[row].error;
        }
    });
    EXPECT_LT(different, 10);
}

TEST_F(ExactKernels, CopiesOfVectorsAreTheHosts) {
    for (int d : {1, 4, 7, 8, 12, 19, 128}) {
        const int nb = 140;
        forEachStore(d, nb, 1, [&](const ExactCase&, const Store& store) {
            const DeviceIndex device(store);
            const std::vector<float> centre = device.centre.read();
            const int scale = device.terms.at(0).scale;
            for (const VectorRows& rows :
                 std::vector<VectorRows>{{0, nb, 1}, {3, 20, 1}, {1, 34, 4}}) {
                const int width = exact::copyWidth(d);
                const DeviceArray<uint32_t> needed(std::vector<uint32_t>{1});
                const DeviceCopies copied(
                        device, rows, rows.first ? needed.get() : nullptr);
                const std::vector<Half> found = copied.copies.read();
                for (int64_t i = 0; i < rows.count; ++i) {
                    expectCopy(
                            found.data() + i * width,
                            rowOf(store, rows.first + i * rows.step).data(),
                            centre,
                            scale,
                            "vector");
                }
            }
        });
    }
}

TEST_F(ExactKernels, NothingIsCopiedWhereNoQueryNeedsIt) {
    const ExactCase data = exactCases(20, 300, 1, kSeed)[0];
    for (bool half : {false, true}) {
        const DeviceIndex device(data.store(Metric::L2, half));
        const DeviceArray<uint32_t> needed(std::vector<uint32_t>{0});
        const DeviceCopies copied(device, {0, 300, 1}, needed.get());
        const auto found = copied.copies.read();
        const auto untouched = DeviceArray<Half>(found.size()).read();
        for (size_t i = 0; i < found.size(); ++i) {
            ASSERT_EQ(found[i].bits, untouched[i].bits);
        }
    }
}

TEST_F(ExactKernels, QueriesTermsAndCopiesAreTheHosts) {
    for (int d : {1, 7, 16, 33, 128}) {
        const int n = 11, k = 5;
        forEachStore(d, 300, n, [&](const ExactCase& data, const Store& store) {
            const DeviceIndex device(store);
            const IndexTerms index = device.terms.at(0);
            const std::vector<float> centre = device.centre.read();
            std::vector<float> queryCentre(centre);
            for (float& m : queryCentre) {
                m = exact::QuerySums::queryCentre(store.metric, m);
            }
            for (bool scanAll : {false, true}) {
                DeviceQueries queries(data.queries, d, k, k);
                check(exact::launchPrepareQueries(
                        device.state, queries.state, scanAll, nullptr));
                const auto terms = queries.terms.read();
                const auto copies = queries.copies.read();
                const auto paths = queries.paths.read();
                for (int64_t query = 0; query < n; ++query) {
                    const float* x = data.query(query);
                    int largest = 0;
                    for (int i = 0; i < d; ++i) {
                        largest = std::max(
                                largest,
                                exact::exponentBin(
                                        exact::subtract(x[i], queryCentre[i])));
                    }
                    const int scale = exact::scaleOfBin(largest);
                    expectCopy(
                            copies.data() + query * exact::copyWidth(d),
                            x,
                            queryCentre,
                            scale,
                            "query");
                    const auto sums = sumOfLanes<exact::QuerySums>(
                            32, d, [&](exact::QuerySums& part, int i) {
                                part.addComponent(
                                        store.metric,
                                        x[i],
                                        centre[i],
                                        exact::halfOf(
                                                x[i],
                                                queryCentre[i],
                                                exact::powerOfTwo(scale)),
                                        exact::powerOfTwo(-scale));
                            });
                    const QueryTerms expected =
                            exact::queryTerms(index, sums, scale);
                    const QueryTerms& found = terms[query];
                    ASSERT_EQ(found.inRange, expected.inRange);
                    ASSERT_EQ(found.factor, expected.factor);
                    ASSERT_TRUE(nearly(found.perNorm, expected.perNorm));
                    ASSERT_TRUE(nearly(found.perError, expected.perError));
                    const double size = std::fabs(expected.low) +
                                        std::fabs(expected.high) +
                                        std::sqrt(std::fabs(sums.row.square)) *
                                                std::fabs(index.centre);
                    ASSERT_TRUE(nearly(found.low, expected.low, size));
                    ASSERT_TRUE(nearly(found.high, expected.high, size));
                    ASSERT_EQ(
                            paths[query],
                            scanAll || !expected.inRange
                                    ? QueryPath::Last
                                    : QueryPath::Certified);
                }
                for (float cut : queries.cut.read()) {
                    ASSERT_EQ(cut, exact::missingLoss());
                }
                for (float cut : queries.leastCut.read()) {
                    ASSERT_EQ(cut, exact::missingLoss());
                }
                for (uint64_t key : queries.best.read()) {
                    ASSERT_EQ(key, exact::kMissing);
                }
                for (uint32_t count : queries.counts.read()) {
                    ASSERT_EQ(count, 0u);
                }
                ASSERT_EQ(queries.againCount.at(0), 0u);
                ASSERT_EQ(queries.lastCount.at(0), 0u);
                ASSERT_EQ(queries.widenedCount.at(0), 0u);
            }
        });
    }
}

TEST_F(ExactKernels, ScoresAreWithinTheirBound) {
    for (int d : {1, 8, 33, 128, 300}) {
        const int n = 9, nb = 260;
        forEachStore(d, nb, n, [&](const ExactCase& data, const Store& store) {
            const DeviceIndex device(store);
            DeviceQueries queries(data.queries, d, 1, 1);
            check(exact::launchPrepareQueries(
                    device.state, queries.state, false, nullptr));
            const DeviceScores scored(device, queries, {2, nb - 2, 1}, 6);
            const auto scores = scored.scores.read();
            const auto ofQueries = queries.copies.read();
            const auto ofVectors = scored.copies.read();
            const int width = exact::copyWidth(d);
            for (int64_t query = 0; query < n; ++query) {
                for (int64_t row = 0; row < nb - 2; ++row) {
                    double sum = 0, xx = 0, yy = 0;
                    for (int i = 0; i < width; ++i) {
                        const double a =
                                exact::toFloat(ofQueries[query * width + i]);
                        const double b =
                                exact::toFloat(ofVectors[row * width + i]);
                        sum += a * b;
                        xx += a * a;
                        yy += b * b;
                    }
                    const float score = scores[query * scored.ld + row];
                    if (!std::isfinite(sum)) {
                        ASSERT_FALSE(std::isfinite(score));
                        continue;
                    }
                    ASSERT_LE(
                            std::fabs(score - sum),
                            exact::accumulationError(testedArithmetic(), d) *
                                            std::sqrt(xx) * std::sqrt(yy) +
                                    1e-300);
                }
            }
        });
    }
}

/// What follows from scores read back.
struct HostScores {
    HostScores(
            const DeviceIndex& device,
            const DeviceQueries& queries,
            const DeviceScores& scored)
            : index(device.terms.at(0)),
              vectors(device.vectors.read()),
              terms(queries.terms.read()),
              rows(scored.rows),
              ld(scored.ld),
              scores(scored.scores.read()) {}

    int64_t label(int64_t column) const {
        return rows.first + column * rows.step;
    }

    float value(int64_t query, int64_t column) const {
        return exact::valueOf(
                scores[query * ld + column],
                terms[query].factor,
                exact::startOf(index.metric, vectors[label(column)]));
    }

    /// Of one vector; nothing of one out of range.
    VectorBounds boundsOf(int64_t column) const {
        const VectorTerms& vector = vectors[label(column)];
        return exact::inRange(vector) ? VectorBounds::boundsOf(vector)
                                      : VectorBounds();
    }

    /// The finer filter, whose sets are 128 columns each.
    bool passes(int64_t query, int64_t column, float cut) const {
        float rest = 0;
        const int64_t first = column / 128 * 128;
        for (int64_t i = first; i < std::min(first + 128, rows.count); ++i) {
            rest = std::max(rest, exact::errorRest(boundsOf(i)));
        }
        return exact::passes(
                exact::fineValue(
                        scores[query * ld + column],
                        terms[query].factor,
                        exact::finePerVector(terms[query]),
                        boundsOf(column).norm,
                        exact::fineStart(exact::startOf(
                                index.metric, vectors[label(column)]))),
                exact::fineThreshold(
                        terms[query],
                        exact::thresholdBase(index, terms[query], cut),
                        rest));
    }

    std::set<uint32_t> passing(int64_t query, float cut) const {
        std::set<uint32_t> labels;
        for (int64_t column = 0; column < rows.count; ++column) {
            if (passes(query, column, cut)) {
                labels.insert(static_cast<uint32_t>(label(column)));
            }
        }
        return labels;
    }

    IndexTerms index;
    std::vector<VectorTerms> vectors;
    std::vector<QueryTerms> terms;
    VectorRows rows;
    int64_t ld;
    std::vector<float> scores;
};

struct SampleShape {
    int n;
    int nb;
    int k;
    VectorRows rows;
    int padding;
    /// Of the cut, where it is not k.
    int rank = 0;
};

TEST_F(ExactKernels, TheFirstCutIsOneThatKVectorsMeet) {
    const std::vector<SampleShape> shapes = {
            {1, 1, 1, {0, 1, 1}, 0},
            {5, 700, 10, {0, 700, 1}, 0},
            {6, 700, 60, {1, 230, 3}, 1},
            {9, 5000, 256, {0, 5000, 1}, 3},
            {3, 3000, 300, {0, 3000, 1}, 0},
            {5, 50000, 3, {0, 50000, 1}, 0},
            {2, 2500, 2048, {0, 2500, 1}, 4},
            {3, 2048, 2048, {0, 2048, 1}, 0},
            {5, 2000, 2048, {0, 2000, 1}, 0, 17}};
    for (const SampleShape& shape : shapes) {
        const int d = 10, rank = shape.rank ? shape.rank : shape.k;
        forEachStore(
                d,
                shape.nb,
                shape.n,
                [&](const ExactCase& data, const Store& store) {
                    const DeviceIndex device(store);
                    DeviceQueries queries(data.queries, d, shape.k, shape.k);
                    check(exact::launchPrepareQueries(
                            device.state, queries.state, false, nullptr));
                    queries.state.rank = rank;
                    const DeviceScores scored(
                            device, queries, shape.rows, shape.padding);
                    check(exact::launchSampleCut(
                            shape.rows,
                            device.state,
                            queries.state,
                            scored.scores.get(),
                            scored.ld,
                            nullptr));
                    const HostScores host(device, queries, scored);
                    const auto cuts = queries.cut.read();
                    const auto paths = queries.paths.read();
                    for (int64_t query = 0; query < shape.n; ++query) {
                        const float cut = cuts[query];
                        if (paths[query] == QueryPath::Last) {
                            ASSERT_EQ(cut, exact::missingLoss());
                        }
                        if (cut == exact::missingLoss()) {
                            continue;
                        }
                        int64_t met = 0, proven = 0;
                        for (int64_t i = 0; i < shape.rows.count; ++i) {
                            const int64_t label = host.label(i);
                            const float loss = exact::lossOf(
                                    store.metric,
                                    store.distance(data.query(query), label));
                            met += loss <= cut;
                            if (exact::inRange(host.vectors[label])) {
                                proven +=
                                        exact::mostLoss(
                                                host.index,
                                                host.terms[query],
                                                host.value(query, i),
                                                VectorBounds::boundsOf(
                                                        host.vectors[label])) <
                                        exact::nextDown(cut);
                            }
                        }
                        ASSERT_GE(met, rank) << "query " << query;
                        if (data.name == "normal" && shape.nb < 10000) {
                            // Not much above the k-th smallest.
                            ASSERT_LE(proven, rank + rank / 4 + 1);
                        }
                    }
                    if (data.name == "normal" || data.name == "uniform") {
                        for (float cut : cuts) {
                            ASSERT_LT(cut, exact::missingLoss());
                        }
                    }
                });
    }
}

/// Cuts of every kind: each a loss that some vectors have, or none.
std::vector<float> someCuts(
        const Store& store, const std::vector<float>& x, int64_t rank) {
    std::vector<float> cuts;
    for (size_t query = 0; query * store.d < x.size(); ++query) {
        const auto keys = keysOf(store, x.data() + query * store.d);
        const size_t place =
                query % 5 == 4 ? keys.size() : size_t(rank) * (query % 4);
        cuts.push_back(
                place < keys.size() ? exact::lossOf(keys[place])
                                    : exact::missingLoss());
    }
    return cuts;
}

TEST_F(ExactKernels, TheFilterLetsExactlyThoseThroughThatPass) {
    struct Shape {
        int n;
        int nb;
        VectorRows rows;
        int padding;
    };
    const std::vector<Shape> shapes = {
            {1, 1, {0, 1, 1}, 0},
            {3, 127, {0, 127, 1}, 1},
            {33, 1024, {0, 1024, 1}, 0},
            {40, 2000, {128, 1290, 1}, 2},
            {70, 600, {4, 500, 1}, 0},
            {31, 700, {3, 601, 1}, 3},
            {34, 900, {2, 290, 3}, 2}};
    for (const Shape& shape : shapes) {
        const int d = 12, capacity = static_cast<int>(shape.rows.count);
        forEachStore(
                d,
                shape.nb,
                shape.n,
                [&](const ExactCase& data, const Store& store) {
                    const DeviceIndex device(store);
                    DeviceQueries queries(data.queries, d, 1, capacity);
                    check(exact::launchPrepareQueries(
                            device.state, queries.state, false, nullptr));
                    auto paths = queries.paths.read();
                    paths[shape.n / 2] = QueryPath::Last;
                    queries.paths.write(paths);
                    const auto cuts = someCuts(store, data.queries, 9);
                    queries.cut.write(cuts);
                    std::vector<float> least(shape.n, exact::missingLoss());
                    least[0] = -1e30f;
                    queries.leastCut.write(least);
                    const DeviceScores scored(
                            device, queries, shape.rows, shape.padding);
                    check(exact::launchFilter(
                            shape.rows,
                            device.state,
                            queries.state,
                            scored.scores.get(),
                            scored.ld,
                            nullptr));
                    const HostScores host(device, queries, scored);
                    const auto counts = queries.counts.read();
                    const auto survivors = queries.survivors.read();
                    const auto leastCut = queries.leastCut.read();
                    for (int64_t query = 0; query < shape.n; ++query) {
                        const bool last = paths[query] == QueryPath::Last;
                        const std::set<uint32_t> expected =
                                last ? std::set<uint32_t>()
                                     : host.passing(query, cuts[query]);
                        const uint32_t* list =
                                survivors.data() + query * capacity;
                        ASSERT_EQ(counts[query], expected.size());
                        ASSERT_EQ(
                                std::set<uint32_t>(list, list + counts[query]),
                                expected)
                                << "query " << query;
                        ASSERT_EQ(
                                leastCut[query],
                                last ? least[query]
                                     : std::min(cuts[query], least[query]));
                    }
                });
    }
}

TEST_F(ExactKernels, OfAListThatRanOverWhatThereIsRoomForIsKept) {
    const int d = 9, n = 37, nb = 900, capacity = 50, k = 10;
    for (Metric metric : kMetrics) {
        const ExactCase data = exactCases(d, nb, n, kSeed)[0];
        const Store store = data.store(metric, false);
        const DeviceIndex device(store);
        DeviceQueries queries(data.queries, d, k, capacity);
        const QueryState& state = queries.state;
        check(exact::launchPrepareQueries(device.state, state, false, nullptr));
        // Every third list runs over.
        std::vector<float> cuts;
        for (int64_t query = 0; query < n; ++query) {
            const auto keys = keysOf(store, data.query(query));
            cuts.push_back(exact::lossOf(keys[query % 3 ? 2 : 400]));
        }
        queries.cut.write(cuts);
        // Lists of two launches add up.
        std::vector<std::set<uint32_t>> passing(n);
        for (const VectorRows& rows :
             std::vector<VectorRows>{{0, 600, 1}, {600, nb - 600, 1}}) {
            const DeviceScores scored(device, queries, rows);
            check(exact::launchFilter(
                    rows,
                    device.state,
                    state,
                    scored.scores.get(),
                    scored.ld,
                    nullptr));
            const HostScores host(device, queries, scored);
            for (int64_t query = 0; query < n; ++query) {
                const auto these = host.passing(query, cuts[query]);
                passing[query].insert(these.begin(), these.end());
            }
        }
        const auto counts = queries.counts.read();
        const auto survivors = queries.survivors.read();
        std::vector<std::vector<uint32_t>> lists;
        for (int64_t query = 0; query < n; ++query) {
            ASSERT_EQ(counts[query], passing[query].size());
            const uint32_t* list = survivors.data() + query * capacity;
            lists.emplace_back(
                    list, list + std::min<size_t>(capacity, counts[query]));
            const std::set<uint32_t> found(
                    lists.back().begin(), lists.back().end());
            ASSERT_EQ(found.size(), lists.back().size()) << "a label twice";
            for (uint32_t label : found) {
                ASSERT_TRUE(passing[query].count(label));
            }
        }
        check(exact::launchSelect(device.view, device.state, state, nullptr));
        for (int64_t query = 0; query < n; ++query) {
            const bool over = counts[query] > capacity;
            ASSERT_EQ(over, query % 3 == 0);
            ASSERT_EQ(queries.counts.at(query), 0u);
            ASSERT_EQ(
                    queries.paths.at(query),
                    over ? QueryPath::Incomplete : QueryPath::Certified);
            auto keys = keysOf(store, data.query(query), lists[query]);
            ASSERT_EQ(
                    queries.cut.at(query),
                    int(keys.size()) < k
                            ? cuts[query]
                            : std::min(
                                      cuts[query], exact::lossOf(keys[k - 1])));
            keys.resize(k, exact::kMissing);
            for (int i = 0; i < k; ++i) {
                ASSERT_EQ(queries.best.at(query * k + i), keys[i]);
            }
        }
    }
}

/// What the fused filter may and must let pass, from copies read back: its
/// scores are only known to be within their bound.
struct HostFused {
    HostFused(
            const DeviceIndex& device,
            const DeviceQueries& queries,
            const VectorRows& of,
            const std::vector<Half>& ofVectors)
            : index(device.terms.at(0)),
              vectors(device.vectors.read()),
              terms(queries.terms.read()),
              copies(floats(queries.copies.read())),
              rows(of),
              vectorCopies(floats(ofVectors)),
              width(exact::copyWidth(device.store.d)) {
        for (const QueryTerms& query : terms) {
            if (query.inRange) {
                spread = std::max(spread, exact::finePerVector(query));
            }
        }
    }

    static std::vector<float> floats(const std::vector<Half>& halves) {
        std::vector<float> all;
        for (Half half : halves) {
            all.push_back(exact::toFloat(half));
        }
        return all;
    }

    int64_t label(int64_t column) const {
        return rows.first + column * rows.step;
    }

    enum class Passing { Never, Perhaps, Always };

    /// One for each column.
    std::vector<Passing> passing(int64_t query, float cut) const {
        std::vector<Passing> all;
        const QueryTerms& own = terms[query];
        const double perVector = exact::finePerVector(own);
        float rest = 0;
        for (int64_t column = 0; column < rows.count; ++column) {
            if (column % 256 == 0) {
                rest = 0;
                for (int64_t i = column; i < std::min(column + 256, rows.count);
                     ++i) {
                    const VectorTerms& other = vectors[label(i)];
                    if (exact::inRange(other)) {
                        rest = std::max(
                                rest,
                                exact::errorRest(
                                        VectorBounds::boundsOf(other)));
                    }
                }
            }
            const VectorTerms& vector = vectors[label(column)];
            if (!exact::inRange(vector)) {
                all.push_back(Passing::Always);
                continue;
            }
            double score = 0, xx = 0, yy = 0;
            for (int i = 0; i < width; ++i) {
                const double a = copies[query * width + i];
                const double b = vectorCopies[column * width + i];
                score += a * b;
                xx += a * a;
                yy += b * b;
            }
            const double norm = VectorBounds::boundsOf(vector).norm;
            const double start =
                    exact::fineStart(exact::startOf(index.metric, vector));
            const double threshold = exact::fineThreshold(
                    own, exact::thresholdBase(index, own, cut), rest);
            const double value = own.factor * score + start - perVector * norm;
            const double off =
                    std::fabs(own.factor) *
                    exact::accumulationError(testedArithmetic(), index.d) *
                    std::sqrt(xx) * std::sqrt(yy);
            const double rounding =
                    0x1p-17 * (std::fabs(start) + spread * norm +
                               std::fabs(own.factor * score) + off +
                               own.perError * rest) +
                    1e-37;
            const double rough = rounding + 0x1p-17 * std::fabs(threshold) +
                                 (spread - perVector) * norm;
            all.push_back(
                    std::isinf(threshold) ? Passing::Always
                    : value + off + 0x1p-8 * rounding <= threshold
                            ? Passing::Always
                    : value - off - rough > threshold ? Passing::Never
                                                      : Passing::Perhaps);
        }
        return all;
    }

    IndexTerms index;
    std::vector<VectorTerms> vectors;
    std::vector<QueryTerms> terms;
    std::vector<float> copies;
    VectorRows rows;
    std::vector<float> vectorCopies;
    int width;
    /// The largest of any query.
    float spread = 0;
};

/// Whether a query's list and count are those that the filter may have made.
void expectFused(
        const HostFused& host,
        int64_t query,
        float cut,
        bool takesPart,
        uint32_t count,
        const uint32_t* list,
        int64_t capacity) {
    using Passing = HostFused::Passing;
    const std::set<uint32_t> found(
            list, list + std::min<int64_t>(count, capacity));
    if (!takesPart) {
        ASSERT_EQ(count, 0u) << "query " << query;
        return;
    }
    ASSERT_EQ(int64_t(found.size()), std::min<int64_t>(count, capacity))
            << "a label twice, query " << query;
    const std::vector<Passing> passing = host.passing(query, cut);
    int64_t always = 0, perhaps = 0, seen = 0;
    for (int64_t column = 0; column < host.rows.count; ++column) {
        const bool there = found.count(uint32_t(host.label(column)));
        seen += there;
        always += passing[column] == Passing::Always;
        perhaps += passing[column] == Passing::Perhaps;
        if (passing[column] == Passing::Never) {
            ASSERT_FALSE(there) << "query " << query << ", column " << column;
        }
        if (passing[column] == Passing::Always && count <= capacity) {
            ASSERT_TRUE(there) << "query " << query << ", column " << column;
        }
    }
    ASSERT_EQ(seen, int64_t(found.size())) << "a label that is not of these";
    ASSERT_LE(int64_t(count), always + perhaps);
    if (count <= capacity) {
        ASSERT_GE(int64_t(count), always);
    } else {
        ASSERT_GT(always + perhaps, capacity);
    }
}

struct FusedShape {
    int d;
    int n;
    int nb;
    VectorRows rows;
    /// Of all kinds of data every so many.
    int every;
};

void PrintTo(const FusedShape& shape, std::ostream* out) {
    *out << "d " << shape.d << ", n " << shape.n << ", rows "
         << shape.rows.first << " " << shape.rows.count << " "
         << shape.rows.step;
}

class ExactKernelsFused : public ExactKernels,
                          public ::testing::WithParamInterface<FusedShape> {
   protected:
    void SetUp() override {
        ExactKernels::SetUp();
        if (!IsSkipped() && !fusedFilterRuns()) {
            GTEST_SKIP() << "not of compute capability 9.0";
        }
    }
};

TEST_P(ExactKernelsFused, ThoseAndNoOthersPass) {
    const FusedShape& shape = GetParam();
    const int d = shape.d, n = shape.n, width = exact::copyWidth(d);
    const VectorRows& rows = shape.rows;
    int number = 0;
    forEachStore(
            d, shape.nb, n, [&](const ExactCase& data, const Store& store) {
                if (number++ % shape.every) {
                    return;
                }
                const int capacity =
                        number % 3 ? static_cast<int>(rows.count) : 7;
                const DeviceIndex device(store);
                DeviceQueries queries(data.queries, d, 1, capacity);
                check(exact::launchPrepareQueries(
                        device.state, queries.state, false, nullptr));
                auto paths = queries.paths.read();
                paths[n / 2] = QueryPath::Last;
                const auto cuts = someCuts(store, data.queries, 9);
                queries.cut.write(cuts);
                std::vector<float> least(n, exact::missingLoss());
                least[0] = -1e30f;
                queries.leastCut.write(least);
                // Rows that lie further apart, too.
                const int stride = width + (number % 2 ? 0 : 24);
                DeviceArray<Half> apart(rows.count * stride);
                const auto dense = DeviceCopies(device, rows).copies.read();
                std::vector<Half> wide(rows.count * stride, Half{0x7e00});
                for (int64_t i = 0; i < rows.count; ++i) {
                    std::copy_n(
                            dense.begin() + i * width,
                            width,
                            wide.begin() + i * stride);
                }
                apart.write(wide);
                const HostFused host(device, queries, rows, dense);
                for (FilterPass pass : {FilterPass::First, FilterPass::Again}) {
                    const bool again = pass == FilterPass::Again;
                    for (int i = 0; again && i < n; ++i) {
                        if (i % 3 == number % 3 && (i < 64 || i > 130) &&
                            paths[i] != QueryPath::Last) {
                            paths[i] = QueryPath::Widened;
                        }
                    }
                    queries.paths.write(paths);
                    queries.counts.write(std::vector<uint32_t>(n));
                    queries.againCount.write({static_cast<uint32_t>(std::count(
                            paths.begin(), paths.end(), QueryPath::Widened))});
                    check(exact::launchFusedFilter(
                            pass,
                            rows,
                            device.state,
                            queries.state,
                            apart.get(),
                            stride,
                            nullptr));
                    check(cudaDeviceSynchronize());
                    const auto counts = queries.counts.read();
                    const auto survivors = queries.survivors.read();
                    const auto leastCut = queries.leastCut.read();
                    for (int64_t query = 0; query < n; ++query) {
                        const bool takesPart =
                                again ? paths[query] == QueryPath::Widened
                                      : paths[query] != QueryPath::Last;
                        expectFused(
                                host,
                                query,
                                cuts[query],
                                takesPart,
                                counts[query],
                                survivors.data() + query * capacity,
                                capacity);
                        if (::testing::Test::HasFailure()) {
                            return;
                        }
                        ASSERT_EQ(
                                leastCut[query],
                                paths[query] == QueryPath::Last
                                        ? least[query]
                                        : std::min(cuts[query], least[query]));
                    }
                }
            });
}

INSTANTIATE_TEST_SUITE_P(
        Small,
        ExactKernelsFused,
        ::testing::Values(
                FusedShape{1, 1, 1, {0, 1, 1}, 1},
                FusedShape{7, 3, 127, {0, 127, 1}, 1},
                FusedShape{8, 33, 500, {0, 500, 1}, 1},
                FusedShape{12, 150, 800, {2, 265, 3}, 3},
                FusedShape{100, 7, 300, {3, 290, 1}, 3},
                FusedShape{136, 20, 260, {0, 260, 1}, 5}));

INSTANTIATE_TEST_SUITE_P(
        Large,
        ExactKernelsFused,
        ::testing::Values(
                FusedShape{64, 300, 400, {0, 400, 1}, 5},
                FusedShape{96, 130, 1500, {1, 1111, 1}, 5},
                FusedShape{128, 256, 700, {0, 640, 1}, 5},
                FusedShape{128, 60, 20000, {0, 20000, 1}, 13},
                FusedShape{200, 129, 300, {0, 300, 1}, 7},
                FusedShape{512, 70, 400, {0, 399, 1}, 7},
                FusedShape{768, 257, 200, {0, 200, 1}, 11},
                FusedShape{1024, 5, 1000, {5, 331, 3}, 11},
                FusedShape{4096, 3, 260, {0, 260, 1}, 11}));

TEST_F(ExactKernels, TheBestOfSurvivorsAndOfTheFormerBestAreKept) {
    struct Shape {
        int d;
        int k;
        int capacity;
    };
    const std::vector<Shape> shapes = {
            {1, 1, 1},
            {5, 3, 40},
            {16, 100, 700},
            {64, 17, 64},
            {33, 2048, 2500},
            {100, 300, 333}};
    std::mt19937 random(kSeed);
    for (const Shape& shape : shapes) {
        int number = 0;
        const int n = 7, nb = 3000, d = shape.d, k = shape.k;
        forEachStore(d, nb, n, [&](const ExactCase& data, const Store& store) {
            const DeviceIndex device(store);
            DeviceQueries queries(data.queries, d, k, shape.capacity);
            check(exact::launchPrepareQueries(
                    device.state, queries.state, false, nullptr));
            // Cuts of the best, of all of k or of the first few.
            const int rank = number++ % 2 ? k : (k + 4) / 5;
            queries.state.rank = rank;
            // A cut that was guessed does not grow.
            std::vector<float> guesses(n, exact::missingLoss());
            guesses[3] = -3e38f;
            queries.cut.write(guesses);
            std::vector<std::vector<uint32_t>> seen(n);
            std::vector<uint32_t> labels(nb);
            std::iota(labels.begin(), labels.end(), 0);
            std::shuffle(labels.begin(), labels.end(), random);
            size_t next = 0;
            for (int round = 0; round < 3; ++round) {
                std::vector<uint32_t> survivors(n * shape.capacity);
                std::vector<uint32_t> counts(n);
                for (int query = 0; query < n; ++query) {
                    counts[query] = query == 1 ? 0
                                    : query == 2
                                            ? shape.capacity
                                            : random() % (shape.capacity + 1);
                    counts[query] = std::min<uint32_t>(
                            counts[query], nb - seen[query].size());
                    for (uint32_t i = 0; i < counts[query]; ++i) {
                        const uint32_t label =
                                labels[(seen[query].size() + next) % nb];
                        survivors[query * shape.capacity + i] = label;
                        seen[query].push_back(label);
                    }
                }
                queries.survivors.write(survivors);
                queries.counts.write(counts);
                check(exact::launchSelect(
                        device.view, device.state, queries.state, nullptr));
                const auto best = queries.best.read();
                const auto cuts = queries.cut.read();
                for (int query = 0; query < n; ++query) {
                    const auto keys =
                            keysOf(store, data.query(query), seen[query]);
                    for (int i = 0; i < k; ++i) {
                        ASSERT_EQ(
                                best[query * k + i],
                                i < int(keys.size()) ? keys[i]
                                                     : exact::kMissing)
                                << "query " << query << ", place " << i
                                << ", round " << round;
                    }
                    ASSERT_EQ(
                            cuts[query],
                            rank <= int(keys.size())
                                    ? std::min(
                                              guesses[query],
                                              exact::lossOf(keys[rank - 1]))
                                    : guesses[query]);
                    ASSERT_EQ(queries.counts.at(query), 0u);
                }
            }
        });
    }
}

/// Queries of every kind after a round of filtering.
struct FilteredQueries {
    static constexpr int k = 3;

    explicit FilteredQueries(int n)
            : queries(std::vector<float>(n), 1, k, k),
              paths(n),
              cut(n),
              least(n),
              best(n * k) {
        for (int query = 0; query < n; ++query) {
            paths[query] = QueryPath(query * 7 % 4);
            cut[query] = 2.5f + float(query % 2);
            best[query * k] = exact::resultKey(Metric::L2, 1, 2);
            best[query * k + 1] = exact::resultKey(Metric::L2, 2, 1);
            best[query * k + 2] = query % 5 ? exact::resultKey(Metric::L2, 3, 5)
                                            : exact::kMissing;
            least[query] = query / 2 % 2   ? 3.0f
                           : query / 2 % 4 ? exact::nextDown(3.0f)
                                           : exact::missingLoss();
        }
        queries.paths.write(paths);
        queries.cut.write(cut);
        queries.leastCut.write(least);
        queries.best.write(best);
    }

    uint64_t kth(int query) const {
        return best[query * k + k - 1];
    }
    bool proven(int query) const {
        return (paths[query] == QueryPath::Certified ||
                paths[query] == QueryPath::Widened) &&
               exact::certified(exact::lossOf(kth(query)), least[query]);
    }
    void clear(int query) {
        std::fill_n(best.begin() + query * k, k, exact::kMissing);
    }
    void expectSame() const {
        ASSERT_EQ(queries.paths.read(), paths);
        ASSERT_EQ(queries.cut.read(), cut);
        ASSERT_EQ(queries.leastCut.read(), least);
        ASSERT_EQ(queries.best.read(), best);
    }

    DeviceQueries queries;
    std::vector<QueryPath> paths;
    std::vector<float> cut;
    std::vector<float> least;
    std::vector<uint64_t> best;
};

constexpr int kManyQueries[] = {1, 2, 31, 33, 1023, 1024, 1025, 2500};

TEST_F(ExactKernels, QueriesWithoutCertificateAreFilteredAgainByAProvenCut) {
    for (int n : kManyQueries) {
        FilteredQueries filtered(n);
        // What others have counted stays.
        filtered.queries.againCount.write({7});
        uint32_t again = 7;
        check(exact::launchCollectAgain(filtered.queries.state, nullptr));
        for (int query = 0; query < n; ++query) {
            QueryPath& path = filtered.paths[query];
            const uint64_t kth = filtered.kth(query);
            if (path == QueryPath::Last || filtered.proven(query)) {
                continue;
            }
            path = kth == exact::kMissing ? QueryPath::Last
                                          : QueryPath::Widened;
            if (path == QueryPath::Widened) {
                ++again;
                filtered.cut[query] = exact::lossOf(kth);
                filtered.least[query] = exact::missingLoss();
                filtered.clear(query);
            }
        }
        ASSERT_EQ(filtered.queries.againCount.at(0), again) << n;
        filtered.expectSame();
    }
}

TEST_F(ExactKernels, QueriesWithoutCertificateAreCollected) {
    for (int n : kManyQueries) {
        FilteredQueries filtered(n);
        filtered.queries.lastCount.write({0});
        filtered.queries.widenedCount.write({0});
        uint32_t widened = 0;
        check(exact::launchCollectLast(filtered.queries.state, nullptr));
        std::vector<uint32_t> expected;
        for (int query = 0; query < n; ++query) {
            if (!filtered.proven(query)) {
                expected.push_back(query);
                filtered.paths[query] = QueryPath::Last;
                filtered.clear(query);
            } else {
                widened += filtered.paths[query] == QueryPath::Widened;
            }
        }
        ASSERT_EQ(filtered.queries.lastCount.at(0), expected.size());
        ASSERT_EQ(filtered.queries.widenedCount.at(0), widened);
        auto last = filtered.queries.last.read();
        last.resize(expected.size());
        // In no order.
        std::sort(last.begin(), last.end());
        ASSERT_EQ(last, expected);
        filtered.expectSame();
    }
}

TEST_F(ExactKernels, LossesAreTheHostsBitForBit) {
    struct Shape {
        int d;
        int n;
        int nb;
        VectorRows rows;
        int padding;
    };
    const std::vector<Shape> shapes = {
            {1, 1, 1, {0, 1, 1}, 0},
            {7, 9, 40, {3, 33, 1}, 0},
            {16, 65, 70, {0, 70, 1}, 2},
            {20, 130, 33, {0, 33, 1}, 3},
            {48, 20, 300, {5, 70, 3}, 0},
            {100, 3, 64, {0, 64, 1}, 0},
            {1030, 5, 40, {0, 40, 1}, 4}};
    for (const Shape& shape : shapes) {
        const int d = shape.d, n = shape.n;
        forEachStore(
                d, shape.nb, n, [&](const ExactCase& data, const Store& store) {
                    const DeviceIndex device(store);
                    DeviceQueries queries(data.queries, d, 1, 1);
                    // All but every third query.
                    std::vector<uint32_t> last;
                    for (int query = 0; query < n; ++query) {
                        if (query % 3 || n == 1) {
                            last.push_back(query);
                        }
                    }
                    queries.last.write(last);
                    queries.lastCount.write({uint32_t(last.size())});
                    const int64_t ld = shape.rows.count + shape.padding;
                    DeviceArray<float> losses(n * ld);
                    check(exact::launchLosses(
                            device.view,
                            shape.rows,
                            device.state,
                            queries.state,
                            losses.get(),
                            ld,
                            nullptr));
                    const auto found = losses.read();
                    for (size_t i = 0; i < last.size(); ++i) {
                        for (int64_t c = 0; c < shape.rows.count; ++c) {
                            const float expected = exact::lossOf(
                                    store.metric,
                                    store.distance(
                                            data.query(last[i]),
                                            shape.rows.first +
                                                    c * shape.rows.step));
                            ASSERT_TRUE(same(found[i * ld + c], expected))
                                    << found[i * ld + c] << " is not "
                                    << expected << ", query " << last[i]
                                    << ", column " << c;
                        }
                    }
                });
    }
}

TEST_F(ExactKernels, NothingIsWrittenWhereNoQueryIsLast) {
    const ExactCase data = exactCases(8, 100, 4, kSeed)[0];
    const DeviceIndex device(data.store(Metric::L2, false));
    DeviceQueries queries(data.queries, 8, 2, 2);
    queries.lastCount.write({0});
    DeviceArray<float> losses(400);
    const auto before = losses.read();
    const auto best = queries.best.read();
    check(exact::launchLosses(
            device.view,
            {0, 100, 1},
            device.state,
            queries.state,
            losses.get(),
            100,
            nullptr));
    check(exact::launchSelectLosses(
            {0, 100, 1}, queries.state, losses.get(), 100, nullptr));
    const auto after = losses.read();
    for (size_t i = 0; i < before.size(); ++i) {
        ASSERT_TRUE(same(before[i], after[i]));
    }
    ASSERT_EQ(queries.best.read(), best);
}

/// Losses of many kinds.
std::vector<std::vector<float>> someLosses(int64_t count) {
    std::mt19937 random(kSeed);
    std::normal_distribution<float> normal;
    const std::vector<std::function<float(int64_t)>> kinds = {
            [&](int64_t) { return normal(random); },
            [&](int64_t) { return 1.0f; },
            [&](int64_t) { return float(random() % 3); },
            [&](int64_t i) { return float(i); },
            [&](int64_t i) { return -float(i); },
            [&](int64_t) { return exact::floatOf(0x3f800000 + random() % 64); },
            [&](int64_t) { return exact::floatOf(random()); },
            [&](int64_t) { return std::nanf(""); },
            [&](int64_t i) {
                return i % 3 ? exact::infinity() : normal(random);
            },
            [&](int64_t i) { return i % 100 ? exact::missingLoss() : 0.0f; }};
    std::vector<std::vector<float>> rows;
    for (const auto& kind : kinds) {
        rows.emplace_back();
        for (int64_t i = 0; i < count; ++i) {
            rows.back().push_back(kind(i));
        }
    }
    return rows;
}

TEST_F(ExactKernels, TheBestOfLossesAreKeptTiesByLabel) {
    struct Shape {
        int64_t count;
        int k;
        int padding;
        int64_t step;
    };
    const std::vector<Shape> shapes = {
            {1, 1, 0, 1},
            {100, 7, 1, 1},
            {2048, 2048, 0, 1},
            {9000, 1, 0, 1},
            {10001, 100, 3, 2},
            {30000, 512, 0, 1},
            {20000, 2048, 4, 1}};
    for (const Shape& shape : shapes) {
        const auto kinds = someLosses(shape.count);
        const int n = static_cast<int>(kinds.size()), k = shape.k;
        DeviceQueries queries(std::vector<float>(n), 1, k, k);
        std::vector<uint32_t> last(n);
        std::iota(last.begin(), last.end(), 0);
        std::reverse(last.begin(), last.end());
        queries.last.write(last);
        queries.lastCount.write({uint32_t(n)});
        queries.best.write(
                std::vector<uint64_t>(size_t(n) * k, exact::kMissing));
        const int64_t ld = shape.count + shape.padding;
        std::vector<std::vector<uint64_t>> keys(n);
        for (int64_t round = 0; round < 3; ++round) {
            const VectorRows rows = {
                    5 + round * shape.count * shape.step,
                    shape.count,
                    shape.step};
            std::vector<float> losses(n * ld);
            for (int i = 0; i < n; ++i) {
                // Other losses each time.
                const auto& row = kinds[(i + round) % n];
                std::copy(row.begin(), row.end(), losses.begin() + i * ld);
                for (int64_t c = 0; c < shape.count; ++c) {
                    keys[last[i]].push_back(
                            row[c] < exact::missingLoss()
                                    ? uint64_t(exact::lossKey(row[c])) << 32 |
                                              uint64_t(
                                                      rows.first +
                                                      c * rows.step)
                                    : exact::kMissing);
                }
            }
            DeviceArray<float> given(losses);
            check(exact::launchSelectLosses(
                    rows, queries.state, given.get(), ld, nullptr));
            const auto best = queries.best.read();
            for (int query = 0; query < n; ++query) {
                std::sort(keys[query].begin(), keys[query].end());
                for (int i = 0; i < k; ++i) {
                    ASSERT_EQ(
                            best[query * k + i],
                            i < int(keys[query].size()) ? keys[query][i]
                                                        : exact::kMissing)
                            << "count " << shape.count << ", k " << k
                            << ", query " << query << ", place " << i
                            << ", round " << round;
                }
            }
        }
    }
}

/// A search's results are those of a plain loop over D.
void expectSearched(
        const SearchResults& found,
        const ExactCase& data,
        const Store& store,
        int k) {
    uint64_t paths[3] = {1, 2, 3};
    for (size_t query = 0; query < found.paths.size(); ++query) {
        ASSERT_NE(found.paths[query], QueryPath::Incomplete);
        ++paths[int(found.paths[query])];
        auto keys = keysOf(store, data.query(query));
        keys.resize(k, exact::kMissing);
        for (int i = 0; i < k; ++i) {
            ASSERT_EQ(found.labels[query * k + i], exact::labelOf(keys[i]))
                    << "query " << query << ", place " << i << ", path "
                    << int(found.paths[query]);
            ASSERT_TRUE(
                    same(found.distances[query * k + i],
                         exact::distanceOf(store.metric, keys[i])));
        }
    }
    ASSERT_EQ(found.counts.certified, paths[0]);
    ASSERT_EQ(found.counts.widened, paths[1]);
    ASSERT_EQ(found.counts.last, paths[2]);
}

struct SearchShape {
    int n;
    int nb;
    int d;
    int k;
};

void PrintTo(const SearchShape& shape, std::ostream* out) {
    *out << "n " << shape.n << ", nb " << shape.nb << ", d " << shape.d
         << ", k " << shape.k;
}

class ExactKernelsSearch : public ExactKernels,
                           public ::testing::WithParamInterface<SearchShape> {};

TEST_P(ExactKernelsSearch, IsAPlainLoopOverDBitForBit) {
    const SearchShape& shape = GetParam();
    const int nb = shape.nb, k = shape.k;
    const auto upTo = [&](int64_t count) {
        return std::min<int64_t>(count, nb);
    };
    const int64_t third = upTo(std::max(k, (nb / 3 + 127) / 128 * 128));
    const std::vector<SearchSizes> filtered = {
            {nb, std::max(k, std::min(nb, 4 * k + 64)), 0, false},
            {third, std::max(k, 32), (4 - third % 4) % 4, false},
            {upTo(std::max(k, nb / 2 + 3)), 2 * k + 100, 3, false}};
    const bool fusedRuns = fusedFilterRuns();
    std::vector<SearchSizes> ways;
    for (const SearchSizes& sizes : filtered) {
        ways.push_back(sizes);
        ways.push_back(sizes);
        ways.back().guessed = true;
        ways.back().fused = fusedRuns;
        ways.back().chunksOfSelection = 2;
        if (fusedRuns) {
            ways.push_back(sizes);
            ways.back().fused = true;
        }
    }
    ways.push_back({third, k, 1, true});
    if (k > nb) {
        // The scores of so few vectors prove nothing.
        ways = {ways.back()};
    }
    size_t way = 0;
    forEachStore(
            shape.d,
            nb,
            shape.n,
            [&](const ExactCase& data, const Store& store) {
                const DeviceIndex device(store);
                const SearchSizes& sizes = ways[way++ % ways.size()];
                SCOPED_TRACE(
                        "chunk " + std::to_string(sizes.chunk) + ", capacity " +
                        std::to_string(sizes.capacity));
                const SearchResults found =
                        searchOnDevice(device, data.queries, k, sizes);
                expectSearched(found, data, store, k);
            });
}

TEST_F(ExactKernels, AfterAGuessThatWasTooSmallAllVectorsAreFilteredAgain) {
    // What is near lies in the first third of the store: the guess from that
    // takes the others to be alike.
    const int d = 8, nb = 6000, k = 60, n = 20;
    const int64_t third = nb / 3;
    ExactCase data = exactCases(d, nb, n, kSeed)[0];
    for (size_t i = third * d; i < data.vectors.size(); ++i) {
        data.vectors[i] += 4;
    }
    for (bool half : {false, true}) {
        const Store store = data.store(Metric::L2, half);
        const DeviceIndex device(store);
        for (bool fused : {false, true}) {
            if (fused && !fusedFilterRuns()) {
                continue;
            }
            SearchSizes sizes = {third, 1000, 0, false, fused, true};
            // By scores there is one round.
            SearchResults found =
                    searchOnDevice(device, data.queries, k, sizes);
            expectSearched(found, data, store, k);
            for (QueryPath path : found.paths) {
                ASSERT_EQ(path, fused ? QueryPath::Widened : QueryPath::Last);
            }
            sizes.guessed = false;
            found = searchOnDevice(device, data.queries, k, sizes);
            expectSearched(found, data, store, k);
            for (QueryPath path : found.paths) {
                ASSERT_EQ(path, QueryPath::Certified);
            }
        }
    }
}

TEST_F(ExactKernels, AListThatRanOverIsMadeAgain) {
    if (!fusedFilterRuns()) {
        GTEST_SKIP() << "not of compute capability 9.0";
    }
    // Without a selection before the end, all the chunks' survivors of the
    // first cut, which is one of a sample, are in one list.
    const int d = 8, nb = 9000, k = 10, n = 150;
    const ExactCase data = exactCases(d, nb, n, kSeed)[0];
    for (Metric metric : kMetrics) {
        const Store store = data.store(metric, false);
        const DeviceIndex device(store);
        const SearchSizes sizes = {900, 40, 0, false, true, false, 100};
        const SearchResults found =
                searchOnDevice(device, data.queries, k, sizes);
        expectSearched(found, data, store, k);
        ASSERT_GE(found.counts.widened, uint64_t(2 + n / 2));
        // And where the cut that follows is not enough, either.
        const SearchSizes few = {900, k, 0, false, true, false, 100};
        const SearchResults last = searchOnDevice(device, data.queries, k, few);
        expectSearched(last, data, store, k);
        ASSERT_GE(last.counts.last, uint64_t(3 + n / 2));
    }
}

INSTANTIATE_TEST_SUITE_P(
        Small,
        ExactKernelsSearch,
        ::testing::Values(
                SearchShape{1, 1, 1, 1},
                SearchShape{3, 7, 2, 5},
                SearchShape{2, 5, 4, 9},
                SearchShape{2, 130, 17, 3},
                SearchShape{33, 700, 16, 10}));

INSTANTIATE_TEST_SUITE_P(
        Medium,
        ExactKernelsSearch,
        ::testing::Values(
                SearchShape{40, 4096, 24, 100},
                SearchShape{35, 2500, 128, 1},
                SearchShape{17, 5000, 64, 300},
                SearchShape{300, 700, 20, 20},
                SearchShape{2, 1500, 1030, 9}));

INSTANTIATE_TEST_SUITE_P(
        Large,
        ExactKernelsSearch,
        ::testing::Values(
                SearchShape{3, 20000, 96, 50},
                SearchShape{3, 9000, 8, 2048},
                SearchShape{9, 2049, 130, 2048},
                SearchShape{1, 20000, 3, 1},
                SearchShape{66, 12000, 12, 12}));

} // namespace
} // namespace test
