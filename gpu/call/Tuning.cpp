#include <faiss_ext/gpu/call/Tuning.h>

#include <algorithm>
#include <string>
#include <thread>

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

namespace {

template <typename T>
void refuseNegative(const char* name, T value) {
    if (!(value >= 0)) { // nor what is no number
        throw InvalidArray(
                std::string("StagedConfig::") + name + " is " +
                std::to_string(value) + "; it must be 0 (choose) or more");
    }
}

template <typename T>
void choose(T& value, T chosen) {
    if (value == 0) {
        value = chosen;
    }
}

} // namespace

StagedConfig withDefaults(const StagedConfig& config, bool onLanes) {
    refuseNegative("tileRows", config.tileRows);
    refuseNegative("pipelineDepth", config.pipelineDepth);
    refuseNegative("computeLanes", config.computeLanes);
    refuseNegative("sliceVectors", config.sliceVectors);
    refuseNegative("secondsAhead", config.secondsAhead);
    refuseNegative("batchedQueries", config.batchedQueries);
    refuseNegative("copyThreads", config.copyThreads);
    StagedConfig complete = config;
    choose(complete.pinnedBytes, tuning::kPinnedBytes);
    choose(complete.oneTileBytes,
           onLanes ? tuning::kLaneOneTileBytes : tuning::kOneTileBytes);
    choose(complete.tileBytes,
           onLanes ? tuning::kLaneTileBytes : tuning::kTileBytes);
    choose(complete.endTileBytes,
           onLanes ? tuning::kLaneEndTileBytes : tuning::kEndTileBytes);
    choose(complete.mappedBytes, tuning::kMappedBytes);
    choose(complete.pipelineDepth,
           onLanes ? tuning::kLaneDepth : tuning::kPipelineDepth);
    complete.computeLanes =
            std::min(complete.computeLanes, kMostComputeStreams);
    choose(complete.sliceVectors, tuning::kSliceVectors);
    choose(complete.secondsAhead, tuning::kSecondsAhead);
    choose(complete.batchedQueries, tuning::kBatchedQueries);
    // 0 where the number is not known.
    const int threads = static_cast<int>(std::thread::hardware_concurrency());
    choose(complete.copyThreads, std::clamp(threads, 1, tuning::kCopyThreads));
    choose(complete.copyChunkBytes, tuning::kCopyChunkBytes);
    return complete;
}

} // namespace gpu
} // namespace faiss_ext
