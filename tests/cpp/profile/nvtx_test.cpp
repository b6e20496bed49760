// The ranges that NVIDIA's tools see, as a tool that is attached sees them.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <dlfcn.h>
#include <faiss/gpu/StandardGpuResources.h>

#include <string>
#include <vector>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss_ext::gpu::GpuIndexFlatL2;
using namespace test;

constexpr int kDims = 16;
constexpr int kNearest = 5;
constexpr size_t kQueries = 90;

using Lines = std::vector<std::string>;

/// What the tool (support/NvtxTool.cpp), which NVTX loads into this process,
/// has written down since the last look: "  name number" for each range, two
/// blanks for each range around it.
Lines seen(bool onCallingThread = true) {
    const std::string path = std::getenv("NVTX_INJECTION64_PATH");
    void* tool = dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (!tool) {
        ADD_FAILURE() << "NVTX has not loaded " << path;
        return {};
    }
    const auto take = reinterpret_cast<void (*)(bool, Lines*)>(
            dlsym(tool, "nvtx_tool_take"));
    Lines lines;
    take(onCallingThread, &lines);
    dlclose(tool);
    return lines;
}

class Nvtx : public SimTest {
   protected:
    void search(int64_t tileRows, size_t oneTileBytes = 0) {
        TunedConfig config;
        config.tileRows = tileRows;
        config.oneTileBytes = oneTileBytes;
        config.mappedBytes = 1;
        GpuIndexFlatL2 index(
                &resources_, kDims, faiss::gpu::GpuIndexFlatConfig(), config);
        index.add(200, randomVectors(200, kDims, 1).data());
        const auto queries = randomVectors(kQueries, kDims, 2);
        std::vector<float> distances(kQueries * kNearest);
        std::vector<int64_t> labels(kQueries * kNearest);
        index.search(
                kQueries,
                queries.data(),
                kNearest,
                distances.data(),
                labels.data());
        // A call that fails leaves its ranges, too.
        EXPECT_THROW(
                index.search(1, nullptr, 1, distances.data(), labels.data()),
                faiss::FaissException);
    }

    faiss::gpu::StandardGpuResources resources_;
};

TEST_F(Nvtx, search_in_one_tile) {
    search(0);
    EXPECT_EQ(
            seen(),
            (Lines{"faiss_ext: add 200",
                   "faiss_ext: search 90",
                   "  host read 0",
                   "  upload 0",
                   "  compute 0",
                   "  copy-back 0",
                   "  wait",
                   "  host copy 0",
                   "faiss_ext: search 1"}));
}

/// Of three tiles; `hostCopy`: what this thread copies after its wait.
Lines inTiles(const std::string& hostCopy) {
    Lines lines{"faiss_ext: add 200", "faiss_ext: search 90"};
    for (const char* tile : {" 0", " 1", " 2"}) {
        lines.push_back(std::string("  tile") + tile);
        // For queries that are read ahead.
        for (const char* stage : {"wait", "upload", "compute", "copy-back"}) {
            lines.push_back(std::string("    ") + stage + tile);
        }
    }
    lines.push_back("  wait");
    lines.push_back(hostCopy);
    lines.push_back("faiss_ext: search 1");
    return lines;
}

TEST_F(Nvtx, search_in_tiles) {
    search(30);
    EXPECT_EQ(seen(), inTiles("  host copy"));
    EXPECT_EQ(seen(false), Lines());
}

TEST_F(Nvtx, search_in_tiles_of_many_results) {
    search(30, 1);
    EXPECT_EQ(seen(), inTiles("  host copy 2"));
    // The results of the other tiles, by CUDA's own threads.
    EXPECT_EQ(seen(false), Lines(2, "faiss_ext: host copies"));
}

} // namespace
