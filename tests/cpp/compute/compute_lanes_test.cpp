// Parts of large searches, computed side by side.

#include <faiss_ext/gpu/call/ComputeTurns.h>
#include <faiss_ext/gpu/compute/ComputeLane.h>
#include <faiss_ext/gpu/compute/ComputeStreams.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Lanes.h"
#include "support/Neighbours.h"
#include "support/PortableFlat.h"

namespace {

using faiss_ext::gpu::ComputeLane;
using faiss_ext::gpu::ComputeStreams;
using faiss_ext::gpu::ComputeTurns;
using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::Lane;
using faiss_ext::gpu::SearchProfile;
using faiss_ext::gpu::TransferCounters;
using namespace test;

constexpr int kNearest = 3;

class ComputeLanes : public PortableFlat {
   protected:
    static TunedConfig onLanes(int lanes, int64_t tileRows = 0) {
        TunedConfig config;
        config.search = "faiss";
        config.computeLanes = lanes;
        config.tileRows = tileRows;
        return config;
    }

    /// Of a search with results in `memory`, which are `found` then.
    static SearchProfile profile(
            const GpuIndexFlat& index,
            const std::vector<float>& queries,
            Memory memory,
            Neighbours* found,
            int k = kNearest) {
        const size_t n = queries.size() / kDims;
        Array<float> x(
                memory == Memory::Device ? Memory::Device : Memory::Pageable,
                queries);
        Array<float> distances(memory, n * k);
        Array<int64_t> labels(memory, n * k);
        auto profile = index.profile_search(
                n, x.data(), k, distances.data(), labels.data());
        *found = {distances.get(), labels.get()};
        return profile;
    }

    static size_t lanesUsed(
            const GpuIndexFlat& index, size_t n, int k = kNearest) {
        Neighbours found;
        const auto lanes = lanesOf(
                profile(index,
                        randomVectors(n, kDims, 2),
                        Memory::Pageable,
                        &found,
                        k));
        return *lanes.begin() == "default stream" ? 0 : lanes.size();
    }
};

using Names = std::set<std::string>;

TEST_F(ComputeLanes, find_what_one_stream_finds) {
    const auto base = randomVectors(300, kDims, 1);
    for (size_t n : {1023, 1024, 2000, 5000}) {
        const auto queries = randomVectors(n, kDims, 2);
        for (auto metric :
             {faiss::METRIC_L2,
              faiss::METRIC_INNER_PRODUCT,
              faiss::METRIC_L1}) {
            const auto oracle =
                    searchOnCpu(base, queries, kDims, kNearest, metric);
            for (bool float16 : {false, true}) {
                for (int64_t tileRows : {0, 700}) {
                    for (Memory memory :
                         {Memory::Pageable, Memory::Pinned, Memory::Device}) {
                        SCOPED_TRACE(
                                std::to_string(n) + " queries, metric " +
                                std::to_string(metric) + ", float16 " +
                                std::to_string(float16) + ", tiles of " +
                                std::to_string(tileRows) + ", " +
                                nameOf(memory));
                        auto index = makeIndex(
                                base, onLanes(3, tileRows), metric, float16);
                        Neighbours found;
                        const auto seen =
                                profile(*index, queries, memory, &found);
                        EXPECT_EQ(
                                lanesOf(seen).count("compute stream 1"),
                                n < 1024 ? 0u : 1u);
                        expectNeighbours(
                                found,
                                oracle,
                                base,
                                queries,
                                kDims,
                                kNearest,
                                metric);
                    }
                }
            }
        }
    }
}

TEST_F(ComputeLanes, take_turns_in_one_tile_and_from_tile_to_tile) {
    const auto base = randomVectors(300, kDims, 1);
    const auto queries = randomVectors(3000, kDims, 2);
    for (int64_t tileRows : {0, 600}) {
        auto index = makeIndex(base, onLanes(3, tileRows));
        Neighbours found;
        const auto seen = profile(*index, queries, Memory::Pageable, &found);
        EXPECT_EQ(
                lanesOf(seen),
                (Names{"compute stream 1",
                       "compute stream 2",
                       "compute stream 3"}));
    }
}

TEST_F(ComputeLanes, are_as_many_as_asked_for_and_have_something_to_do) {
    const auto base = randomVectors(300, kDims, 1);
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(1)), 5000), 0u);
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(2)), 5000), 2u);
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(5)), 5000), 5u);
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(8)), 5000), 8u);
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(99)), 5000), 8u);
    // Faiss computes 512 queries at a time.
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(8)), 2048), 4u);
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(8)), 1535), 2u);
    EXPECT_EQ(lanesUsed(*makeIndex(base, onLanes(8)), 1023), 0u);
}

