#pragma once

#include <faiss/gpu/GpuDistance.h>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// faiss::gpu::bfKnn on its GPU (the current one, or `arguments.device` where
/// this Faiss has it), but with arrays there the host does
/// not wait, whichever type the labels have. Faiss waits for those of a type
/// other than its own (int64, in 1.7.3 int32), because it converts them by
/// Thrust. Among no vectors none are found, where Faiss' function throws:
/// labels are -1, and distances as the flat index on the CPU has them; outputs
/// on another GPU are then InvalidArray.
/// `arguments`, the stream and the exceptions are those of bfKnn; CudaError,
/// InvalidArray.
FAISS_EXT_API void bfKnn(
        faiss::gpu::GpuResourcesProvider* provider,
        const faiss::gpu::GpuDistanceParams& arguments);

} // namespace gpu
} // namespace faiss_ext
