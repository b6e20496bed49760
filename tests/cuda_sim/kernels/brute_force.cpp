// Replaces bfKnn: the same checks, the same copies, the same waits, and then
// one operation in place of the kernels.

#include <cuda_fp16.h>
#include <faiss/gpu/GpuDistance.h>
#include <faiss/gpu/GpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/gpu/utils/CopyUtils.cuh>
#include <faiss/gpu/utils/DeviceTensor.cuh>

#include <type_traits>
#include <vector>

#include "EnqueueSearch.h"

namespace faiss {
namespace gpu {

using namespace cuda_sim;
using cuda_sim::idx_t;

namespace {

template <typename T>
void bfKnnOf(GpuResourcesProvider* prov, const GpuDistanceParams& args) {
    FAISS_THROW_IF_NOT_MSG(
            args.k > 0 || args.k == -1,
            "bfKnn: k must be > 0 for top-k reduction, "
            "or -1 for all pairwise distances");
    FAISS_THROW_IF_NOT_MSG(args.dims > 0, "bfKnn: dims must be > 0");
    FAISS_THROW_IF_NOT_MSG(
            args.numVectors > 0, "bfKnn: numVectors must be > 0");
    FAISS_THROW_IF_NOT_MSG(
            args.vectors, "bfKnn: vectors must be provided (passed null)");
    FAISS_THROW_IF_NOT_MSG(
            args.numQueries > 0, "bfKnn: numQueries must be > 0");
    FAISS_THROW_IF_NOT_MSG(
            args.queries, "bfKnn: queries must be provided (passed null)");
    FAISS_THROW_IF_NOT_MSG(
            args.outDistances,
            "bfKnn: outDistances must be provided (passed null)");
    FAISS_THROW_IF_NOT_MSG(
            args.outIndices || args.k == -1,
            "bfKnn: outIndices must be provided (passed null)");

    auto resources = prov->getResources();
    auto* res = resources.get();
    auto device = getCurrentDevice();
#if CUDA_SIM_FAISS_VERSION >= 10704
    if (args.device >= 0) {
        device = args.device;
    }
#endif
    DeviceScope scope(device);
    auto stream = res->getDefaultStream(device);
    auto count = [](size_t value) { return static_cast<Count>(value); };
    auto toDevice = [&](const void* data, bool rowMajor, size_t rows) {
        return toDeviceTemporary<T, 2>(
                res,
                device,
                const_cast<T*>(static_cast<const T*>(data)),
                stream,
                {count(rowMajor ? rows : args.dims),
                 count(rowMajor ? args.dims : rows)});
    };
    auto vectors =
            toDevice(args.vectors, args.vectorsRowMajor, args.numVectors);
    auto queries =
            toDevice(args.queries, args.queriesRowMajor, args.numQueries);
    DeviceTensor<float, 1, true> norms;
    if (args.vectorNorms) {
        norms = toDeviceTemporary<float, 1>(
                res,
                device,
                const_cast<float*>(args.vectorNorms),
                stream,
                {count(args.numVectors)});
    }
    auto outDistances = toDeviceTemporary<float, 2>(
            res,
            device,
            args.outDistances,
            stream,
            {count(args.numQueries),
             count(args.k == -1 ? args.numVectors : args.k)});

    checkMetric(args.metric);
    constexpr bool isHalf = sizeof(T) == 2;
    Knn knn;
    knn.metric = args.metric;
    knn.metricArg = args.metricArg;
    knn.vectors = {
            vectors.data(),
            isHalf,
            args.vectorsRowMajor,
            size_t(args.numVectors),
            size_t(args.dims)};
    knn.queries = {
            queries.data(),
            isHalf,
            args.queriesRowMajor,
            size_t(args.numQueries),
            size_t(args.dims)};
    float* distances = outDistances.data();

    // Room for labels of the given type at the caller's place or in front of
    // it, filled by `fill`, and brought there.
    auto withLabels = [&](auto* wanted, const auto& fill) {
        using L = typename std::remove_pointer<decltype(wanted)>::type;
        auto labels = toDeviceTemporary<L, 2>(
                res,
                device,
                wanted,
                stream,
                {count(args.numQueries), count(args.k)});
        fill(labels.data());
        fromDevice<L, 2>(labels, wanted, stream);
    };

    size_t results = knn.queries.rows * args.k;
    if (args.k == -1) {
        size_t pairs = knn.queries.rows * knn.vectors.rows;
        std::vector<cuda_sim_range> ranges = {
                {knn.vectors.data, knn.vectors.bytes(), 0},
                {knn.queries.data, knn.queries.bytes(), 0},
                writes(distances, pairs)};
        check(launch("allPairwiseDistanceOnDevice",
                     stream,
                     ranges,
                     [=] { knn.allPairs(view(distances)); }),
              "allPairwiseDistanceOnDevice");
    } else if (args.outIndicesType == IndicesDataType::I64) {
#if CUDA_SIM_FAISS_VERSION < 10704
        DeviceTensor<int, 2, true> narrow(
                res,
                makeTempAlloc(AllocType::Other, stream),
                {args.numQueries, args.k});
        enqueueSearch(
                "bfKnnOnDevice", knn, args.k, distances, narrow.data(), stream);
        withLabels(static_cast<idx_t*>(args.outIndices), [&](idx_t* labels) {
            widen(narrow.data(), labels, results, stream);
        });
#else
        withLabels(static_cast<idx_t*>(args.outIndices), [&](idx_t* labels) {
            enqueueSearch(
                    "bfKnnOnDevice", knn, args.k, distances, labels, stream);
        });
#endif
    } else if (args.outIndicesType == IndicesDataType::I32) {
        withLabels(static_cast<int*>(args.outIndices), [&](int* labels) {
            enqueueSearch(
                    "bfKnnOnDevice", knn, args.k, distances, labels, stream);
        });
    } else {
        FAISS_THROW_MSG("unknown outIndicesType");
    }
    (void)results;

    fromDevice<float, 2>(outDistances, args.outDistances, stream);
}

} // namespace

void bfKnn(GpuResourcesProvider* res, const GpuDistanceParams& args) {
    FAISS_THROW_IF_NOT_MSG(
            args.vectorType == args.queryType,
            "limitation: both vectorType and queryType must currently "
            "be the same (F32 or F16");
    if (args.vectorType == DistanceDataType::F32) {
        bfKnnOf<float>(res, args);
    } else if (args.vectorType == DistanceDataType::F16) {
        bfKnnOf<half>(res, args);
    } else {
        FAISS_THROW_MSG("unknown vectorType");
    }
}

} // namespace gpu
} // namespace faiss
