#include <faiss_ext/gpu/index/BruteForce.h>

#include <faiss/gpu/GpuResources.h>

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>

#include <faiss_ext/gpu/arrays/ConvertRows.h>
#include <faiss_ext/gpu/compute/kernels/FillMissing.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Devices.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/faiss/FaissVersion.h>

namespace faiss_ext {
namespace gpu {

namespace {

using faiss::gpu::IndicesDataType;

constexpr bool kFaissHasNarrowLabels = std::is_same_v<StoreLabel, int>;
constexpr IndicesDataType kFaissLabels =
        kFaissHasNarrowLabels ? IndicesDataType::I32 : IndicesDataType::I64;
constexpr DataType kInt32{DataType::Kind::Int, 32};
constexpr DataType kInt64{DataType::Kind::Int, 64};

/// Whether the host may write it at once; else the current GPU may.
bool ofHostAlone(const void* data, size_t bytes, const char* argument) {
    if (!data) {
        throw InvalidArray(std::string(argument) + " is null; give an array");
    }
    const auto place = placementOf(data, bytes, argument);
    int current = -1;
    FAISS_EXT_CUDA_TRY(cudaGetDevice(&current));
    if (place.kind == MemoryKind::Device && place.device != current) {
        throw InvalidArray(
                std::string(argument) + " is on GPU " +
                std::to_string(place.device) + ", and the search on GPU " +
                std::to_string(current) +
                "; give an array on that GPU or in host memory");
    }
    return place.kind == MemoryKind::Pageable ||
           place.kind == MemoryKind::Pinned;
}

/// What a search among no vectors finds, which Faiss refuses.
template <typename Label>
void findNone(
        const faiss::gpu::GpuDistanceParams& arguments, cudaStream_t stream) {
    const idx_t count = static_cast<idx_t>(arguments.numQueries) * arguments.k;
    const float distance = distanceOfMissing(arguments.metric);
    float* distances = arguments.outDistances;
    auto* labels = static_cast<Label*>(arguments.outIndices);
    if (!distances && arguments.ignoreOutDistances) {
        // Not asked for.
    } else if (ofHostAlone(distances, count * sizeof(float), "D")) {
        std::fill_n(distances, count, distance);
        distances = nullptr;
    }
    if (ofHostAlone(labels, count * sizeof(Label), "I")) {
        std::fill_n(labels, count, -1);
        labels = nullptr;
    }
    if (distances || labels) {
        FAISS_EXT_CUDA_TRY(
                launchFillMissing(distances, labels, count, distance, stream));
    }
}

} // namespace

void bfKnn(
        faiss::gpu::GpuResourcesProvider* provider,
        const faiss::gpu::GpuDistanceParams& arguments) {
    const idx_t count = static_cast<idx_t>(arguments.numQueries) * arguments.k;
    const bool wide = arguments.outIndicesType == IndicesDataType::I64;
    const auto resources = provider->getResources();
    std::optional<DeviceGuard> current;
    if (const int device = namedDevice(arguments, 0); device != -1) {
        checkDevice(device, "device");
        current.emplace(device);
    }
    const RelaxedCapture relaxed;
    const cudaStream_t stream = resources->getDefaultStreamCurrentDevice();
    refuseCapture(stream, "the resources");
    if (arguments.numVectors == 0 && count > 0) {
        wide ? findNone<int64_t>(arguments, stream)
             : findNone<int32_t>(arguments, stream);
        return;
    }
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
