// The exact engine over a store of more than 2^32 components: each vector is
// there many times, so that a few distances on the CPU say what is right, ties
// by label included.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <algorithm>
#include <limits>

#include "support/Calls.h"
#include "support/ExactNeighbours.h"
#include "support/GpuTest.h"
#include "support/Neighbours.h"

namespace {

using faiss_ext::gpu::ExactWay;
using faiss_ext::gpu::GpuIndexFlat;
using namespace test;

constexpr int kDims = 128;
constexpr int64_t kBlock = 1 << 19;
constexpr int64_t kBlocks = 66;
static_assert(kBlock * kBlocks * kDims > int64_t(1) << 32, "large enough");

using ExactLarge = GpuTest;

/// Neighbours in kBlocks equal blocks, of those in one of them.
Neighbours inAllBlocks(const Neighbours& one, int ofOne, int k) {
    const size_t n = one.labels.size() / ofOne;
    Neighbours all{std::vector<float>(n * k), std::vector<int64_t>(n * k)};
    for (size_t i = 0; i < n; ++i) {
        for (int j = 0; j < k; ++j) {
            const size_t from = i * ofOne + j / kBlocks;
            all.distances[i * k + j] = one.distances[from];
            const int64_t label = one.labels[from];
            all.labels[i * k + j] =
                    label < 0 ? label : label + j % kBlocks * kBlock;
        }
    }
    return all;
}

void expectRight(
        faiss::gpu::StandardGpuResources& resources,
        bool float16,
        faiss::MetricType metric,
        ExactWay way) {
    const int ofOne = 4, k = ofOne * kBlocks;
    const int64_t n = 10;
    const auto block = asStored(randomVectors(kBlock, kDims, 1), float16);
    auto queries = randomVectors(n, kDims, 2);
    // The last query is out of range, and for the last path, if there is one;
    // by L2 it has no neighbours.
    for (auto x = queries.end() - kDims; x != queries.end(); ++x) {
        *x = metric == faiss::METRIC_L2
                     ? std::numeric_limits<float>::quiet_NaN()
                     : *x * 1e20f;
    }
    TunedConfig config;
    config.search = "exact";
    config.exactWay = static_cast<int>(way);
    faiss::gpu::GpuIndexFlatConfig storage;
    storage.useFloat16 = float16;
    GpuIndexFlat index(&resources, kDims, metric, storage, config);
    for (int64_t i = 0; i < kBlocks; ++i) {
        index.add(kBlock, block.data());
    }
    Neighbours found{std::vector<float>(n * k), std::vector<int64_t>(n * k)};
    index.search(
            n, queries.data(), k, found.distances.data(), found.labels.data());
    const auto stats = index.getTransferStats();
    const int64_t last = way == ExactWay::FusedFilter ? 1 : 0;
    EXPECT_EQ(stats.certifiedQueries + stats.widenedQueries, n - last);
    EXPECT_EQ(stats.lastPathQueries, last);
    expectSameBits(
            found,
            inAllBlocks(
                    searchExactly(block, queries, kDims, ofOne, metric),
                    ofOne,
                    k),
            k);
}

TEST_F(ExactLarge, float32_beyond_two_to_the_32_components) {
    for (ExactWay way : {ExactWay::FusedFilter, ExactWay::Best}) {
        expectRight(resources(), false, faiss::METRIC_L2, way);
    }
}

TEST_F(ExactLarge, float16_beyond_two_to_the_32_components) {
    for (ExactWay way : {ExactWay::FusedFilter, ExactWay::Best}) {
        expectRight(resources(), true, faiss::METRIC_INNER_PRODUCT, way);
    }
}

} // namespace
