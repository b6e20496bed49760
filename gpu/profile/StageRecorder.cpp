#include <faiss_ext/gpu/profile/StageRecorder.h>

#include <algorithm>
#include <limits>
#include <utility>

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

double SearchProfile::roofline() const {
    const double seconds = secondsIn(Stage::Compute);
    return floor < 0 || seconds <= 0 ? -1 : floor / seconds;
}

void StageRecorder::start(
        cudaStream_t stream, const std::function<void(const Event&)>& wait) {
    entries_.clear();
    parts_.clear();
    plans_.clear();
    counted_ = nullptr;
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
    last_ = &event;
}

void StageRecorder::endPart(const ComputePart& part, cudaStream_t stream) {
    TimingEvent& event = nextEvent();
    event.record(stream);
    const StageSpan& whole = entries_.back().what;
    parts_.push_back({part, whole.lane, whole.tile, last_, &event});
    last_ = &event;
}

void StageRecorder::computedBy(const std::string& plan) {
    if (std::find(plans_.begin(), plans_.end(), plan) == plans_.end()) {
        plans_.push_back(plan);
    }
}

void StageRecorder::countBy(const std::function<QueryPaths()>& paths) {
    if (!counted_) {
        countedBefore_ = paths();
        counted_ = paths;
    }
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

double StageRecorder::secondsOf(const TimingEvent& event) const {
    return secondsBetween(callBegan_, originOnHost_) +
           event.secondsSince(*origin_);
}

SearchProfile StageRecorder::finish(
        int64_t tiles, const ComputeWork& least, const GpuPeaks& peaks) {
    SearchProfile profile;
    profile.seconds = secondsBetween(callBegan_, HostInterval::Clock::now());
    profile.clockError = clockError_;
    profile.tiles = tiles;
    for (const Entry& entry : entries_) {
        StageSpan span = entry.what;
        if (entry.begin) {
            span.begin = secondsOf(*entry.begin);
            span.end = secondsOf(*entry.end);
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
    if (counted_) {
        const QueryPaths now = counted_();
        profile.paths = {
                true,
                now.certified - countedBefore_.certified,
                now.widened - countedBefore_.widened,
                now.last - countedBefore_.last};
    }
    std::vector<ComputeWork> works;
    for (const Part& part : parts_) {
        std::string name = part.what.name;
        if (part.what.number > 0) {
            name += " " + std::to_string(part.what.number);
        }
        profile.computeSpans.push_back(
                {std::move(name),
                 part.lane,
                 part.tile,
                 secondsOf(*part.begin),
                 secondsOf(*part.end)});
        works.push_back(part.what.work);
    }
    profile.computeStages =
            computeStages(profile.computeSpans, works, profile.paths, peaks);
    for (const std::string& plan : plans_) {
        profile.computePlan += (profile.computePlan.empty() ? "" : "\n") + plan;
    }
    if (!least.unknown()) {
        profile.floor = floorSeconds(least, profile.paths, peaks);
        profile.peaks = peaks.text;
    }
    return profile;
}

} // namespace gpu
} // namespace faiss_ext
