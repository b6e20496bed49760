#pragma once

#include <faiss/MetricType.h>
#include <faiss/gpu/GpuResources.h>

#include <cstdint>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

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

/// Makes the store what it was when it held `vectors`, no more than now, after
/// an `add` of Faiss' that failed: between the vectors and their norms, or
/// between parts of what was added. Nothing is moved, allocated or enqueued;
/// memory for more vectors stays with the store.
FAISS_EXT_API void narrowStore(faiss::gpu::FlatIndex& store, idx_t vectors);

/// Enqueues: *found, on the current GPU, becomes 1 if one of the vectors first
/// .. first + n - 1 of a float16 store, n >= 1, has a component of infinity,
/// or, if they are `squared`, whose square Faiss takes for infinity. Throws
/// CudaError.
FAISS_EXT_API void findTooLarge(
        faiss::gpu::FlatIndex& store,
        idx_t first,
        idx_t n,
        bool squared,
        int32_t* found,
        cudaStream_t stream);

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

/// Whether lanes can search the store: not one that searches by other means
/// than Faiss' own, such as cuVS.
FAISS_EXT_API bool searchedByFaiss(const faiss::gpu::FlatIndex& store);

/// searchStore on `lane`, in the order of its stream and in its scratch memory,
/// whatever that has room for. The lane's parent are the resources of the
/// store. Not thread-safe, as those are not.
FAISS_EXT_API void searchStoreOnLane(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& lane,
        const StoreQueries& queries);

/// Slices of the vectors of a store, and what a search finds in them, side by
/// side, as Faiss keeps what it finds in its tiles.
struct Slices {
    int count;
    /// Of each slice but the last, which has what is left, one at least.
    idx_t vectors;
    /// On the current GPU, resultBytesOf(n, k, count) bytes, aligned as
    /// cudaMalloc aligns: labels [n, count * k], which count from the first
    /// vector of their slice, -1 where that has fewer than k; behind them the
    /// distances.
    void* found;
};

/// Of Slices::found; of whole steps, as Faiss takes temporary memory.
FAISS_EXT_API size_t resultBytesOf(idx_t n, int k, int slices);

/// The temporary memory that mergeSlices takes, in bytes.
FAISS_EXT_API size_t mergeBytesOf(idx_t n, int k);

/// Searches slice `slice` of the vectors on `lane`, as searchStoreOnLane does
/// all of them. n <= 16384.
FAISS_EXT_API void searchSliceOnLane(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& lane,
        const StoreQueries& queries,
        const Slices& slices,
        int slice);

/// Writes the k nearest of all slices to the distances and labels of `queries`,
/// in the order of the default stream, and changes the labels found.
/// Throws faiss::FaissException, CudaError.
FAISS_EXT_API void mergeSlices(
        faiss::gpu::GpuResources& resources,
        const StoreQueries& queries,
        const Slices& slices);

/// The scratch memory that a lane takes for n queries or fewer among so many
/// vectors of the store, in bytes: no less than Faiss' tiles (chooseTileSize
/// and runDistance in its Distance.cu) and what is converted.
FAISS_EXT_API size_t
laneBytesOf(const faiss::gpu::FlatIndex& store, idx_t n, int k, idx_t vectors);

} // namespace gpu
} // namespace faiss_ext
