#pragma once

#include <cuda_runtime_api.h>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// What `later`, a stream of GPU `laterDevice`, is given from now on comes
/// after what `earlier`, a stream of GPU `earlierDevice`, holds now. The host
/// does not wait. Both may be cudaStreamLegacy or cudaStreamPerThread. Throws
/// Unsupported if either is being captured (refuseCapture), CudaError.
FAISS_EXT_API void orderStreams(
        cudaStream_t earlier,
        int earlierDevice,
        cudaStream_t later,
        int laterDevice);

} // namespace gpu
} // namespace faiss_ext
