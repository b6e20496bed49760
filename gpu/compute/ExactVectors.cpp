#include <faiss_ext/gpu/compute/ExactVectors.h>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr size_t kAlignment = ScratchMemory::kAlignment;

/// Lays arrays out in memory, one behind the other; without memory, their
/// bytes.
struct Places {
    char* memory;
    size_t bytes = 0;

    template <typename T>
    T* take(idx_t count) {
        char* const place = memory ? memory + bytes : nullptr;
        bytes += roundUp(count * sizeof(T), kAlignment);
        return reinterpret_cast<T*>(place);
    }

    exact::IndexState state(const VectorsView& vectors) {
        exact::IndexState state;
        state.terms = take<exact::IndexTerms>(1);
        state.centre = take<float>(vectors.d);
        state.vectors = take<exact::VectorTerms>(vectors.n);
        state.tiles = take<exact::VectorBounds>(
                divideUp(vectors.n, exact::kBoundsTile));
        state.all = take<exact::VectorBounds>(1);
        return state;
    }
};

} // namespace

ExactVectors::ExactVectors(
        faiss::gpu::GpuResources& resources,
        int device,
        TransferCounters& counters)
        : resources_(resources),
          device_(device),
          counters_(counters),
          paths_(counters) {}

const exact::IndexState& ExactVectors::stateOf(
        const VectorsView& vectors,
        exact::Metric metric,
        const exact::TensorArithmetic& arithmetic,
        uint64_t changes) {
    const Origin origin{changes, vectors.data, vectors.n};
    if (origin_ == origin) {
        return state_;
    }
    origin_.reset();
    Places needed{nullptr};
    needed.state(vectors);
    reserve(needed.bytes);
    Places places{static_cast<char*>(memory_->get())};
    state_ = places.state(vectors);
    const ScratchMemory scratch(
            resources_, device_, exact::prepareBytes(vectors.d));
    FAISS_EXT_CUDA_TRY(exact::launchPrepareVectors(
            metric,
            arithmetic,
            vectors,
            state_,
            scratch.data(),
            resources_.getDefaultStream(device_)));
    origin_ = origin;
    return state_;
}

/// Memory that is large enough stays, but not twice as much: after a reset an
/// index may be small for ever.
void ExactVectors::reserve(size_t bytes) {
    if (memory_ && memory_->size >= bytes && memory_->size / 2 <= bytes) {
        return;
    }
    memory_.reset();
    memory_.emplace(resources_.allocMemoryHandle(faiss::gpu::AllocRequest(
            faiss::gpu::AllocType::Other,
            device_,
            faiss::gpu::MemorySpace::Device,
            resources_.getDefaultStream(device_),
            bytes)));
    ++counters_.deviceAllocations;
}

void ExactVectors::keepForEver() noexcept {
    if (memory_) {
        memory_->data = nullptr;
    }
}

} // namespace gpu
} // namespace faiss_ext
