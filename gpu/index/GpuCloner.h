#pragma once

#include <faiss/gpu/GpuCloner.h>

#include <vector>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// faiss::gpu::index_cpu_to_gpu, but flat indexes, also inside others, become
/// faiss_ext's classes. A GpuIndexFlatCosine, which no index on the CPU is, is
/// copied to that GPU with its vectors as they are stored; options->use_cuvs,
/// which hands flat indexes to cuVS (the default of a Faiss built with it),
/// does not hand over this one. The caller owns the result. Throws
/// InvalidDevice for a GPU that is not there, and what Faiss' function throws.
FAISS_EXT_API faiss::Index* index_cpu_to_gpu(
        faiss::gpu::GpuResourcesProvider* provider,
        int device,
        const faiss::Index* index,
        const faiss::gpu::GpuClonerOptions* options = nullptr);

/// The same for faiss::gpu::index_cpu_to_gpu_multiple: one such index becomes
/// replicas or (options->shard) shards on the given devices, of which one may
/// stand several times. Throws InvalidDevice for none, too, and where there are
/// not as many resources.
FAISS_EXT_API faiss::Index* index_cpu_to_gpu_multiple(
        std::vector<faiss::gpu::GpuResourcesProvider*>& provider,
        std::vector<int>& devices,
        const faiss::Index* index,
        const faiss::gpu::GpuMultipleClonerOptions* options = nullptr);

} // namespace gpu
} // namespace faiss_ext
