#include <faiss_ext/gpu/compute/CallLanes.h>

#include <faiss/impl/FaissException.h>

#include <cstdint>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>

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

CallLanes::~CallLanes() {
    if (!forked_) {
        return;
    }
    for (size_t lane = 0; lane < size(); ++lane) {
        FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(stream(lane)));
    }
}

size_t CallLanes::affordable(size_t most, size_t bytes, size_t besides) const {
    const size_t available = resources_.getTempMemoryAvailable(device_);
    while (most > 1 &&
           kAlignment + most * roundUp(bytes, kAlignment) + besides >
                   available) {
        --most;
    }
    return most;
}

bool CallLanes::open(size_t lanes, size_t bytes, size_t besides) {
    const size_t each = roundUp(bytes, kAlignment);
    try {
        scratch_ = resources_.allocMemoryHandle(faiss::gpu::AllocRequest(
                faiss::gpu::AllocType::Other,
                device_,
                faiss::gpu::MemorySpace::Temporary,
                resources_.getDefaultStream(device_),
                kAlignment + lanes * each + besides));
    } catch (const faiss::FaissException& e) {
        // A pool that has less than it said. The call may do with less too.
        rethrowUnlessOutOfMemory(e, resources_.getDefaultStream(device_));
        return false;
    }
    if (!store_.forked) {
        store_.forked.emplace();
    }
    if (!store_.joined) {
        store_.joined.emplace();
    }
    while (store_.lanes.size() < lanes) {
        store_.lanes.emplace_back(resources_, counters_);
    }
    const auto address = reinterpret_cast<uintptr_t>(scratch_.get());
    auto* memory = static_cast<char*>(scratch_.get()) +
                   (roundUp<uintptr_t>(address, kAlignment) - address);
    on_.clear();
    for (size_t lane = 0; lane < lanes; ++lane) {
        store_.lanes[lane].useScratch(memory + lane * each, each);
        on_.push_back(&store_.lanes[lane]);
    }
    besides_ = memory + lanes * each;
    return true;
}

Lane CallLanes::profiledAs(size_t lane) const {
    return size() == 1 ? Lane::DefaultStream
                       : computeStream(static_cast<int>(lane));
}

void CallLanes::fork() {
    if (size() == 1) {
        return;
    }
    forked_ = true;
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
    forked_ = false;
}

} // namespace gpu
} // namespace faiss_ext
