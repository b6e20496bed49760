#pragma once

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/resources/DeviceAllocator.h>

namespace faiss_ext {
namespace gpu {

/// faiss::gpu::StandardGpuResources whose device memory comes from a pool of
/// the caller's: what indexes store, scratch, and everything else. Nothing is
/// held back, where Faiss' own resources hold 1.5 GiB of scratch on each GPU
/// (what an index keeps for its next search goes with that index). Streams,
/// cuBLAS handles and pinned host memory are Faiss' own; so is managed memory
/// (MemorySpace::Unified), which no pool is asked for.
///
/// Order. Scratch is allocated and given back on the stream that the work runs
/// on: the one set by setDefaultStream, or Faiss' own. What lasts longer than a
/// call is allocated on a stream that belongs to these resources, because a
/// caller's stream may be gone when it is given back; that stream is ordered by
/// events before and after all streams of Faiss. The host waits only where
/// Faiss asks for memory on a stream that is not its default one.
///
/// A pool that fails makes the call that needed memory throw AllocationError;
/// then the scratch of that call has gone back to the pool, and indexes answer
/// as before.
///
/// For one thread at a time, as Faiss' resources are; indexes of faiss_ext on
/// the same object see to that by themselves. The resources and the allocator
/// live until the last index on them is gone. At their end the resources wait
/// for the GPUs, since a pool may know memory by streams that end with them.
class FAISS_EXT_API PooledGpuResources
        : public faiss::gpu::GpuResourcesProvider {
   public:
    /// Throws faiss::FaissException if there is no allocator.
    explicit PooledGpuResources(std::shared_ptr<DeviceAllocator> allocator);
    ~PooledGpuResources() override;

    std::shared_ptr<faiss::gpu::GpuResources> getResources() override;

    /// Whether `resources` are those of some PooledGpuResources: their memory
    /// costs no wait to take and to give back.
    static bool made(const faiss::gpu::GpuResources* resources);

    /// How many bytes of scratch Faiss may plan with on each GPU; an index that
    /// needs more at once still gets it, if the pool has it. By default what
    /// Faiss reserves: an eighth of the GPU's memory, at most 1.5 GiB. Nothing
    /// is reserved here.
    void setTempMemory(size_t bytes);
    void noTempMemory();

    /// The bytes of that which are not in use now.
    size_t getTempMemoryAvailable(int device) const;

    /// As in faiss::gpu::StandardGpuResources.
    void setPinnedMemory(size_t bytes);
    void setDefaultStream(int device, cudaStream_t stream);
    void revertDefaultStream(int device);
    void setDefaultNullStreamAllDevices();
    cudaStream_t getDefaultStream(int device);
    void syncDefaultStreamCurrentDevice();

    /// What is in use now, by GPU and kind: how many allocations, and bytes as
    /// they were asked of the pool. Any thread.
    std::map<int, std::map<std::string, std::pair<int, size_t>>> getMemoryInfo()
            const;

   private:
    class Impl;
    const std::shared_ptr<Impl> impl_;
};

} // namespace gpu
} // namespace faiss_ext
