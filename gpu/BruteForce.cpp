#include <faiss_ext/gpu/BruteForce.h>

#include <faiss/gpu/GpuResources.h>

#include <type_traits>

#include <faiss_ext/gpu/ConvertRows.h>
#include <faiss_ext/gpu/CudaHandles.h>
#include <faiss_ext/gpu/FaissVersion.h>
#include <faiss_ext/gpu/MemoryPlacement.h>

namespace faiss_ext {
namespace gpu {

namespace {

using faiss::gpu::IndicesDataType;

constexpr bool kFaissHasNarrowLabels = std::is_same_v<StoreLabel, int>;
constexpr IndicesDataType kFaissLabels =
        kFaissHasNarrowLabels ? IndicesDataType::I32 : IndicesDataType::I64;
constexpr DataType kInt32{DataType::Kind::Int, 32};
constexpr DataType kInt64{DataType::Kind::Int, 64};

} // namespace

void bfKnn(
        faiss::gpu::GpuResourcesProvider* provider,
        const faiss::gpu::GpuDistanceParams& arguments) {
    const idx_t count = static_cast<idx_t>(arguments.numQueries) * arguments.k;
    const bool wide = arguments.outIndicesType == IndicesDataType::I64;
    const auto resources = provider->getResources();
    const RelaxedCapture relaxed;
    const cudaStream_t stream = resources->getDefaultStreamCurrentDevice();
    refuseCapture(stream, "the resources");
    // Memory that Faiss would allocate and free is not worth it: that waits.
    if (arguments.outIndicesType == kFaissLabels || count <= 0 ||
        !arguments.outIndices ||
        count * sizeof(StoreLabel) >
                resources->getTempMemoryAvailableCurrentDevice() ||
        placementOf(arguments.outIndices, count * (wide ? 8 : 4), "I")
                .onHost()) {
        faiss::gpu::bfKnn(provider, arguments);
        return;
    }
    auto labels = resources->allocMemoryHandle(faiss::gpu::AllocRequest(
            faiss::gpu::makeTempAlloc(faiss::gpu::AllocType::Other, stream),
            count * sizeof(StoreLabel)));
    auto asFaissHasThem = arguments;
    asFaissHasThem.outIndices = labels.get();
    asFaissHasThem.outIndicesType = kFaissLabels;
    faiss::gpu::bfKnn(provider, asFaissHasThem);
    convertRows(
            {labels.get(),
             wide ? kInt32 : kInt64,
             1,
             count,
             0,
             sizeof(StoreLabel)},
            wide ? kInt64 : kInt32,
            arguments.outIndices,
            stream);
}

} // namespace gpu
} // namespace faiss_ext
