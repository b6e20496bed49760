#pragma once

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <deque>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/Computation.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

/// How many streams, up to `most`, `temporaryBytes` of Faiss' temporary memory
/// have room for, with `bytes` of scratch memory each and `shared` bytes for
/// all; at least 1, if `most` is, which needs none. Pure arithmetic.
FAISS_EXT_API size_t affordableStreams(
        size_t most, size_t bytes, size_t shared, size_t temporaryBytes);

/// Where one call computes: on the default stream of the index's resources, or
/// on several streams beside each other, with scratch memory of their own.
/// Number 0 to size() - 1.
class FAISS_EXT_API ComputeStreams {
   public:
    /// What those of one index are made of: made by the first call that needs
    /// it, and kept for the later ones.
    struct Kept {
        std::deque<Stream> streams;
        std::optional<Event> forked;
        std::optional<Event> joined;
    };

    /// On the default stream alone, until `open`. All outlive this, `recorder`
    /// too, which may be nullptr.
    ComputeStreams(
            faiss::gpu::GpuResources& resources,
            int device,
            Kept& kept,
            StageRecorder* recorder);

    /// Between fork and join, such as where a call has thrown: waits for the
    /// streams, before their scratch memory is given back.
    ~ComputeStreams();

    ComputeStreams(const ComputeStreams&) = delete;
    ComputeStreams& operator=(const ComputeStreams&) = delete;

    /// Takes so many, two or more, each with `bytes` of scratch memory, and as
    /// many bytes `shared`, from Faiss' temporary memory, a stack. Throws
    /// CudaError, and what Faiss' resources throw where memory is short.
    void open(size_t streams, size_t bytes, size_t shared);

    size_t size() const {
        return contexts_.size();
    }
    const ComputeContext& operator[](size_t i) const {
        return contexts_[i];
    }
    /// For what is computed on the default stream, whatever size() is.
    const ComputeContext& whole() const {
        return whole_;
    }
    /// What was taken for all streams, for use in the default stream's
    /// order. Aligned as cudaMalloc aligns.
    char* shared() const {
        return shared_;
    }
    /// For the recorder.
    Lane profiledAs(size_t i) const;

    /// The streams go on from where the default stream is.
    void fork();
    /// The default stream goes on when all of them are done.
    void join();

   private:
    faiss::gpu::GpuResources& resources_;
    const int device_;
    Kept& kept_;
    const ComputeContext whole_;

    /// Set aside already, so that no call of CUDA's frees it.
    faiss::gpu::GpuMemoryReservation scratch_;
    char* shared_ = nullptr;
    std::vector<ComputeContext> contexts_;
    bool forked_ = false;
};

} // namespace gpu
} // namespace faiss_ext