TEST_F(ComputeLanes, are_chosen_by_vectors_and_neighbours) {
    TunedConfig config;
    config.search = "faiss";
    const auto few = randomVectors(8191, kDims, 1);
    const auto many = randomVectors(8192, kDims, 1);
    EXPECT_EQ(lanesUsed(*makeIndex(few, config), 1536), 0u);
    EXPECT_EQ(lanesUsed(*makeIndex(many, config), 1536), 3u);
    // Two lanes are no more than Faiss has itself, but for a join at each tile.
    EXPECT_EQ(lanesUsed(*makeIndex(many, config), 1535), 0u);
    config.tileRows = 600;
    EXPECT_EQ(lanesUsed(*makeIndex(many, config), 1535), 2u);
    EXPECT_EQ(lanesUsed(*makeIndex(many, config), 1536, 512), 3u);
    EXPECT_EQ(lanesUsed(*makeIndex(many, config), 1536, 513), 2u);
}

TEST_F(ComputeLanes, make_tiles_smaller) {
    // Tiles end without a join, so they may end often.
    const auto base = randomVectors(300, kDims, 1);
    const auto queries = randomVectors(1100, kDims, 2);
    const auto tiles = [&](int lanes, Memory memory, int k) {
        Neighbours found;
        return profile(*makeIndex(base, onLanes(lanes)),
                       queries,
                       memory,
                       &found,
                       k)
                .tiles;
    };
    EXPECT_EQ(tiles(1, Memory::Pinned, 1000), 2); // 13 MB
    EXPECT_EQ(tiles(2, Memory::Pinned, 1000), 3);
    EXPECT_EQ(tiles(1, Memory::Pinned, 50), 1); // 660 KB
    EXPECT_EQ(tiles(2, Memory::Pinned, 50), 2);
    // New pages are shared out among threads: the more of them the better.
    EXPECT_EQ(tiles(2, Memory::Pageable, 1000), 2);
    EXPECT_EQ(tiles(2, Memory::Pageable, 50), 1);
}

TEST_F(ComputeLanes, find_their_scratch_memory_in_that_of_faiss) {
    // More than a row of Faiss' tiles; each has scratch for all it selects.
    const auto base = randomVectors(9000, kDims, 1);
    const auto queries = randomVectors(1536, kDims, 2);
    for (bool float16 : {false, true}) {
        for (int k : {1, 40, 1000}) {
            auto index = makeIndex(base, onLanes(3), faiss::METRIC_L2, float16);
            Neighbours found;
            const auto seen =
                    profile(*index, queries, Memory::Device, &found, k);
            EXPECT_EQ(lanesOf(seen).size(), 3u);
            EXPECT_EQ(index->getTransferStats().deviceAllocations, 0u);
        }
    }
}

TEST_F(ComputeLanes, find_scratch_memory_for_each_of_many_queries) {
    // For little but their norms.
    const auto base = randomVectors(300, kDims, 1);
    const auto queries = randomVectors(40000, kDims, 2);
    auto index = makeIndex(base, onLanes(2));
    Neighbours found;
    const auto seen = profile(*index, queries, Memory::Device, &found, 1);
    EXPECT_EQ(lanesOf(seen).size(), 2u);
    EXPECT_EQ(index->getTransferStats().deviceAllocations, 0u);
}

TEST_F(ComputeLanes, are_fewer_where_faiss_has_little_temporary_memory) {
    const auto base = randomVectors(9000, kDims, 1);
    const auto queries = randomVectors(4096, kDims, 2);
    const auto oracle = searchOnCpu(base, queries, kDims, kNearest);
    std::map<size_t, size_t> used;
    // A lane takes some 75 MB: two matrices of 1024 rows of distances, since
    // there are few dimensions.
    for (size_t megabytes : {0, 100, 160, 240, 320}) {
        faiss::gpu::StandardGpuResources own;
        own.setTempMemory(megabytes << 20);
        auto index = makeIndex(base, onLanes(8), faiss::METRIC_L2, false, &own);
        Neighbours found;
        const auto lanes =
                lanesOf(profile(*index, queries, Memory::Device, &found));
        used[megabytes] = *lanes.begin() == "default stream" ? 0 : lanes.size();
        expectNeighbours(found, oracle, base, queries, kDims, kNearest);
    }
    EXPECT_EQ(
            used,
            (std::map<size_t, size_t>{
                    {0, 0}, {100, 0}, {160, 2}, {240, 3}, {320, 4}}));
}

