#pragma once

#include <faiss/MetricType.h>
#include <faiss/gpu/GpuResources.h>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/FaissVersion.h>

namespace faiss {
namespace gpu {
class FlatIndex;
}
} // namespace faiss

namespace faiss_ext {
namespace gpu {

/// How many vectors the store of a flat index holds: after an `add` of Faiss'
/// that failed, not always as many as the index says.
FAISS_EXT_API idx_t vectorsIn(const faiss::gpu::FlatIndex& store);

/// A search of a store: x [n, d] float32, distances [n, k] float32, labels
/// [n, k] int64, all on the current GPU.
struct StoreQueries {
    faiss::MetricType metric;
    float metricArg;
    idx_t n;
    const float* x;
    int k;
    float* distances;
    idx_t* labels;
};

/// Enqueues what faiss::gpu::GpuIndexFlat::searchImpl_ does, on the default
/// stream of the store's resources. At least one vector is stored. The host
/// does not wait. Faiss' own code does: it converts queries for a float16
/// store, and in 1.7.3 the labels, by Thrust, which synchronises the stream.
/// Returns false, having done nothing, where the temporary memory of
/// `resources`, those of the store, has no room for what is converted: then
/// Faiss would allocate and free it, which waits too, and ends the process if
/// the GPU is lost. Throws faiss::FaissException, CudaError.
FAISS_EXT_API bool searchStore(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& resources,
        const StoreQueries& queries);

/// The same on `lane`, in the order of its stream and in its scratch memory,
/// whatever that has room for. The lane's parent are the resources of the
/// store. Not thread-safe, as those are not.
FAISS_EXT_API void searchStoreOnLane(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& lane,
        const StoreQueries& queries);

/// The scratch memory that searchStoreOnLane takes for n queries or fewer, in
/// bytes: no less than Faiss' tiles (chooseTileSize and runDistance in its
/// Distance.cu) and what is converted.
FAISS_EXT_API size_t
laneBytesOf(const faiss::gpu::FlatIndex& store, idx_t n, int k);

} // namespace gpu
} // namespace faiss_ext
