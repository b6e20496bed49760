// Every combination of memories for queries, distances and labels, cut into
// one tile and into many.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <tuple>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/GpuTest.h"
#include "support/Neighbours.h"

namespace {

using faiss_ext::gpu::GpuIndexFlatL2;
using namespace test;

constexpr int kDims = 16;
constexpr int kNearest = 5;
constexpr size_t kQueries = 83;

using Placement = std::tuple<Memory, Memory, Memory, int64_t>;

class Placements : public GpuTest,
                   public ::testing::WithParamInterface<Placement> {};

TEST_P(Placements, search_gives_what_the_cpu_gives) {
    const auto [x, distances, labels, tileRows] = GetParam();
    const auto base = randomVectors(400, kDims, 1);
    const auto queries = randomVectors(kQueries, kDims, 2);
    const auto oracle = searchOnCpu(base, queries, kDims, kNearest);
    TunedConfig config;
    config.tileRows = tileRows;
    GpuIndexFlatL2 index(&resources(), kDims, {}, config);
    index.add(400, base.data());

    Array<float> xs(x, queries);
    Array<float> ds(distances, kQueries * kNearest);
    Array<int64_t> is(labels, kQueries * kNearest);
    // Twice: the second time every buffer has been used before.
    for (int round = 0; round < 2; ++round) {
        ds.set(std::vector<float>(kQueries * kNearest, -12345));
        is.set(std::vector<int64_t>(kQueries * kNearest, -12345));
        index.search(kQueries, xs.data(), kNearest, ds.data(), is.data());
        Neighbours found;
        // Host results are complete when the call returns.
        found.distances = distances == Memory::Device ? ds.get() : ds.peek();
        found.labels = labels == Memory::Device ? is.get() : is.peek();
        expectNeighbours(found, oracle, base, queries, kDims, kNearest);
    }
}

TEST_P(Placements, reconstruct_batch_and_residuals_take_them_too) {
    const auto [x, out, keys, tileRows] = GetParam();
    const auto base = randomVectors(400, kDims, 1);
    const auto vectors = randomVectors(kQueries, kDims, 2);
    TunedConfig config;
    config.tileRows = tileRows;
    GpuIndexFlatL2 index(&resources(), kDims, {}, config);
    index.add(400, base.data());
    std::vector<int64_t> wanted(kQueries);
    for (size_t i = 0; i < kQueries; ++i) {
        wanted[i] = (i * 37) % 400;
    }
    Array<int64_t> ks(keys, wanted);
    Array<float> xs(x, vectors);
    Array<float> os(out, kQueries * kDims);
    const auto result = [&, where = out] {
        return where == Memory::Device ? os.get() : os.peek();
    };

    index.reconstruct_batch(kQueries, ks.data(), os.data());
    auto found = result();
    for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_EQ(found[i], base[wanted[i / kDims] * kDims + i % kDims]);
    }
    index.compute_residual_n(kQueries, xs.data(), os.data(), ks.data());
    found = result();
    for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_EQ(
                found[i],
                vectors[i] - base[wanted[i / kDims] * kDims + i % kDims]);
    }
    index.reconstruct_n(11, kQueries, os.data());
    found = result();
    for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_EQ(found[i], base[11 * kDims + i]);
    }
    index.reconstruct(399, os.data());
    found = result();
    for (int j = 0; j < kDims; ++j) {
        ASSERT_EQ(found[j], base[399 * kDims + j]);
    }
}

INSTANTIATE_TEST_SUITE_P(
        All,
        Placements,
        ::testing::Combine(
                ::testing::ValuesIn(kAllMemories),
                ::testing::ValuesIn(kAllMemories),
                ::testing::ValuesIn(kAllMemories),
                ::testing::Values<int64_t>(0, 9)),
        [](const ::testing::TestParamInfo<Placement>& info) {
            return std::string(nameOf(std::get<0>(info.param))) + "_" +
                   nameOf(std::get<1>(info.param)) + "_" +
                   nameOf(std::get<2>(info.param)) +
                   (std::get<3>(info.param) ? "_many_tiles" : "_one_tile");
        });

} // namespace
