#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ inline double sumOfWarp(double sum) {
    for (int step = 16; step > 0; step /= 2) {
        sum += __shfl_xor_sync(kWholeWarp, sum, step);
    }
    return sum;
}

/// A warp a query.
__global__ void prepareQueriesKernel(
        IndexState state, QueryState queries, bool scanAll) {
    const idx_t query = idx_t(blockIdx.x) * kWarps + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (query >= queries.n) {
        return;
    }
    const int d = queries.d;
    const Metric metric = state.terms->metric;
    const float* x = queries.x + query * d;

    int largest = 0;
    for (int i = lane; i < d; i += 32) {
        const int bin = exponentBin(subtract(
                x[i], QuerySums::queryCentre(metric, state.centre[i])));
        largest = bin > largest ? bin : largest;
    }
    for (int step = 16; step > 0; step /= 2) {
        const int other = __shfl_xor_sync(kWholeWarp, largest, step);
        largest = other > largest ? other : largest;
    }
    const int scale = scaleOfBin(largest);
    const float factor = powerOfTwo(scale);
    const float inverse = powerOfTwo(-scale);

    const int width = copyWidth(d);
    Half* copies = queries.copies + query * width;
    QuerySums sums;
    for (int i = lane; i < width; i += 32) {
        Half copy = {0};
        if (i < d) {
            const float centre = state.centre[i];
            copy = halfOf(x[i], QuerySums::queryCentre(metric, centre), factor);
            sums.addComponent(metric, x[i], centre, copy, inverse);
        }
        copies[i] = copy;
    }
    sums.row.square = sumOfWarp(sums.row.square);
    sums.row.error = sumOfWarp(sums.row.error);
    sums.row.outside = __any_sync(kWholeWarp, sums.row.outside);
    sums.dot = sumOfWarp(sums.dot);

    if (query == 0 && lane == 0) {
        *queries.againCount = 0;
        *queries.lastCount = 0;
        *queries.widenedCount = 0;
    }
    if (lane == 0) {
        const QueryTerms terms = queryTerms(*state.terms, sums, scale);
        queries.terms[query] = terms;
        queries.cut[query] = missingLoss();
        queries.leastCut[query] = missingLoss();
        queries.counts[query] = 0;
        queries.paths[query] = scanAll || !terms.inRange ? QueryPath::Last
                                                         : QueryPath::Certified;
    }
    uint64_t* best = queries.best + query * queries.k;
    for (int i = lane; i < queries.k; i += 32) {
        best[i] = kMissing;
    }
}

} // namespace

cudaError_t launchPrepareQueries(
        const IndexState& state,
        const QueryState& queries,
        bool scanAll,
        cudaStream_t stream) {
    if (queries.n == 0) {
        return cudaSuccess;
    }
    prepareQueriesKernel<<<blocksFor(queries.n, kWarps), kThreads, 0, stream>>>(
            state, queries, scanAll);
    return cudaGetLastError();
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext
