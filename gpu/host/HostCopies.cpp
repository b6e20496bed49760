#include <faiss_ext/gpu/host/HostCopies.h>

#include <faiss/impl/FaissAssert.h>

#include <utility>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/NvtxRange.h>

namespace faiss_ext {
namespace gpu {

void HostCopies::reset(size_t steps) {
    steps_.clear();
    steps_.reserve(steps);
    abandoned_ = false;
}

void HostCopies::enqueue(
        std::vector<HostCopy>&& pieces,
        cudaStream_t stream,
        HostInterval* timed) {
    FAISS_THROW_IF_NOT(steps_.size() < steps_.capacity());
    steps_.push_back({this, std::move(pieces), timed});
    FAISS_EXT_CUDA_TRY(cudaLaunchHostFunc(stream, runStep, &steps_.back()));
}

void HostCopies::abandon() {
    std::lock_guard<std::mutex> guard(mutex_);
    abandoned_ = true;
}

void CUDART_CB HostCopies::runStep(void* step) {
    auto* self = static_cast<Step*>(step);
    std::lock_guard<std::mutex> guard(self->owner->mutex_);
    if (self->owner->abandoned_) {
        return;
    }
    NvtxRange range("host copies", -1);
    if (self->timed) {
        self->timed->begin = HostInterval::Clock::now();
    }
    self->owner->copier_.copy(self->pieces);
    if (self->timed) {
        self->timed->end = HostInterval::Clock::now();
    }
}

} // namespace gpu
} // namespace faiss_ext
