#include <faiss_ext/gpu/compute/ExactVectors.h>

#include <string>

#include <faiss_ext/gpu/compute/ArrayPlaces.h>
#include <faiss_ext/gpu/compute/ExactWork.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Where the arrays that are kept lie in their memory.
struct StatePlaces {
    explicit StatePlaces(const VectorsView& vectors_)
            : terms(places.take<exact::IndexTerms>(1)),
              centre(places.take<float>(vectors_.d)),
              vectors(places.take<exact::VectorTerms>(vectors_.n)) {}

    exact::IndexState in(char* memory) const {
        return {reinterpret_cast<exact::IndexTerms*>(memory + terms),
                reinterpret_cast<float*>(memory + centre),
                reinterpret_cast<exact::VectorTerms*>(memory + vectors)};
    }

    ArrayPlaces places;
    const size_t terms;
    const size_t centre;
    const size_t vectors;
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
        std::optional<ScratchMemory>& temporary,
        StageRecorder* recorder) {
    const Origin origin{changes, vectors.data, vectors.n, metric};
    if (origin_ == origin) {
        return state_;
    }
    origin_.reset();
    const cudaStream_t stream = resources_.getDefaultStream(device_);
    const StatePlaces places(vectors);
    const size_t bytes = places.places.bytes();
    char* memory = nullptr;
    try {
        reserve(bytes);
        memory = static_cast<char*>(memory_->get());
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, stream);
        memory = takeTemporary(bytes, vectors.n, temporary);
    }
    const exact::IndexState state = places.in(memory);
    ScratchMemory scratch(
            resources_, device_, exact::prepareBytes(vectors.d), counters_);
    FAISS_EXT_CUDA_TRY(exact::launchPrepareVectors(
            metric, arithmetic, vectors, state, scratch.data(), stream));
    endPart(recorder,
            {"prepare index", exact::prepareIndexWork(vectors)},
            stream);
    scratch.waitUnlessInterrupted();
    if (!temporary) {
        state_ = state;
        origin_ = origin;
    }
    return state;
}

char* ExactVectors::takeTemporary(
        size_t bytes, idx_t vectors, std::optional<ScratchMemory>& temporary) {
    try {
        temporary.emplace(resources_, device_, bytes, counters_);
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, resources_.getDefaultStream(device_));
        throw OutOfMemory(
                "the exact engine needs " + std::to_string(bytes) +
                " bytes for " + std::to_string(vectors) + " vectors, and GPU " +
                std::to_string(device_) +
                " has no memory left for that; Faiss' kernels, by "
                "StagedConfig::search \"faiss\", do without");
    }
    return temporary->data();
}

/// Memory that is large enough stays, but not twice as much: after a reset an
/// index may be small for ever.
void ExactVectors::reserve(size_t bytes) {
    if (memory_ && memory_->size >= bytes && memory_->size / 2 <= bytes) {
        return;
    }
    const cudaStream_t stream = resources_.getDefaultStream(device_);
    if (memory_) {
        if (!PooledGpuResources::made(&resources_)) {
            // To free waits for the GPU, and a loss must be known before.
            ++counters_.hostWaits;
            FAISS_EXT_CUDA_TRY(cudaStreamSynchronize(stream));
        }
        memory_.reset();
        // It grows: so that not every search after a small add allocates.
        bytes += bytes / 8;
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
