#include <faiss_ext/gpu/profile/Roofline.h>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>

#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

// For each multiprocessor and clock, of compute capability 9.0.
//
// Half precision, summed in float32, without sparsity. NVIDIA's H100 white
// paper has four tensor cores a multiprocessor, each with 512 fused
// multiply-adds a clock: 989.4 Tflop/s of 132 at 1.83 GHz. (One wgmma of 64 x
// 256 x 16 takes 128 clocks.)
constexpr double kTensorOperations = 4 * 512 * 2;
// CUDA C++ Programming Guide, table "Throughput of Native Arithmetic
// Instructions": 32-bit floating-point add, multiply, multiply-add.
constexpr double kFloatInstructions = 128;

// Of memory: HBM moves data at both edges of its clock.
constexpr double kEdges = 2;
constexpr double kBitsOfByte = 8;
constexpr double kHertzOfKilohertz = 1e3;

int64_t queriesOf(ComputeWork::Of of, const QueryPaths& paths) {
    switch (of) {
        case ComputeWork::Of::Filtered:
            return paths.certified + paths.widened;
        case ComputeWork::Of::Widened:
            return paths.widened;
        case ComputeWork::Of::Last:
            return paths.last;
        case ComputeWork::Of::All:
            break;
    }
    return paths.certified + paths.widened + paths.last;
}

template <typename... Values>
std::string format(const char* form, Values... values) {
    char text[160];
    std::snprintf(text, sizeof(text), form, values...);
    return text;
}

} // namespace

GpuFigures figuresOf(int device) {
    const auto ask = [device](cudaDeviceAttr attribute) {
        int value = 0;
        FAISS_EXT_CUDA_TRY(cudaDeviceGetAttribute(&value, attribute, device));
        return value;
    };
    return {ask(cudaDevAttrComputeCapabilityMajor),
            ask(cudaDevAttrComputeCapabilityMinor),
            ask(cudaDevAttrMultiProcessorCount),
            ask(cudaDevAttrClockRate),
            ask(cudaDevAttrMemoryClockRate),
            ask(cudaDevAttrGlobalMemoryBusWidth)};
}

GpuPeaks peaksOf(const GpuFigures& gpu) {
    GpuPeaks peaks;
    if (gpu.major != 9 || gpu.minor != 0) {
        peaks.text = format(
                "not known for compute capability %d.%d", gpu.major, gpu.minor);
        return peaks;
    }
    if (gpu.multiprocessors <= 0 || gpu.clock <= 0 || gpu.memoryClock <= 0 ||
        gpu.memoryBus <= 0) {
        peaks.text = "not known, as CUDA does not tell the GPU's clocks";
        return peaks;
    }
    const double clocks = gpu.multiprocessors * (gpu.clock * kHertzOfKilohertz);
    peaks.known = true;
    peaks.tensorOperations = clocks * kTensorOperations;
    peaks.floatInstructions = clocks * kFloatInstructions;
    peaks.bytes = gpu.memoryClock * kHertzOfKilohertz * kEdges * gpu.memoryBus /
                  kBitsOfByte;
    peaks.text = format(
            "%.0f Tflop/s by tensor cores, %.1fe12 float32 instructions/s, "
            "%.2f TB/s",
            peaks.tensorOperations / 1e12,
            peaks.floatInstructions / 1e12,
            peaks.bytes / 1e12);
    return peaks;
}

double floorSeconds(
        const ComputeWork& work,
        const QueryPaths& paths,
        const GpuPeaks& peaks) {
    if (!peaks.known || work.unknown()) {
        return -1;
    }
    double share = 1;
    if (work.of != ComputeWork::Of::All) {
        const int64_t all = queriesOf(ComputeWork::Of::All, paths);
        if (!paths.counted || all == 0) {
            return -1;
        }
        share = double(queriesOf(work.of, paths)) / all;
    }
    return share * std::max(
                           {work.tensorOperations / peaks.tensorOperations,
                            work.floatInstructions / peaks.floatInstructions,
                            work.bytes / peaks.bytes});
}

std::vector<ComputeStage> computeStages(
        const std::vector<ComputeSpan>& spans,
        const std::vector<ComputeWork>& works,
        const QueryPaths& paths,
        const GpuPeaks& peaks) {
    std::vector<ComputeStage> stages;
    for (size_t i = 0; i < spans.size(); ++i) {
        const ComputeSpan& span = spans[i];
        auto stage = std::find_if(
                stages.begin(), stages.end(), [&](const ComputeStage& known) {
                    return known.name == span.name;
                });
        const bool first = stage == stages.end();
        if (first) {
            stages.push_back({span.name});
            stage = stages.end() - 1;
        }
        ++stage->spans;
        stage->seconds += span.end - span.begin;
        const double floor = floorSeconds(works[i], paths, peaks);
        // Of all of them, or of none.
        stage->floor = floor < 0 || (!first && stage->floor < 0)
                               ? -1
                               : (first ? 0 : stage->floor) + floor;
    }
    return stages;
}

} // namespace gpu
} // namespace faiss_ext
