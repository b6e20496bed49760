#include <faiss_ext/gpu/compute/ExactVectors.h>

#include <faiss_ext/gpu/Rounding.h>
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

exact::IndexState ExactVectors::stateOf(
        const VectorsView& vectors,
        exact::Metric metric,
        const exact::TensorArithmetic& arithmetic,
        uint64_t changes,
        std::optional<ScratchMemory>& instead) {
    const Origin origin{changes, vectors.data, vectors.n};
    if (origin_ == origin) {
        return state_;
    }
    origin_.reset();
    const cudaStream_t stream = resources_.getDefaultStream(device_);
    Places needed{nullptr};
    needed.state(vectors);
    char* memory = nullptr;
    try {
        reserve(needed.bytes);
        memory = static_cast<char*>(memory_->get());
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, stream);
        instead.emplace(resources_, device_, needed.bytes);
        memory = instead->data();
    }
    const exact::IndexState state = Places{memory}.state(vectors);
    const ScratchMemory scratch(
            resources_, device_, exact::prepareBytes(vectors.d));
    FAISS_EXT_CUDA_TRY(exact::launchPrepareVectors(
            metric, arithmetic, vectors, state, scratch.data(), stream));
    if (!instead) {
        state_ = state;
        origin_ = origin;
    }
    return state;
}

/// Memory that is large enough stays, but not twice as much: after a reset an
/// index may be small for ever.
void ExactVectors::reserve(size_t bytes) {
    if (memory_ && memory_->size >= bytes && memory_->size / 2 <= bytes) {
        return;
    }
    const cudaStream_t stream = resources_.getDefaultStream(device_);
    if (memory_) {
        // To free waits for the GPU, and a loss must be known before.
        ++counters_.hostWaits;
        FAISS_EXT_CUDA_TRY(cudaStreamSynchronize(stream));
        memory_.reset();
    }
    memory_.emplace(resources_.allocMemoryHandle(faiss::gpu::AllocRequest(
            faiss::gpu::AllocType::Other,
            device_,
            faiss::gpu::MemorySpace::Device,
            stream,
            bytes)));
    ++counters_.deviceAllocations;
}

void ExactVectors::freeNow() noexcept {
    origin_.reset();
    memory_.reset();
    paths_.freeNow();
}

void ExactVectors::keepForEver() noexcept {
    if (memory_) {
        memory_->data = nullptr;
    }
}

} // namespace gpu
} // namespace faiss_ext
