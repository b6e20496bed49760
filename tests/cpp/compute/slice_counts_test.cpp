// Into how many slices the vectors are cut, on how many lanes, and what that
// costs besides.

#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <memory>
#include <string>
#include <utility>

#include "support/Arrays.h"
#include "support/CachingPool.h"
#include "support/Calls.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::TransferCounters;
using namespace test;

constexpr int kDims = 2;

struct Counts {
    uint64_t slices;
    uint64_t lanes;

    bool operator==(const Counts& other) const {
        return slices == other.slices && lanes == other.lanes;
    }
};

std::ostream& operator<<(std::ostream& stream, const Counts& counts) {
    return stream << counts.slices << " on " << counts.lanes << " lanes";
}

constexpr Counts kWhole{1, 0};

class SliceCounts : public SimTest {
   protected:
    explicit SliceCounts() {
        // As much as Faiss sets aside on a large GPU.
        resources_.setTempMemory(size_t(1536) << 20);
    }

    std::unique_ptr<GpuIndexFlat> makeIndex(
            size_t vectors,
            TunedConfig config = {},
            faiss::MetricType metric = faiss::METRIC_L2) {
        config.search = "faiss";
        auto index = std::make_unique<GpuIndexFlat>(
                &resources_,
                kDims,
                metric,
                faiss::gpu::GpuIndexFlatConfig(),
                config);
        index->add(vectors, randomVectors(vectors, kDims, 1).data());
        return index;
    }

    /// Of a search whose arrays are on the GPU.
    static Counts countsOf(const GpuIndexFlat& index, size_t n, int k) {
        Array<float> x(Memory::Device, randomVectors(n, kDims, 2));
        Array<float> distances(Memory::Device, n * k);
        Array<int64_t> labels(Memory::Device, n * k);
        cuda_sim_reset_counters();
        index.search(n, x.data(), k, distances.data(), labels.data());
        const auto forksAndJoins = cuda_sim_calls("cudaStreamWaitEvent");
        const Counts counts{
                cuda_sim_calls("kernel:bfKnnOnDevice"), forksAndJoins / 2};
        EXPECT_EQ(cuda_sim_calls("kernel:blockSelectPair"), counts.slices > 1);
        EXPECT_EQ(index.getTransferStats().hostWaits, 0u);
        if (counts.slices > 1) {
            EXPECT_EQ(cuda_sim_calls("cudaMalloc"), 0u);
        }
        EXPECT_EQ(cuda_sim_calls("cudaStreamSynchronize"), 0u);
        check(cudaDeviceSynchronize());
        return counts;
    }

    faiss::gpu::StandardGpuResources resources_;
};

TunedConfig with(int lanes, int64_t sliceVectors = 0) {
    TunedConfig config;
    config.search = "faiss";
    config.computeLanes = lanes;
    config.sliceVectors = sliceVectors;
    return config;
}

TEST_F(SliceCounts, follow_the_vectors) {
    EXPECT_EQ(countsOf(*makeIndex(49151), 1, 1), kWhole);
    EXPECT_EQ(countsOf(*makeIndex(49152), 1, 1), (Counts{2, 2}));
    EXPECT_EQ(countsOf(*makeIndex(100000), 1, 1), (Counts{4, 4}));
    EXPECT_EQ(countsOf(*makeIndex(400000), 1, 1), (Counts{8, 8}));
}

TEST_F(SliceCounts, follow_what_is_asked_for) {
    EXPECT_EQ(countsOf(*makeIndex(40, with(3, 10)), 1, 1), (Counts{3, 3}));
    EXPECT_EQ(countsOf(*makeIndex(40, with(0, 10)), 1, 1), (Counts{4, 4}));
    EXPECT_EQ(countsOf(*makeIndex(40, with(99, 1)), 1, 1), (Counts{8, 8}));
    EXPECT_EQ(countsOf(*makeIndex(40, with(1, 1)), 1, 1), kWhole);
    // Ten of two, then nothing is left for the sixth slice.
    EXPECT_EQ(countsOf(*makeIndex(10, with(6, 1)), 1, 1), (Counts{5, 5}));
}

