#pragma once

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/CallLanes.h>
#include <faiss_ext/gpu/faiss/FlatStore.h>
#include <faiss_ext/gpu/index/StagedConfig.h>

namespace faiss_ext {
namespace gpu {

/// The vectors, at least, of a slice worth searching by itself for n queries.
/// `config` is one without zeros. Pure arithmetic.
FAISS_EXT_API idx_t leastSliceOf(idx_t n, int k, const StagedConfig& config);

/// A search of few queries among many vectors. Faiss selects the nearest of one
/// query with one of a GPU's many processors, tile by tile of the vectors.
/// Here, slices of the vectors are searched side by side on `lanes`, and what
/// each finds is merged as Faiss merges its tiles.
///
/// Enqueues that in the order of the default stream of `resources`; the host
/// does not wait. Returns false, having done nothing, where slices are not
/// worth it or Faiss' temporary memory has no room for two at once. If it
/// throws, the lanes are done. Throws faiss::FaissException, CudaError.
/// `config` is one without zeros, but for computeLanes.
FAISS_EXT_API bool searchInSlices(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& resources,
        CallLanes lanes,
        const StagedConfig& config,
        const StoreQueries& queries);

} // namespace gpu
} // namespace faiss_ext
