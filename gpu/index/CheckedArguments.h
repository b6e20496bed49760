#pragma once

#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/impl/FaissAssert.h>

#include <faiss_ext/gpu/cuda/Devices.h>

namespace faiss_ext {
namespace gpu {

// Arguments of constructors, before those of Faiss run, which end the process
// over either.

inline const faiss::gpu::GpuIndexFlatConfig& checked(
        const faiss::gpu::GpuIndexFlatConfig& config) {
    checkDevice(config.device, "config.device");
    return config;
}

template <typename Index>
Index* checked(Index* index) {
    FAISS_THROW_IF_NOT_MSG(index, "index: null; an index on the CPU is needed");
    return index;
}

} // namespace gpu
} // namespace faiss_ext
