#include <faiss_ext/gpu/compute/ComputeLane.h>

#include <faiss/impl/FaissAssert.h>

#include <faiss_ext/gpu/Rounding.h>

namespace faiss_ext {
namespace gpu {

namespace {

using faiss::gpu::AllocRequest;
using faiss::gpu::AllocType;
using faiss::gpu::MemorySpace;

/// To which Faiss rounds its scratch memory up.
constexpr size_t kGranularity = 256;

} // namespace

ComputeLane::ComputeLane(
        faiss::gpu::GpuResources& whole, TransferCounters& counters)
        : whole_(whole), counters_(counters) {}

void ComputeLane::use(const ComputeContext& context) {
    FAISS_THROW_IF_NOT(inUse_ == 0);
    stream_ = context.stream;
    scratch_ = context.scratch;
    bytes_ = context.scratchBytes;
    used_ = 0;
}

void ComputeLane::initializeForDevice(int device) {
    whole_.initializeForDevice(device);
}

cublasHandle_t ComputeLane::getBlasHandle(int device) {
    return whole_.getBlasHandle(device);
}

cudaStream_t ComputeLane::getDefaultStream(int) {
    return stream_;
}

void ComputeLane::setDefaultStream(int, cudaStream_t) {
    FAISS_THROW_MSG("a ComputeLane keeps its stream");
}

std::vector<cudaStream_t> ComputeLane::getAlternateStreams(int) {
    return {stream_, stream_};
}

void* ComputeLane::allocMemory(const AllocRequest& request) {
    if (request.space != MemorySpace::Temporary || request.size == 0) {
        return whole_.allocMemory(request);
    }
    const size_t size = roundUp(request.size, kGranularity);
    if (size > bytes_ - used_) {
        AllocRequest overflow = request;
        overflow.space = MemorySpace::Device;
        overflow.type = AllocType::TemporaryMemoryOverflow;
        ++counters_.deviceAllocations;
        return whole_.allocMemory(overflow);
    }
    void* memory = scratch_ + used_;
    used_ += size;
    ++inUse_;
    return memory;
}

void ComputeLane::deallocMemory(int device, void* memory) {
    auto* const address = static_cast<char*>(memory);
    if (address < scratch_ || address >= scratch_ + bytes_) {
        whole_.deallocMemory(device, memory);
    } else if (--inUse_ == 0) {
        used_ = 0;
    }
}

size_t ComputeLane::getTempMemoryAvailable(int) const {
    return bytes_ - used_;
}

std::pair<void*, size_t> ComputeLane::getPinnedMemory() {
    return whole_.getPinnedMemory();
}

cudaStream_t ComputeLane::getAsyncCopyStream(int device) {
    return whole_.getAsyncCopyStream(device);
}

faiss::gpu::GpuResources& ComputeLanes::on(const ComputeContext& context) {
    if (context.lane < 0) {
        return whole_;
    }
    const auto number = static_cast<size_t>(context.lane);
    while (lanes_.size() <= number) {
        lanes_.emplace_back(whole_, counters_);
    }
    lanes_[number].use(context);
    return lanes_[number];
}

} // namespace gpu
} // namespace faiss_ext
