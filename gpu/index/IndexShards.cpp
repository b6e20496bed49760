#include <faiss_ext/gpu/index/IndexShards.h>

#include <algorithm>
#include <vector>

namespace faiss_ext {
namespace gpu {

namespace {

/// What each shard found, one after another: distances and labels [n, k].
struct Found {
    std::vector<float> distances;
    std::vector<idx_t> labels;
};

/// Writes to one row the k nearest of those of all shards, of which each has
/// its own in order. `firsts` are what is added to the labels of a shard.
void mergeRow(
        const std::vector<Found>& shards,
        const std::vector<idx_t>& firsts,
        idx_t row,
        idx_t k,
        float missing,
        float* distances,
        idx_t* labels) {
    std::vector<idx_t> next(shards.size(), row * k);
    for (idx_t j = 0; j < k; ++j) {
        const Found* nearest = nullptr;
        size_t from = 0;
        for (size_t i = 0; i < shards.size(); ++i) {
            const idx_t at = next[i];
            if (at < (row + 1) * k && shards[i].labels[at] >= 0 &&
                (!nearest ||
                 shards[i].distances[at] < nearest->distances[next[from]])) {
                nearest = &shards[i];
                from = i;
            }
        }
        distances[j] = nearest ? nearest->distances[next[from]] : missing;
        labels[j] = nearest ? nearest->labels[next[from]] + firsts[from] : -1;
        next[from] += nearest != nullptr;
    }
}

} // namespace

void IndexShards::search(
        idx_t n,
        const float* x,
        idx_t k,
        float* distances,
        idx_t* labels,
        const faiss::SearchParameters* params) const {
    const float missing = distanceOfMissing(metric_type);
    FAISS_THROW_IF_NOT(k > 0);
    if (count() == 0) {
        std::fill_n(distances, n * k, missing);
        std::fill_n(labels, n * k, -1);
        return;
    }
    if (metric_type == faiss::METRIC_L2 || isSimilarity(metric_type)) {
        faiss::IndexShards::search(n, x, k, distances, labels, params);
        for (idx_t row = 0; row < n; ++row) {
            // They are the last ones.
            for (idx_t j = k; j > 0 && labels[row * k + j - 1] < 0; --j) {
                distances[row * k + j - 1] = missing;
            }
        }
        return;
    }
    std::vector<Found> found(count());
    runOnIndex([&](int i, const faiss::Index* shard) {
        found[i].distances.resize(n * k);
        found[i].labels.resize(n * k);
        shard->search(
                n,
                x,
                k,
                found[i].distances.data(),
                found[i].labels.data(),
                params);
    });
    std::vector<idx_t> firsts(count(), 0);
    for (int i = 1; successive_ids && i < count(); ++i) {
        firsts[i] = firsts[i - 1] + at(i - 1)->ntotal;
    }
    for (idx_t row = 0; row < n; ++row) {
        mergeRow(
                found,
                firsts,
                row,
                k,
                missing,
                distances + row * k,
                labels + row * k);
    }
}

} // namespace gpu
} // namespace faiss_ext
