#pragma once

#include <faiss/gpu/GpuResources.h>

#include <memory>
#include <mutex>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// The lock of one GpuResources object. Faiss' resources (streams, temporary
/// stack, cuBLAS handle) are for one thread at a time, and several indexes may
/// share them; so callers of all our indexes on the same object take the same
/// lock. It is recursive because Faiss' own methods call virtual ones of ours
/// (copyTo calls reconstruct_n).
///
/// The process holds one entry for each resources object in use, dropped with
/// the last index on it. Stock Faiss indexes on the same object do not know
/// this lock.
FAISS_EXT_API std::shared_ptr<std::recursive_mutex> lockOf(
        const faiss::gpu::GpuResources* resources);

/// Never lets go of `resources`: for when the CUDA context is lost. Faiss'
/// resources abort the process when they cannot free.
FAISS_EXT_API void keepForEver(
        const std::shared_ptr<faiss::gpu::GpuResources>& resources);

} // namespace gpu
} // namespace faiss_ext
