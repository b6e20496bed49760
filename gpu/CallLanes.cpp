#include <faiss_ext/gpu/CallLanes.h>

#include <faiss/impl/FaissException.h>

#include <algorithm>
#include <cstdint>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/Tuning.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// What cudaMalloc aligns to; Faiss' temporary memory begins 16 bytes behind.
constexpr size_t kAlignment = 256;

} // namespace

CallLanes::CallLanes(
        faiss::gpu::GpuResources& resources,
        int device,
        LaneStore& store,
        TransferCounters& counters)
        : resources_(resources),
          device_(device),
          store_(store),
          counters_(counters),
          on_{&resources} {}

size_t CallLanes::affordable(idx_t n, size_t most, size_t bytes) const {
    const size_t available = resources_.getTempMemoryAvailable(device_);
    size_t count = std::min<size_t>(most, n / tuning::kComputeRows);
    while (count > 1 &&
           kAlignment + count * roundUp(bytes, kAlignment) > available) {
        --count;
    }
    return count;
}

void CallLanes::open(
        idx_t n, idx_t tileRows, size_t least, size_t most, size_t bytes) {
    const size_t count = affordable(n, most, bytes);
    if (count < least) {
        return;
    }
    const size_t each = roundUp(bytes, kAlignment);
    try {
        scratch_ = resources_.allocMemoryHandle(faiss::gpu::AllocRequest(
                faiss::gpu::AllocType::Other,
                device_,
                faiss::gpu::MemorySpace::Temporary,
                resources_.getDefaultStream(device_),
                kAlignment + count * each));
    } catch (const faiss::FaissException&) {
        // A pool that has less than it said. The call may do with less too.
        throwIfContextLost(resources_.getDefaultStream(device_));
        return;
    }
    if (!store_.forked) {
        store_.forked.emplace();
    }
    if (!store_.joined) {
        store_.joined.emplace();
    }
    while (store_.lanes.size() < count) {
        store_.lanes.emplace_back(resources_, counters_);
    }
    const auto address = reinterpret_cast<uintptr_t>(scratch_.get());
    auto* memory = static_cast<char*>(scratch_.get()) +
                   (roundUp<uintptr_t>(address, kAlignment) - address);
    on_.clear();
    for (size_t lane = 0; lane < count; ++lane) {
        store_.lanes[lane].useScratch(memory + lane * each, each);
        on_.push_back(&store_.lanes[lane]);
    }
    // Many lanes fill the GPU with what Faiss computes at once, and turns even
    // out what each has to do. Few do best with one long stretch each.
    if (count > tuning::kFewLanes) {
        const idx_t atOnce = tuning::kComputeRows;
        const idx_t turn = std::min(n / tuning::kTurns, tileRows) /
                           static_cast<idx_t>(count);
        step_ = std::max(turn - turn % atOnce, atOnce);
    }
}

Lane CallLanes::profiledAs(size_t lane) const {
    return size() == 1 ? Lane::DefaultStream
                       : computeStream(static_cast<int>(lane));
}

void CallLanes::fork() {
    if (size() == 1) {
        return;
    }
    store_.forked->record(resources_.getDefaultStream(device_));
    for (size_t lane = 0; lane < size(); ++lane) {
        store_.forked->orderBefore(stream(lane));
    }
}

void CallLanes::join() {
    if (size() == 1) {
        return;
    }
    for (size_t lane = 0; lane < size(); ++lane) {
        store_.joined->record(stream(lane));
        store_.joined->orderBefore(resources_.getDefaultStream(device_));
    }
}

std::vector<CallLanes::Part> CallLanes::parts(idx_t rows) {
    const auto lanes = static_cast<idx_t>(size());
    if (lanes == 1) {
        return {{0, 0, rows}};
    }
    const idx_t step =
            step_ > 0 ? step_
                      : roundUp<idx_t>(
                                divideUp(rows, lanes), tuning::kComputeRows);
    std::vector<Part> parts;
    for (idx_t first = 0; first < rows; first += step) {
        parts.push_back({next_, first, std::min(step, rows - first)});
        next_ = (next_ + 1) % size();
    }
    return parts;
}

} // namespace gpu
} // namespace faiss_ext
