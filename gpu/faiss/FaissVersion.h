#pragma once

/// Every difference between the Faiss versions that this library compiles on
/// stands in this header: 1.7.3 (C++17) to 1.15 (C++20).

#include <faiss/Index.h>
#include <faiss/gpu/impl/IndexUtils.h>
#include <faiss/impl/FaissAssert.h>

#include <cstring>
#include <limits>

#if __has_include(<faiss/IndexShards.h>)
#include <faiss/IndexShards.h>
#else
#include <faiss/MetaIndexes.h>
#endif

#define FAISS_EXT_FAISS_VERSION                                \
    (FAISS_VERSION_MAJOR * 10000 + FAISS_VERSION_MINOR * 100 + \
     FAISS_VERSION_PATCH)

/// From 1.13 on, queries and vectors may have other types than float
/// (`search_ex`, `add_ex`, `NumericType`).
#define FAISS_EXT_HAS_NUMERIC_TYPE (FAISS_EXT_FAISS_VERSION >= 11300)

namespace faiss_ext {
namespace gpu {

/// Type of labels and counts. Faiss 1.7.3 has it inside `faiss::Index`, later
/// versions in namespace `faiss`; a member that both have tells it.
using idx_t = decltype(faiss::Index::ntotal);

/// Types of the row count of the protected `searchImpl_`, and of the labels
/// within Faiss' searches on a GPU.
#if FAISS_EXT_FAISS_VERSION < 10704
using SearchImplCount = int;
using StoreLabel = int;
#else
using SearchImplCount = idx_t;
using StoreLabel = idx_t;
#endif

/// Throws faiss::FaissException, in Faiss' words, unless 1 <= k <= the limit
/// of this Faiss' selection kernels (2048 neighbours; 1.7.3 takes one less).
inline void validateK(idx_t k) {
#if FAISS_EXT_FAISS_VERSION < 10704
    faiss::gpu::validateKSelect(k);
#else
    // Later versions take an int: a larger k must not wrap into the range.
    constexpr idx_t kTooLarge = 1 << 30;
    faiss::gpu::validateKSelect(
            static_cast<int>(k < kTooLarge ? k : kTooLarge));
#endif
}

/// Throws faiss::FaissException unless this Faiss takes n vectors in one call.
inline void validateCount(idx_t n) {
    FAISS_THROW_IF_NOT_FMT(
            n >= 0,
            "number of vectors must not be negative (requested %lld)",
            static_cast<long long>(n));
#if FAISS_EXT_FAISS_VERSION < 10704
    faiss::gpu::validateNumVectors(n);
#endif
}

/// Whether a faiss::FaissException with this text says that the GPU has no
/// memory left. StandardGpuResourcesImpl::allocMemory throws
/// "StandardGpuResources: alloc fail ... (cudaMalloc error out of memory [2])"
/// in 1.7.3 to 1.15 (or cudaMallocManaged), with the number of the error that
/// CUDA gave, and in builds with cuVS, whose allocator keeps that to itself,
/// "CUDA memory allocation error". Other numbers, and all other texts, mean
/// something else.
inline bool saysOutOfMemory(const char* text) noexcept {
    const char* const failed =
            std::strstr(text, "StandardGpuResources: alloc fail ");
    return (failed && std::strstr(failed, " [2])")) ||
           std::strstr(text, "CUDA memory allocation error");
}

/// Whether more of a metric is nearer.
inline bool isSimilarity(faiss::MetricType metric) {
#if FAISS_EXT_FAISS_VERSION < 10800
    return metric == faiss::METRIC_INNER_PRODUCT;
#else
    return faiss::is_similarity_metric(metric);
#endif
}

/// The distance of a neighbour that is not there, as Faiss' flat index on the
/// CPU gives it: none is farther, and none less similar.
inline float distanceOfMissing(faiss::MetricType metric) {
    return isSimilarity(metric) ? std::numeric_limits<float>::lowest()
                                : std::numeric_limits<float>::max();
}

/// Whether faiss::IndexReplicas or faiss::IndexShards delete what they hold.
template <typename ThreadedIndex>
void ownSubIndexes(ThreadedIndex& index, bool owns) {
#if FAISS_EXT_FAISS_VERSION < 10704
    index.own_fields = owns;
#else
    index.own_indices = owns;
#endif
}

/// The GPU that arguments of bfKnn name; -1: the current one, as always where
/// this Faiss has no member for it.
template <typename DistanceParams>
auto namedDevice(const DistanceParams& arguments, int)
        -> decltype(arguments.device) {
    return arguments.device;
}
template <typename DistanceParams>
int namedDevice(const DistanceParams&, long) {
    return -1;
}

/// Whether cloner options hand the index to cuVS. Such an index is searched by
/// another library, and stays Faiss' own.
template <typename ClonerOptions>
bool usesCuvs(const ClonerOptions& options) {
#if FAISS_EXT_FAISS_VERSION < 11000
    (void)options;
    return false;
#else
    return options.use_cuvs;
#endif
}

} // namespace gpu
} // namespace faiss_ext
