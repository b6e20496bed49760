#pragma once

#include <faiss/gpu/StandardGpuResources.h>

#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/Computation.h>
#include <faiss_ext/gpu/index/TransferStats.h>

namespace faiss_ext {
namespace gpu {

/// What Faiss' kernels take in place of a stream and scratch memory: the
/// resources of an index, but with one stream, which stands for the default
/// stream and for the two alternate ones of Faiss too, and with scratch memory
/// of its own. What Faiss computes on a lane is in the order of that stream
/// alone.
///
/// Nothing orders the stream before or after others by itself. Not thread-safe:
/// the caller holds the lock of the resources.
///
/// Derived from Faiss' class, of which nothing is ever set up, so that it has
/// whatever else the interface has in this version of Faiss.
class FAISS_EXT_API ComputeLane : public faiss::gpu::StandardGpuResourcesImpl {
   public:
    /// `whole` outlives this. What does not fit into the scratch memory is
    /// counted in `counters`.
    ComputeLane(faiss::gpu::GpuResources& whole, TransferCounters& counters);

    /// From now on it is the stream and the scratch memory of this one. Nothing
    /// that was allocated before is in use any more.
    void use(const ComputeContext& context);

    void initializeForDevice(int device) override;
    cublasHandle_t getBlasHandle(int device) override;
    cudaStream_t getDefaultStream(int device) override;
    /// Throws faiss::FaissException: it has always the same one.
    void setDefaultStream(int device, cudaStream_t stream) override;
    std::vector<cudaStream_t> getAlternateStreams(int device) override;
    /// Scratch memory that is not there is allocated on the GPU, as Faiss does,
    /// which waits for it.
    void* allocMemory(const faiss::gpu::AllocRequest& request) override;
    void deallocMemory(int device, void* memory) override;
    size_t getTempMemoryAvailable(int device) const override;
    std::pair<void*, size_t> getPinnedMemory() override;
    cudaStream_t getAsyncCopyStream(int device) override;

   private:
    faiss::gpu::GpuResources& whole_;
    TransferCounters& counters_;
    cudaStream_t stream_ = nullptr;
    char* scratch_ = nullptr;
    size_t bytes_ = 0;
    size_t used_ = 0;
    /// Allocations in use; their memory is free again when all are given back.
    size_t inUse_ = 0;
};

/// What the searches of one index share, whatever they are made with: the
/// resources that a part of a call computes with, on the default stream and on
/// others. A Searcher takes its stream, scratch memory and cuBLAS handle there.
class FAISS_EXT_API ComputeLanes {
   public:
    /// Both outlive this.
    ComputeLanes(
            faiss::gpu::GpuResources& resources, TransferCounters& counters)
            : whole_(resources), counters_(counters) {}

    /// Those of `context`, until they are asked for again for the same stream.
    faiss::gpu::GpuResources& on(const ComputeContext& context);

   private:
    faiss::gpu::GpuResources& whole_;
    TransferCounters& counters_;
    // Addresses stay as it grows.
    std::deque<ComputeLane> lanes_;
};

} // namespace gpu
} // namespace faiss_ext
