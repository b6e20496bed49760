#pragma once

#include <faiss_ext/gpu/compute/exact/Distance.h>

// The order of results: by D, the nearest first; of equal ones the smaller
// label first. As one unsigned number, so that a sort on a GPU and a loop on
// the CPU cannot but agree.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// D where smaller is nearer: D itself, or -D for the inner product. Never -0.
FAISS_EXT_HOST_DEVICE inline float lossOf(Metric metric, float distance) {
    return metric == Metric::L2 ? distance : subtract(0.0f, distance);
}

/// The other way round. No D that distance() makes is changed by both.
FAISS_EXT_HOST_DEVICE inline float distanceOf(Metric metric, float loss) {
    return lossOf(metric, loss);
}

/// The loss of no vector: Faiss' results start with it. What is not below it,
/// or NaN, is not found.
FAISS_EXT_HOST_DEVICE inline float missingLoss() {
    return FLT_MAX;
}

/// The key of no vector, behind all others.
constexpr uint64_t kMissing = ~uint64_t(0);

/// Keys of losses are in the order of the losses, as unsigned numbers.
FAISS_EXT_HOST_DEVICE inline uint32_t lossKey(float loss) {
    const uint32_t bits = bitsOf(loss);
    return bits >> 31 ? ~bits : bits | 0x80000000;
}

FAISS_EXT_HOST_DEVICE inline float lossOfKey(uint32_t key) {
    return floatOf(key >> 31 ? key & 0x7fffffff : ~key);
}

/// The key of a vector: the smaller, the earlier among the results. `label` is
/// its place in the store, of at most 2^32 - 1 vectors.
FAISS_EXT_HOST_DEVICE inline uint64_t resultKey(
        Metric metric, float distance, uint32_t label) {
    const float loss = lossOf(metric, distance);
    if (!(loss < missingLoss())) {
        return kMissing;
    }
    return uint64_t(lossKey(loss)) << 32 | label;
}

/// What a search returns for a key: the label, or -1.
FAISS_EXT_HOST_DEVICE inline int64_t labelOf(uint64_t key) {
    return key == kMissing ? -1 : int64_t(key & 0xffffffff);
}

/// And the loss; of what is missing Faiss' start value.
FAISS_EXT_HOST_DEVICE inline float lossOf(uint64_t key) {
    return key == kMissing ? missingLoss() : lossOfKey(uint32_t(key >> 32));
}

FAISS_EXT_HOST_DEVICE inline float distanceOf(Metric metric, uint64_t key) {
    return distanceOf(metric, lossOf(key));
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
