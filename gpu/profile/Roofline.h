#pragma once

#include <string>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/profile/ComputeWork.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>

namespace faiss_ext {
namespace gpu {

/// What CUDA says of a GPU (cudaDeviceGetAttribute); 0: it does not.
struct GpuFigures {
    int major;
    int minor;
    int multiprocessors;
    /// Peak, in kHz.
    int clock;
    int memoryClock;
    /// In bits.
    int memoryBus;
};

/// Of the GPU `device`. Throws CudaError.
FAISS_EXT_API GpuFigures figuresOf(int device);

/// What a GPU does at most, each second.
struct GpuPeaks {
    bool known = false;
    double tensorOperations = 0;
    double floatInstructions = 0;
    double bytes = 0;
    /// "1071 Tflop/s by tensor cores, ..." or "not known ...".
    std::string text;
};

/// Pure. Known for compute capability 9.0, where the exact engine was measured.
FAISS_EXT_API GpuPeaks peaksOf(const GpuFigures& gpu);

/// Seconds that the GPU needs at the least: the longest of what its tensor
/// cores, its other units and its memory need, as these work side by side. -1:
/// not known. `paths`: of all queries, of which some may need it.
FAISS_EXT_API double floorSeconds(
        const ComputeWork& work,
        const QueryPaths& paths,
        const GpuPeaks& peaks);

/// The time of all spans of one name, in the order in which the first of each
/// begins. `works[i]`: of spans[i].
FAISS_EXT_API std::vector<ComputeStage> computeStages(
        const std::vector<ComputeSpan>& spans,
        const std::vector<ComputeWork>& works,
        const QueryPaths& paths,
        const GpuPeaks& peaks);

} // namespace gpu
} // namespace faiss_ext
