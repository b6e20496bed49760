#include <faiss_ext/gpu/call/Tuning.h>

#include <algorithm>
#include <string>
#include <thread>
#include <type_traits>

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

namespace {

template <typename T>
T checked(const char* name, T value) {
    if (!(value >= 0)) { // nor what is no number
        throw InvalidArray(
                std::string(name) + " is " + std::to_string(value) +
                "; it must be 0 (choose) or more");
    }
    return value;
}

template <typename T, typename U>
T chosen(T value, U otherwise) {
    return value == 0 ? static_cast<T>(otherwise) : value;
}

} // namespace

bool set(Tuning& tuning, const std::string& name, double value) {
    const auto to = [&](const char* member, auto& place) {
        const bool named = name == member;
        if (named) {
            checked(member, value);
            place = static_cast<std::decay_t<decltype(place)>>(value);
        }
        return named;
    };
    return to("tileRows", tuning.tileRows) ||
           to("oneTileBytes", tuning.oneTileBytes) ||
           to("tileBytes", tuning.tileBytes) ||
           to("endTileBytes", tuning.endTileBytes) ||
           to("mappedBytes", tuning.mappedBytes) ||
           to("sliceVectors", tuning.sliceVectors) ||
           to("pipelineDepth", tuning.pipelineDepth) ||
           to("secondsAhead", tuning.secondsAhead) ||
           to("copyChunkBytes", tuning.copyChunkBytes) ||
           to("exactQueries", tuning.exactQueries) ||
           to("exactVectors", tuning.exactVectors) ||
           to("exactScores", tuning.exactScores) ||
           to("exactSurvivors", tuning.exactSurvivors) ||
           to("exactSample", tuning.exactSample) ||
           to("exactCopied", tuning.exactCopied) ||
           to("exactWay", tuning.exactWay);
}

CallConfig complete(const StagedConfig& config) {
    const Tuning tuned = config.tuning ? *config.tuning : Tuning();
    const auto sizes = [&](size_t oneTile, size_t tile, size_t end, int depth) {
        return TileSizes{
                chosen(tuned.oneTileBytes, oneTile),
                chosen(tuned.tileBytes, tile),
                chosen(tuned.endTileBytes, end),
                chosen(checked("Tuning::pipelineDepth", tuned.pipelineDepth),
                       depth)};
    };
    // 0 where the number is not known.
    const int threads = static_cast<int>(std::thread::hardware_concurrency());
    CallConfig complete{};
    complete.pinnedBytes = chosen(config.pinnedBytes, tuning::kPinnedBytes);
    complete.computeLanes = std::min(
            checked("StagedConfig::computeLanes", config.computeLanes),
            kMostComputeStreams);
    complete.batchedQueries = chosen(
            checked("StagedConfig::batchedQueries", config.batchedQueries),
            tuning::kBatchedQueries);
    complete.copyThreads =
            chosen(checked("StagedConfig::copyThreads", config.copyThreads),
                   std::clamp(threads, 1, tuning::kCopyThreads));
    complete.copyChunkBytes =
            chosen(tuned.copyChunkBytes, tuning::kCopyChunkBytes);
    complete.tileRows = checked("Tuning::tileRows", tuned.tileRows);
    complete.mappedBytes = chosen(tuned.mappedBytes, tuning::kMappedBytes);
    complete.sliceVectors =
            chosen(checked("Tuning::sliceVectors", tuned.sliceVectors),
                   tuning::kSliceVectors);
    complete.secondsAhead =
            chosen(checked("Tuning::secondsAhead", tuned.secondsAhead),
                   tuning::kSecondsAhead);
    complete.search = chosenKernels(config.search);
    complete.exact = {
            checked("Tuning::exactQueries", tuned.exactQueries),
            checked("Tuning::exactVectors", tuned.exactVectors),
            chosen(checked("Tuning::exactScores", tuned.exactScores),
                   tuning::kExactScores),
            checked("Tuning::exactSurvivors", tuned.exactSurvivors),
            checked("Tuning::exactSample", tuned.exactSample),
            checked("Tuning::exactCopied", tuned.exactCopied),
            static_cast<ExactWay>(checked("Tuning::exactWay", tuned.exactWay))};
    complete.whole =
            sizes(tuning::kOneTileBytes,
                  tuning::kTileBytes,
                  tuning::kEndTileBytes,
                  tuning::kPipelineDepth);
    complete.onLanes =
            sizes(tuning::kLaneOneTileBytes,
                  tuning::kLaneTileBytes,
                  tuning::kLaneEndTileBytes,
                  tuning::kLaneDepth);
    return complete;
}

} // namespace gpu
} // namespace faiss_ext
