#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Labels on the current GPU, [rows, groups * k], row-major.
template <typename Label>
struct GroupedLabels {
    Label* data;
    int64_t rows;
    int groups;
    int k;
};

/// Adds g * offset to each label of group g, columns g * k to (g + 1) * k - 1,
/// but not to a -1, which is none. In the order of `stream`; does not wait. The
/// result is CUDA's. Simulated runtimes put their own in its place.
FAISS_EXT_API cudaError_t launchOffsetLabels(
        const GroupedLabels<int32_t>& labels,
        int64_t offset,
        cudaStream_t stream);
FAISS_EXT_API cudaError_t launchOffsetLabels(
        const GroupedLabels<int64_t>& labels,
        int64_t offset,
        cudaStream_t stream);

} // namespace gpu
} // namespace faiss_ext
