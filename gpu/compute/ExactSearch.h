#pragma once

#include <faiss/gpu/GpuResources.h>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/ExactVectors.h>

namespace faiss_ext {
namespace gpu {

/// What an exact search is made with.
struct ExactSearch {
    faiss::gpu::GpuResources& resources;
    int device;
    ExactVectors& kept;
    VectorsView vectors;
    exact::Metric metric;
    exact::TensorArithmetic arithmetic;
    /// The GPU has launchFusedFilter().
    bool fusedFilter;
    /// How often the vectors have changed.
    uint64_t changes;
    ExactSizes most;
    TransferCounters& counters;
};

} // namespace gpu
} // namespace faiss_ext
