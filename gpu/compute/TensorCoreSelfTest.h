#pragma once

#include <faiss/gpu/GpuResources.h>

#include <optional>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/exact/TensorArithmetic.h>
#include <faiss_ext/gpu/index/TransferStats.h>

namespace faiss_ext {
namespace gpu {

/// Whether the scores that cuBLAS makes on the tensor cores of `device`, the
/// current GPU, are as exact as is known of them: within the bound of their
/// error without the factor that searches allow for. Of crafted rows, in sizes
/// for which cuBLAS has different kernels. False also where cuBLAS has no such
/// product there; nothing where it has failed for now: the next call tries
/// again.
///
/// The first call of the process for that GPU tries it, on the default stream,
/// with scratch memory and two host waits, the first of which, for what the
/// stream holds, can be interrupted; `counters` is told of them. Later ones
/// know. Throws CudaError, Interrupted, and faiss::FaissException where memory
/// is short (isOutOfMemory); then the next call tries again. Any thread that
/// holds the lock of the resources.
FAISS_EXT_API std::optional<bool> tensorCoresPass(
        faiss::gpu::GpuResources& resources,
        int device,
        const exact::TensorArithmetic& arithmetic,
        TransferCounters& counters);

/// For tests: what is known of a GPU; nothing: the next call tries it.
FAISS_EXT_API void rememberSelfTest(int device, std::optional<bool> passed);

} // namespace gpu
} // namespace faiss_ext