TEST_F(SliceCounts, follow_the_results_that_each_has_to_select) {
    auto index = makeIndex(4000, with(0, 1));
    EXPECT_EQ(countsOf(*index, 1, 500), (Counts{8, 8}));
    EXPECT_EQ(countsOf(*index, 2, 500), (Counts{4, 4}));
    EXPECT_EQ(countsOf(*index, 4, 500), (Counts{2, 2}));
    EXPECT_EQ(countsOf(*index, 5, 500), kWhole);
    EXPECT_EQ(countsOf(*index, 512, 1), (Counts{7, 7}));
    EXPECT_EQ(countsOf(*index, 513, 1), kWhole);
}

TEST_F(SliceCounts, are_shared_out_among_the_lanes) {
    auto index = makeIndex(40, with(4, 1));
    Array<float> x(Memory::Device, {1, 2});
    Array<float> distances(Memory::Device, 1);
    Array<int64_t> labels(Memory::Device, 1);
    const auto profile = index->profile_search(
            1, x.data(), 1, distances.data(), labels.data());
    EXPECT_NE(
            profile.plan.find("4 slices of the vectors on 4 streams"),
            std::string::npos)
            << profile.plan;
}

TEST_F(SliceCounts, are_larger_than_the_lanes_where_memory_is_short) {
    // 500 queries take two matrices of distances on each lane, 4 MB among the
    // 1000 vectors of one of eight slices, and some 100 KB for what is found.
    const auto counts = [this](size_t kilobytes) {
        resources_.setTempMemory(kilobytes << 10);
        return countsOf(*makeIndex(8000, with(0, 1)), 500, 1);
    };
    EXPECT_EQ(counts(33000), (Counts{8, 8}));
    EXPECT_EQ(counts(17000), (Counts{8, 4}));
    EXPECT_EQ(counts(9000), (Counts{8, 2}));
    EXPECT_EQ(counts(5000), (Counts{16, 2}));
    EXPECT_EQ(counts(3000), kWhole);
}

TEST_F(SliceCounts, take_no_more_memory_than_there_is) {
    // Some 5000 bytes for two lanes, for what they find, and to merge that.
    // One too few, and Faiss would allocate, and wait when it frees.
    Counts before = kWhole;
    int changes = 0;
    for (size_t bytes = 1024; bytes < 8192; bytes += 16) {
        SCOPED_TRACE(std::to_string(bytes) + " bytes");
        resources_.setTempMemory(bytes);
        const auto counts = countsOf(*makeIndex(40, with(2, 1)), 1, 3);
        changes += !(counts == before);
        before = counts;
    }
    EXPECT_EQ(before, (Counts{2, 2}));
    EXPECT_EQ(changes, 1);
}

TEST_F(SliceCounts, keep_within_memory_of_a_pool) {
    // Every block of which ends where it was asked to.
    faiss_ext::gpu::PooledGpuResources pooled(std::make_shared<CachingPool>());
    GpuIndexFlat index(
            &pooled,
            kDims,
            faiss::METRIC_L2,
            faiss::gpu::GpuIndexFlatConfig(),
            with(8, 1));
    index.add(4000, randomVectors(4000, kDims, 1).data());
    for (auto [n, k] : {std::pair(1, 320), {4, 80}, {500, 1}}) {
        SCOPED_TRACE(n);
        Array<float> x(Memory::Device, randomVectors(n, kDims, 2));
        Array<float> distances(Memory::Device, n * k);
        Array<int64_t> labels(Memory::Device, n * k);
        index.search(n, x.data(), k, distances.data(), labels.data());
        EXPECT_EQ(cuda_sim_calls("kernel:blockSelectPair"), 1u);
        cuda_sim_reset_counters();
    }
    check(cudaDeviceSynchronize());
}

TEST_F(SliceCounts, are_the_same_for_every_metric) {
    for (auto metric :
         {faiss::METRIC_L2,
          faiss::METRIC_INNER_PRODUCT,
          faiss::METRIC_L1,
          faiss::METRIC_Linf,
          faiss::METRIC_Lp,
          faiss::METRIC_Canberra,
          faiss::METRIC_BrayCurtis,
          faiss::METRIC_JensenShannon}) {
        EXPECT_EQ(
                countsOf(*makeIndex(40, with(3, 1), metric), 1, 1),
                (Counts{3, 3}));
    }
}

} // namespace