TEST_F(ComputeLanes, allocate_what_their_scratch_memory_has_no_room_for) {
    const auto whole = resources().getResources();
    const auto stream = whole->getDefaultStream(0);
    const auto overflow = [&] {
        return resources().getMemoryInfo()[0]["TemporaryMemoryOverflow"].first;
    };
    TransferCounters counters;
    const faiss_ext::gpu::Stream own;
    auto scratch = whole->allocMemoryHandle(faiss::gpu::AllocRequest(
            faiss::gpu::makeTempAlloc(faiss::gpu::AllocType::Other, stream),
            1024));
    ComputeLane lane(*whole, counters);
    lane.use({own.get(), 0, static_cast<char*>(scratch.get()), 1024});
    EXPECT_EQ(lane.getDefaultStream(0), own.get());
    EXPECT_EQ(
            lane.getAlternateStreams(0),
            std::vector<cudaStream_t>(2, own.get()));
    EXPECT_EQ(lane.getAsyncCopyStream(0), whole->getAsyncCopyStream(0));
    EXPECT_EQ(lane.getBlasHandle(0), whole->getBlasHandle(0));
    EXPECT_THROW(lane.setDefaultStream(0, stream), faiss::FaissException);

    const auto temporary = [&](size_t bytes) {
        return lane.allocMemoryHandle(faiss::gpu::AllocRequest(
                faiss::gpu::makeTempAlloc(
                        faiss::gpu::AllocType::Other, own.get()),
                bytes));
    };
    {
        const auto first = temporary(1), second = temporary(700);
        EXPECT_EQ(
                static_cast<char*>(second.data) -
                        static_cast<char*>(first.data),
                256);
        EXPECT_EQ(lane.getTempMemoryAvailable(0), 0u);
        EXPECT_EQ(overflow(), 0);
        const auto third = temporary(1);
        EXPECT_EQ(overflow(), 1);
        EXPECT_EQ(counters.deviceAllocations, 1u);
    }
    EXPECT_EQ(overflow(), 0);
    EXPECT_EQ(lane.getTempMemoryAvailable(0), 1024u);
}

TEST_F(ComputeLanes, have_memory_that_is_aligned_as_that_of_cudaMalloc) {
    const auto whole = resources().getResources();
    const auto isAligned = [](const void* memory) {
        return reinterpret_cast<uintptr_t>(memory) % 256 == 0;
    };
    TransferCounters counters;
    ComputeStreams::Kept kept;
    ComputeStreams streams(*whole, 0, kept, nullptr);
    streams.open(2, 300, 100);
    ASSERT_EQ(streams.size(), 2u);
    EXPECT_TRUE(isAligned(streams.shared()));
    for (size_t i = 0; i < 2; ++i) {
        ComputeLane lane(*whole, counters);
        lane.use(streams[i]);
        const auto scratch = lane.allocMemoryHandle(faiss::gpu::AllocRequest(
                faiss::gpu::AllocType::Other,
                0,
                faiss::gpu::MemorySpace::Temporary,
                streams[i].stream,
                300));
        EXPECT_TRUE(isAligned(scratch.data));
        EXPECT_EQ(counters.deviceAllocations, 0u);
    }
}

TEST_F(ComputeLanes, are_told_which_rows_they_compute) {
    const auto provided = resources().getResources();
    for (int64_t tileRows : {0, 700}) {
        CallRunner runner(provided, 0, onLanes(3, tileRows));
        std::vector<std::pair<int64_t, int64_t>> computed;
        std::set<int> lanes;
        const auto copy = [&](auto& on,
                              int64_t first,
                              int64_t rows,
                              const void* const* in,
                              void* const* out) {
            computed.emplace_back(first, rows);
            lanes.insert(on.lane);
            check(cudaMemcpyAsync(
                    out[0],
                    in[0],
                    rows * sizeof(int),
                    cudaMemcpyDefault,
                    on.stream));
        };
        ComputeNeeds needs;
        needs.laneBytes = 256;
        std::vector<int> numbers(3000), copied(numbers.size());
        std::iota(numbers.begin(), numbers.end(), 1);
        runRows(runner,
                numbers.size(),
                {{"numbers", numbers.data(), sizeof(int)}},
                {{"copied", copied.data(), sizeof(int)}},
                copy,
                needs);
        EXPECT_EQ(copied, numbers);
        EXPECT_EQ(lanes, (std::set<int>{0, 1, 2}));
        int64_t next = 0;
        for (const auto& [first, rows] : computed) {
            EXPECT_EQ(first, next);
            next += rows;
        }
        EXPECT_EQ(next, 3000);
    }
}

TEST(ComputeTurns, are_long_for_few_lanes_and_even_out_many) {
    // Of the first part, for so many queries in tiles of up to so many rows.
    const auto rows = [](size_t lanes, int64_t n, int64_t tileRows) {
        return ComputeTurns(lanes, n, tileRows).parts(tileRows).front().rows;
    };
    EXPECT_EQ(rows(1, 100000, 100000), 100000);
    EXPECT_EQ(rows(4, 100000, 100000), 25088); // 49 steps of 512
    EXPECT_EQ(rows(8, 100000, 100000), 3072);  // four turns for each
    EXPECT_EQ(rows(8, 100000, 8192), 1024);    // one in each tile
    EXPECT_EQ(rows(8, 2000, 2000), 512);
    EXPECT_EQ(rows(8, 2000, 100), 100);
}

TEST(ComputeTurns, give_each_lane_a_part_of_a_small_tile_too) {
    // The last tiles of a call are small; none of the lanes is to work on for
    // long when the others have nothing left.
    ComputeTurns turns(8, 1000000, 698880);
    std::set<size_t> lanes;
    for (const auto& part : turns.parts(8192)) {
        EXPECT_EQ(part.rows, 1024);
        lanes.insert(part.stream);
    }
    EXPECT_EQ(lanes.size(), 8u);
    EXPECT_EQ(turns.parts(698880).front().rows, 31232);
}

} // namespace
