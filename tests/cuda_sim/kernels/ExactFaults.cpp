#include "ExactFaults.h"

#include <mutex>

namespace {

std::mutex faultsMutex;
cuda_sim_exact_faults allFaults{};

} // namespace

extern "C" void cuda_sim_set_exact_faults(const cuda_sim_exact_faults* faults) {
    const std::lock_guard<std::mutex> lock(faultsMutex);
    allFaults = faults ? *faults : cuda_sim_exact_faults{};
}

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace stand_in {

cuda_sim_exact_faults faults() {
    const std::lock_guard<std::mutex> lock(faultsMutex);
    return allFaults;
}

} // namespace stand_in
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
