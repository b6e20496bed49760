#pragma once

#include <optional>
#include <string>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/exact/TensorArithmetic.h>

namespace faiss_ext {
namespace gpu {

/// Which kernels find neighbours.
enum class SearchKernels {
    /// The exact engine's where it was measured to be faster, else Faiss' own.
    Fastest,
    Faiss,
    Exact,
};

/// Those that StagedConfig::search names, or, where that is empty, the
/// environment variable FAISS_EXT_SEARCH; the fastest where that is empty too.
/// Throws InvalidArray for any other name.
FAISS_EXT_API SearchKernels chosenKernels(const std::string& config);

/// How the tensor cores of a GPU add, of that compute capability; nothing where
/// that is not known.
FAISS_EXT_API std::optional<exact::TensorArithmetic> tensorArithmeticOf(
        int major, int minor);

/// Whether the exact engine was measured on such GPUs, and is faster there.
FAISS_EXT_API bool exactIsFastest(int major, int minor);

/// Which kernels search an index and, where the exact engine was asked for, why
/// others do; in words that live for ever, for profiles and TransferStats.
namespace searched_by {
constexpr const char* kExact = "the exact engine";
constexpr const char* kFaiss = "Faiss' kernels";
constexpr const char* kOtherMetric =
        "Faiss' kernels: the exact engine has L2 and the inner product only";
constexpr const char* kOtherIndex =
        "Faiss' kernels: the exact engine searches flat indexes with float32 "
        "queries only";
constexpr const char* kOtherStore =
        "Faiss' kernels: the index is searched by cuVS";
constexpr const char* kTooManyVectors =
        "Faiss' kernels: the exact engine takes up to 2^32 - 1 vectors";
constexpr const char* kUnknownGpu =
        "Faiss' kernels: the exact engine knows GPUs of compute capability 9.0 "
        "and 8.x only";
constexpr const char* kNotMeasured =
        "Faiss' kernels: the exact engine was not measured on this GPU; "
        "StagedConfig::search = \"exact\" or FAISS_EXT_SEARCH=exact chooses it";
constexpr const char* kFailedSelfTest =
        "Faiss' kernels: this GPU's tensor cores have failed the exact "
        "engine's self-test";
constexpr const char* kNoSelfTest =
        "Faiss' kernels: cuBLAS has failed in the exact engine's self-test, "
        "which the next search makes again";
constexpr const char* kNoMemoryForSelfTest =
        "Faiss' kernels: there was no memory for the exact engine's self-test";
} // namespace searched_by

} // namespace gpu
} // namespace faiss_ext
