#pragma once

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <utility>
#include <vector>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/host/HostCopies.h>

namespace faiss_ext {
namespace gpu {

/// Armed before work is enqueued: if the call fails half-way, whatever is in
/// flight ends before the caller gets its arrays back and before pinned
/// buffers are used again. Else a search synchronises streams only in
/// ~ComputeStreams, ~ScratchMemory and TensorCoreSelfTest.cpp.
class EndWorkOnFailure {
   public:
    /// Of the work on `streams`, and on those of `resources` that Faiss' own
    /// computation uses. Streams side by side are waited for by
    /// ~ComputeStreams. Sets `unsettled`
    /// where it cannot wait for all.
    EndWorkOnFailure(
            faiss::gpu::GpuResources& resources,
            int device,
            std::vector<cudaStream_t> streams,
            HostCopies& uploads,
            HostCopies& downloads,
            bool& unsettled)
            : resources_(resources),
              device_(device),
              streams_(std::move(streams)),
              uploads_(uploads),
              downloads_(downloads),
              unsettled_(unsettled) {}

    EndWorkOnFailure(const EndWorkOnFailure&) = delete;
    EndWorkOnFailure& operator=(const EndWorkOnFailure&) = delete;

    ~EndWorkOnFailure() {
        if (!armed_) {
            return;
        }
        for (cudaStream_t stream : resources_.getAlternateStreams(device_)) {
            waitFor(stream);
        }
        for (cudaStream_t stream : streams_) {
            waitFor(stream);
        }
        uploads_.abandon();
        downloads_.abandon();
    }

    void disarm() {
        armed_ = false;
    }

   private:
    void waitFor(cudaStream_t stream) {
        // contextLost clears the error, in Call::run.
        if (cudaStreamSynchronize(stream) != cudaSuccess) {
            unsettled_ = true;
        }
    }

    faiss::gpu::GpuResources& resources_;
    const int device_;
    const std::vector<cudaStream_t> streams_;
    HostCopies& uploads_;
    HostCopies& downloads_;
    bool& unsettled_;
    bool armed_ = true;
};

} // namespace gpu
} // namespace faiss_ext
