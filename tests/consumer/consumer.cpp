// The C++ example of the README, as a program: stores vectors, finds each one
// as its own nearest neighbour, says so.

#include <faiss/gpu/StandardGpuResources.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <cstdio>
#include <vector>

int main() {
    const int d = 64, k = 4;
    const faiss_ext::gpu::idx_t n = 1000;
    std::vector<float> vectors(n * d);
    for (size_t i = 0; i < vectors.size(); ++i) {
        vectors[i] = static_cast<float>((i * 7919) % 1009);
    }

    try {
        faiss::gpu::StandardGpuResources resources;
        faiss_ext::gpu::GpuIndexFlatL2 index(&resources, d);
        index.add(n, vectors.data());

        std::vector<float> distances(n * k);
        std::vector<faiss_ext::gpu::idx_t> labels(n * k);
        index.search(n, vectors.data(), k, distances.data(), labels.data());
        const auto stats = index.getTransferStats();

        // The first one of a process has tested the GPU, for which it waits.
        index.search(n, vectors.data(), k, distances.data(), labels.data());
        const auto waits = index.getTransferStats().hostWaits - stats.hostWaits;

        size_t own = 0;
        for (faiss_ext::gpu::idx_t i = 0; i < n; ++i) {
            own += distances[i * k] == 0;
        }
        std::printf(
                "%zu of %lld vectors found at distance 0, %llu host wait\n",
                own,
                static_cast<long long>(n),
                static_cast<unsigned long long>(waits));
        return own == static_cast<size_t>(n) && waits == 1 ? 0 : 1;
    } catch (const faiss::FaissException& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
