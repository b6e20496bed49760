#pragma once

// Private to StagingPipeline.

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <deque>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/ComputeLane.h>
#include <faiss_ext/gpu/CudaHandles.h>
#include <faiss_ext/gpu/FaissVersion.h>
#include <faiss_ext/gpu/SearchProfile.h>
#include <faiss_ext/gpu/TransferStats.h>

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
/// on several lanes, part beside part. Number 0 to size() - 1.
class CallLanes {
   public:
    /// Rows of a tile that one lane computes, counted from the tile's first.
    struct Part {
        size_t lane;
        idx_t first;
        idx_t rows;
    };

    /// On the default stream alone, until `open`. All outlive this.
    CallLanes(
            faiss::gpu::GpuResources& resources,
            int device,
            LaneStore& store,
            TransferCounters& counters);

    /// `most` lanes for n rows, or as many as have enough to do and as Faiss'
    /// temporary memory, a stack, has room for now: `bytes` for each.
    size_t affordable(idx_t n, size_t most, size_t bytes) const;

    /// Takes as many, for tiles of up to tileRows; none if that is less than
    /// `least`. Throws CudaError.
    void open(idx_t n, idx_t tileRows, size_t least, size_t most, size_t bytes);

    size_t size() const {
        return on_.size();
    }
    faiss::gpu::GpuResources& on(size_t lane) const {
        return *on_[lane];
    }
    cudaStream_t stream(size_t lane) const {
        return on_[lane]->getDefaultStream(device_);
    }
    /// For the recorder.
    Lane profiledAs(size_t lane) const;

    /// The lanes go on from where the default stream is.
    void fork();
    /// The default stream goes on when all lanes are done.
    void join();

    /// A tile of `rows` rows, cut into what each lane computes in turn. The
    /// lane that has waited longest is next, so that small tiles run side by
    /// side too.
    std::vector<Part> parts(idx_t rows);

   private:
    faiss::gpu::GpuResources& resources_;
    const int device_;
    LaneStore& store_;
    TransferCounters& counters_;

    /// Set aside already, so that no call of CUDA's frees it.
    faiss::gpu::GpuMemoryReservation scratch_;
    std::vector<faiss::gpu::GpuResources*> on_;
    /// Rows of a part; 0: as many as make one part for each lane.
    idx_t step_ = 0;
    size_t next_ = 0;
};

} // namespace gpu
} // namespace faiss_ext
