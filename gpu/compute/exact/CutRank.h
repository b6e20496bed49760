#pragma once

#include <cmath>
#include <cstdint>

// Cuts that are guessed from a part of the store. They only decide how much
// work a search is: certified() (Margin.h) finds out which were too small.

namespace faiss_ext {
namespace gpu {
namespace exact {

/// How many of the best of `seen` vectors a cut is to be made of, so that the k
/// best of `total` pass it but in about one of a million cases, if those seen
/// are a fair sample of all. At most k, which always is enough.
///
/// Of the k best, so many as a number of this mean are seen: if that is less
/// than the rank, the cut is above all of them. What is added to the mean is
/// for a Poisson distribution, whose tails are larger.
inline int cutRank(int k, int64_t seen, int64_t total) {
    const double mean = double(k) * double(seen) / double(total);
    const double rank = std::ceil(mean + 4.75 * std::sqrt(mean) + 3.7);
    return rank < k ? static_cast<int>(rank) : k;
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
