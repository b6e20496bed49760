#pragma once

#include <faiss/gpu/GpuResources.h>

#include <cstddef>
#include <cstdint>
#include <exception>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/compute/ArrayPlaces.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

/// Memory for the work that is enqueued on the default stream within a scope:
/// Faiss' temporary memory, or, where that has less, what Faiss allocates,
/// whose end is a host wait; a pool's memory, which never waits.
class ScratchMemory {
   public:
    /// What cudaMalloc aligns to; Faiss' temporary memory begins 16 bytes
    /// behind.
    static constexpr size_t kAlignment = ArrayPlaces::kAlignment;

    /// Throws faiss::FaissException, as Faiss does where memory is short.
    ScratchMemory(
            faiss::gpu::GpuResources& resources,
            int device,
            size_t bytes,
            TransferCounters& counters)
            : counters_(counters),
              stream_(resources.getDefaultStream(device)),
              allocated_(
                      !PooledGpuResources::made(&resources) &&
                      bytesOf(bytes) >
                              resources.getTempMemoryAvailable(device)),
              memory_(resources.allocMemoryHandle(faiss::gpu::AllocRequest(
                      faiss::gpu::AllocType::Other,
                      device,
                      faiss::gpu::MemorySpace::Temporary,
                      stream_,
                      bytesOf(bytes)))) {
        counters_.deviceAllocations += allocated_;
    }

    /// Waits as the end of this would, if that waits, but asks for interrupts
    /// in between; then that does not wait. For scopes that may take long.
    /// Throws CudaError, Interrupted: then the end waits, since the memory is
    /// in use until then.
    void waitUnlessInterrupted() {
        if (allocated_ && !waited_) {
            Event end;
            end.record(stream_);
            ++counters_.hostWaits;
            faiss_ext::gpu::waitUnlessInterrupted(end);
            waited_ = true;
        }
    }

    /// Whoever calls this has waited for all that uses it: the end does not.
    void isUnused() {
        waited_ = true;
    }

    /// Where the context is lost, Faiss would abort the process when it cannot
    /// free. What it has allocated it frees at once, which waits for the GPU,
    /// so it is known before.
    ~ScratchMemory() {
        const bool failing = std::uncaught_exceptions() > exceptions_;
        if (allocated_ && !waited_) {
            ++counters_.hostWaits;
            FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(stream_));
        }
        if ((allocated_ || failing) && contextLost(stream_)) {
            memory_.data = nullptr;
        }
    }

    ScratchMemory(const ScratchMemory&) = delete;
    ScratchMemory& operator=(const ScratchMemory&) = delete;

    /// What is asked of Faiss for so many bytes.
    static size_t bytesOf(size_t bytes) {
        return roundUp(bytes, kAlignment) + kAlignment;
    }

    /// Aligned.
    char* data() const {
        const auto address = reinterpret_cast<uintptr_t>(memory_.data);
        return static_cast<char*>(memory_.data) +
               (roundUp<uintptr_t>(address, kAlignment) - address);
    }

   private:
    const int exceptions_ = std::uncaught_exceptions();
    TransferCounters& counters_;
    const cudaStream_t stream_;
    /// Faiss' temporary memory has less.
    const bool allocated_;
    /// For all that uses it.
    bool waited_ = false;
    faiss::gpu::GpuMemoryReservation memory_;
};

} // namespace gpu
} // namespace faiss_ext
