#include <faiss_ext/gpu/profile/StageRecorder.h>

#include <algorithm>
#include <limits>

namespace faiss_ext {
namespace gpu {

namespace {

// How often the clocks are compared; the closest comparison counts. The first
// one also waits for what the stream holds.
constexpr int kComparisons = 5;

double secondsBetween(
        HostInterval::Clock::time_point from,
        HostInterval::Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
}

} // namespace

const char* nameOf(Stage stage) noexcept {
    switch (stage) {
        case Stage::HostRead:
            return "host read";
        case Stage::Upload:
            return "upload";
        case Stage::Compute:
            return "compute";
        case Stage::CopyBack:
            return "copy-back";
        case Stage::HostCopy:
            return "host copy";
        case Stage::Wait:
            return "wait";
    }
    return "";
}

const char* nameOf(Lane lane) noexcept {
    switch (lane) {
        case Lane::CallingThread:
            return "calling thread";
        case Lane::CopyThreads:
            return "copy threads";
        case Lane::UploadStream:
            return "upload stream";
        case Lane::DefaultStream:
            return "default stream";
        case Lane::CopyStream:
            return "copy stream";
        default:
            break;
    }
    constexpr const char* kComputeStreams[kMostComputeStreams] = {
            "compute stream 1",
            "compute stream 2",
            "compute stream 3",
            "compute stream 4",
            "compute stream 5",
            "compute stream 6",
            "compute stream 7",
            "compute stream 8"};
    return kComputeStreams
            [static_cast<int>(lane) - static_cast<int>(Lane::ComputeStream1)];
}

double SearchProfile::secondsIn(Stage stage) const {
    double sum = 0;
    // Spans come in the order in which they begin.
    double counted = -std::numeric_limits<double>::infinity();
    for (const StageSpan& span : spans) {
        if (span.stage == stage && span.end > counted) {
            sum += span.end - std::max(span.begin, counted);
            counted = span.end;
        }
    }
    return sum;
}

void StageRecorder::start(
        cudaStream_t stream, const std::function<void(const Event&)>& wait) {
    entries_.clear();
    eventsUsed_ = 0;
    double closest = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kComparisons; ++i) {
        TimingEvent& event = nextEvent();
        const auto before = HostInterval::Clock::now();
        event.record(stream);
        wait(event);
        const auto after = HostInterval::Clock::now();
        // The GPU reached the event between the two.
        if (secondsBetween(before, after) < closest) {
            closest = secondsBetween(before, after);
            origin_ = &event;
            originOnHost_ = before + (after - before) / 2;
            clockError_ = closest / 2;
        }
    }
    callBegan_ = HostInterval::Clock::now();
}

TimingEvent& StageRecorder::nextEvent() {
    if (eventsUsed_ == events_.size()) {
        events_.emplace_back();
    }
    return events_[eventsUsed_++];
}

void StageRecorder::begin(const StageSpan& what, cudaStream_t stream) {
    TimingEvent& event = nextEvent();
    event.record(stream);
    entries_.push_back({what, &event, nullptr, {}});
}

void StageRecorder::end(cudaStream_t stream) {
    TimingEvent& event = nextEvent();
    event.record(stream);
    entries_.back().end = &event;
}

HostInterval* StageRecorder::onHost(const StageSpan& what) {
    entries_.push_back({what, nullptr, nullptr, {}});
    return &entries_.back().host;
}

SearchProfile StageRecorder::finish(int64_t tiles) {
    SearchProfile profile;
    profile.seconds = secondsBetween(callBegan_, HostInterval::Clock::now());
    profile.clockError = clockError_;
    profile.tiles = tiles;
    const double origin = secondsBetween(callBegan_, originOnHost_);
    for (const Entry& entry : entries_) {
        StageSpan span = entry.what;
        if (entry.begin) {
            span.begin = origin + entry.begin->secondsSince(*origin_);
            span.end = origin + entry.end->secondsSince(*origin_);
        } else {
            span.begin = secondsBetween(callBegan_, entry.host.begin);
            span.end = secondsBetween(callBegan_, entry.host.end);
        }
        profile.spans.push_back(span);
    }
    std::stable_sort(
            profile.spans.begin(),
            profile.spans.end(),
            [](const StageSpan& a, const StageSpan& b) {
                return a.begin < b.begin;
            });
    return profile;
}

} // namespace gpu
} // namespace faiss_ext
