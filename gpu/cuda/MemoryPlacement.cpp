#include <faiss_ext/gpu/cuda/MemoryPlacement.h>

#include <string>

#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

cudaPointerAttributes attributesAt(const void* address) {
    cudaPointerAttributes attributes{};
    FAISS_EXT_CUDA_TRY(cudaPointerGetAttributes(&attributes, address));
    return attributes;
}

MemoryPlacement placementAt(const void* address) {
    const cudaPointerAttributes attributes = attributesAt(address);
    switch (attributes.type) {
        case cudaMemoryTypeDevice:
            return {MemoryKind::Device, attributes.device};
        case cudaMemoryTypeHost:
            return {MemoryKind::Pinned, -1};
        case cudaMemoryTypeManaged:
            return {MemoryKind::Managed, -1};
        default:
            return {MemoryKind::Pageable, -1};
    }
}

} // namespace

MemoryPlacement placementOf(
        const void* data, size_t bytes, const char* argument) {
    const MemoryPlacement first = placementAt(data);
    if (first.kind == MemoryKind::Pageable) {
        return first;
    }
    const MemoryPlacement last =
            placementAt(static_cast<const char*>(data) + (bytes - 1));
    if (first.kind == last.kind && first.device == last.device) {
        return first;
    }
    if (first.onHost() && last.onHost()) {
        return {MemoryKind::Pageable, -1};
    }
    throw InvalidArray(
            std::string(argument) + " is shorter than the " +
            std::to_string(bytes) + " bytes that this call needs");
}

int allocatingDevice(const void* data) {
    const cudaPointerAttributes attributes = attributesAt(data);
    return attributes.type == cudaMemoryTypeUnregistered ? -1
                                                         : attributes.device;
}

} // namespace gpu
} // namespace faiss_ext
