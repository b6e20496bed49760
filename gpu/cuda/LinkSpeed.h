#pragma once

#include <faiss/gpu/GpuResources.h>

#include <cstddef>
#include <memory>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Bytes a second between pinned host memory and a GPU, one direction at a
/// time: what copies of results are measured against.
struct LinkSpeed {
    double toDevice = 0;
    double toHost = 0;
};

/// The median of `repetitions` (1 or more) copies of `bytes` (1 or more) each
/// way, by events. Allocates as much pinned and device memory for the time
/// being; waits. The caller must not use the resources meanwhile. Throws
/// CudaError, or faiss::FaissException if there is not enough memory.
FAISS_EXT_API LinkSpeed measureLinkSpeed(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        size_t bytes,
        int repetitions);

} // namespace gpu
} // namespace faiss_ext
