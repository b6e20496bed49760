// What normalising costs beside a search and an add: no wait, no allocation and
// no byte over the link.

#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/index/GpuIndexFlatCosine.h>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::GpuIndexFlatCosine;
using faiss_ext::gpu::GpuIndexFlatIP;
using namespace test;

constexpr int kDims = 16;
constexpr int kNearest = 5;
constexpr uint64_t kRows = 90;

struct Cost {
    uint64_t waits;
    uint64_t up;
    uint64_t down;
    uint64_t allocations;

    bool operator==(const Cost& other) const {
        return waits == other.waits && up == other.up && down == other.down &&
               allocations == other.allocations;
    }
};

std::ostream& operator<<(std::ostream& out, const Cost& cost) {
    return out << cost.waits << " waits, " << cost.up << " bytes up, "
               << cost.down << " down, " << cost.allocations << " allocations";
}

class CosineWaits : public SimTest,
                    public ::testing::WithParamInterface<const char*> {
   protected:
    template <typename Work>
    static Cost costOf(const Work& work) {
        check(cudaDeviceSynchronize());
        cuda_sim_reset_counters();
        work();
        return {hostWaits(), bytesUp(), bytesDown(), allocations()};
    }

    /// Of a search, when two have been made before.
    template <typename Index>
    Cost search(Memory memory, int64_t tileRows) {
        faiss::gpu::StandardGpuResources resources;
        TunedConfig config;
        config.search = GetParam();
        config.tileRows = tileRows;
        Index index(&resources, kDims, {}, config);
        index.add(200, randomVectors(200, kDims, 1).data());
        Array<float> x(memory, randomVectors(kRows, kDims, 2));
        Array<float> distances(memory, kRows * kNearest);
        Array<int64_t> labels(memory, kRows * kNearest);
        const auto once = [&] {
            index.search(
                    kRows, x.data(), kNearest, distances.data(), labels.data());
        };
        once();
        once();
        return costOf(once);
    }

    /// Of more queries than are copied at once, 17 MiB, and results on the GPU.
    template <typename Index>
    Cost searchMany(size_t temporaryMegabytes) {
        constexpr int d = 256;
        constexpr int64_t n = 17000;
        faiss::gpu::StandardGpuResources resources;
        resources.setTempMemory(temporaryMegabytes << 20);
        TunedConfig config;
        config.search = GetParam();
        Index index(&resources, d, {}, config);
        index.add(10, randomVectors(10, d, 1).data());
        Array<float> x(Memory::Device, randomVectors(n, d, 2));
        Array<float> distances(Memory::Device, n * kNearest);
        Array<int64_t> labels(Memory::Device, n * kNearest);
        const auto once = [&] {
            index.search(
                    n, x.data(), kNearest, distances.data(), labels.data());
        };
        once();
        return costOf(once);
    }

    template <typename Index>
    Cost add(Memory memory) {
        faiss::gpu::StandardGpuResources resources;
        Index index(&resources, kDims);
        index.add(5, randomVectors(5, kDims, 1).data());
        Array<float> x(memory, randomVectors(kRows, kDims, 2));
        return costOf([&] { index.add(kRows, x.data()); });
    }
};

TEST_P(CosineWaits, a_search_costs_what_one_by_inner_product_does) {
    for (Memory memory : {Memory::Pageable, Memory::Pinned, Memory::Device}) {
        for (int64_t tileRows : {0, 9}) {
            const Cost cost = search<GpuIndexFlatCosine>(memory, tileRows);
            EXPECT_EQ(cost, search<GpuIndexFlatIP>(memory, tileRows));
            EXPECT_EQ(cost.waits, memory == Memory::Device ? 0u : 1u);
        }
    }
}

/// Whose copies are larger than Faiss' temporary memory.
TEST_P(CosineWaits, many_queries_wait_no_more_where_temporary_memory_is_small) {
    for (size_t megabytes : {9, 16}) {
        SCOPED_TRACE(megabytes);
        const Cost cost = searchMany<GpuIndexFlatCosine>(megabytes);
        EXPECT_EQ(cost, searchMany<GpuIndexFlatIP>(megabytes));
        EXPECT_EQ(cost.waits, 0u);
    }
}

TEST_P(CosineWaits, an_add_costs_what_one_by_inner_product_does) {
    for (Memory memory : {Memory::Pageable, Memory::Pinned, Memory::Device}) {
        EXPECT_EQ(add<GpuIndexFlatCosine>(memory), add<GpuIndexFlatIP>(memory));
    }
}

// Each block computes the norms of all that is stored.
TEST_F(SimTest, a_float16_store_gets_70_MB_in_one_block) {
    constexpr int d = 1 << 16;
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatConfig config;
    config.useFloat16 = true;
    GpuIndexFlatCosine index(&resources, d, config);
    const std::vector<float> x(size_t(270) * d, 1);
    std::vector<uint64_t> kernels;
    for (int n : {10, 270}) {
        index.add(10, x.data()); // The store takes memory when it grows.
        index.reset();
        cuda_sim_reset_counters();
        index.add(n, x.data());
        kernels.push_back(counts().kernels);
    }
    EXPECT_EQ(kernels[1], kernels[0]);
}

INSTANTIATE_TEST_SUITE_P(
        Kernels, CosineWaits, ::testing::Values("faiss", "exact"));

} // namespace
