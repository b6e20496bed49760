#pragma once

// Private to StagingPipeline and SlicedSearch.

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <deque>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/ComputeLane.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

/// What the lanes of one index are made of, made by the first call that needs
/// it and kept for the later ones.
struct LaneStore {
    // Addresses stay as it grows.
    std::deque<ComputeLane> lanes;
    std::optional<Event> forked;
    std::optional<Event> joined;
};

/// Where one call computes: on the default stream of the index's resources, or
/// on several lanes beside each other. Number 0 to size() - 1.
class FAISS_EXT_API CallLanes {
   public:
    /// On the default stream alone, until `open`. All outlive this.
    CallLanes(
            faiss::gpu::GpuResources& resources,
            int device,
            LaneStore& store,
            TransferCounters& counters);

    /// Between fork and join, such as where a call has thrown: waits for the
    /// lanes, before their scratch memory is given back.
    ~CallLanes();

    CallLanes(const CallLanes&) = delete;
    CallLanes& operator=(const CallLanes&) = delete;

    /// How many lanes, up to `most`, Faiss' temporary memory, a stack, has room
    /// for now, with `bytes` of scratch memory each and `besides` bytes more;
    /// at least 1, if `most` is, which needs none.
    size_t affordable(size_t most, size_t bytes, size_t besides = 0) const;

    /// Takes so many, two or more, and as many bytes `besides`; false, and
    /// none, where that memory has less than it said. Throws CudaError.
    bool open(size_t lanes, size_t bytes, size_t besides = 0);

    size_t size() const {
        return on_.size();
    }
    faiss::gpu::GpuResources& on(size_t lane) const {
        return *on_[lane];
    }
    cudaStream_t stream(size_t lane) const {
        return on_[lane]->getDefaultStream(device_);
    }
    /// What was taken besides scratch memory, for use in the default stream's
    /// order. Aligned as cudaMalloc aligns.
    char* besides() const {
        return besides_;
    }
    /// For the recorder.
    Lane profiledAs(size_t lane) const;

    /// The lanes go on from where the default stream is.
    void fork();
    /// The default stream goes on when all lanes are done.
    void join();

   private:
    faiss::gpu::GpuResources& resources_;
    const int device_;
    LaneStore& store_;
    TransferCounters& counters_;

    /// Set aside already, so that no call of CUDA's frees it.
    faiss::gpu::GpuMemoryReservation scratch_;
    char* besides_ = nullptr;
    std::vector<faiss::gpu::GpuResources*> on_;
    bool forked_ = false;
};

} // namespace gpu
} // namespace faiss_ext
