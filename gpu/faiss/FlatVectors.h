#pragma once

#include <faiss/MetricType.h>
#include <faiss/gpu/GpuResources.h>

#include <cstddef>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/Computation.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss {
namespace gpu {
class FlatIndex;
}
} // namespace faiss

namespace faiss_ext {
namespace gpu {

/// The vectors of a flat index's store as they lie in GPU memory: `data` [n, d]
/// row-major, float32 or float16, and the squared norms [n] float32 of an L2
/// index, else nullptr.
struct VectorsView {
    const void* data;
    bool float16;
    const float* norms;
    idx_t n;
    int d;
};

/// What the store holds: after an `add` of Faiss' that failed, not always as
/// many vectors as the index says.
FAISS_EXT_API VectorsView viewOf(faiss::gpu::FlatIndex& store);

/// Takes memory for so many vectors, if the store has less; what it holds moves
/// there, in the order of `stream`. Throws faiss::FaissException.
FAISS_EXT_API void reserveStore(
        faiss::gpu::FlatIndex& store, idx_t vectors, cudaStream_t stream);

/// Makes the store what it was when it held `vectors`, no more than now, after
/// an `add` of Faiss' that failed: between the vectors and their norms, or
/// between parts of what was added. Nothing is moved, allocated or enqueued;
/// memory for more vectors stays with the store.
FAISS_EXT_API void narrowStore(faiss::gpu::FlatIndex& store, idx_t vectors);

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
/// stream of `on`: the resources of the store, or a lane whose parent these
/// are. At least one vector is stored. The host does not wait, but for memory
/// that `on` has not ready; Faiss' own code does: it converts queries for a
/// float16 store, and in 1.7.3 the labels, by Thrust, which synchronises the
/// stream. Throws faiss::FaissException, CudaError. Not thread-safe, as the
/// resources are not.
FAISS_EXT_API void searchStore(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& on,
        const StoreQueries& queries);

/// Whether Faiss' own kernels search the store, which lanes need, and not other
/// means such as cuVS.
FAISS_EXT_API bool searchedByFaiss(const faiss::gpu::FlatIndex& store);

/// Searches slice `slice` of the vectors on `lane`, as searchStore does all of
/// them. n <= 16384. `found`: what all slices find, as Faiss keeps what it
/// finds in its tiles, foundBytesOf(n, k, slices.count) bytes on the current
/// GPU, aligned as cudaMalloc aligns: labels [n, slices.count * k], which count
/// from the first vector of their slice, -1 where that has fewer than k; behind
/// them the distances.
FAISS_EXT_API void searchSlice(
        faiss::gpu::FlatIndex& store,
        faiss::gpu::GpuResources& lane,
        const StoreQueries& queries,
        const Slices& slices,
        void* found,
        int slice);

/// Writes the k nearest of all slices to the distances and labels of `queries`,
/// in the order of the default stream, and changes the labels found.
/// Throws faiss::FaissException, CudaError.
FAISS_EXT_API void mergeFound(
        faiss::gpu::GpuResources& resources,
        const StoreQueries& queries,
        const Slices& slices,
        void* found);

// What these take, in bytes: pure arithmetic.

/// Of whole steps, as Faiss takes temporary memory.
FAISS_EXT_API size_t foundBytesOf(idx_t n, int k, int slices);

/// The temporary memory that mergeFound takes.
FAISS_EXT_API size_t mergeBytesOf(idx_t n, int k);

/// The scratch memory that a lane takes for n queries or fewer among `vectors`
/// of the store: no less than Faiss' tiles (chooseTileSize and runDistance in
/// its Distance.cu) and what is converted.
FAISS_EXT_API size_t
laneBytesOf(const faiss::gpu::FlatIndex& store, idx_t n, int k, idx_t vectors);

} // namespace gpu
} // namespace faiss_ext
