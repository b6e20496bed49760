#include <faiss_ext/gpu/compute/SearchChoice.h>

#include <cstdlib>

#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

namespace {

constexpr const char* kVariable = "FAISS_EXT_SEARCH";

} // namespace

SearchKernels chosenKernels(const std::string& config) {
    std::string name = config;
    if (name.empty()) {
        const char* const set = std::getenv(kVariable);
        name = set ? set : "";
    }
    if (name.empty()) {
        return SearchKernels::Fastest;
    }
    if (name == "faiss") {
        return SearchKernels::Faiss;
    }
    if (name == "exact") {
        return SearchKernels::Exact;
    }
    throw InvalidArray(
            std::string(config.empty() ? kVariable : "StagedConfig::search") +
            " is '" + name + "'; give 'exact' or 'faiss'");
}

std::optional<exact::TensorArithmetic> tensorArithmeticOf(
        int major, int minor) {
    if (major == 9 && minor == 0) {
        return exact::hopperArithmetic();
    }
    if (major == 8) {
        return exact::ampereArithmetic();
    }
    return std::nullopt;
}

bool exactIsFastest(int major, int minor) {
    return major == 9 && minor == 0;
}

} // namespace gpu
} // namespace faiss_ext
