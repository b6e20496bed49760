// The mistakes that a test has asked for.

#pragma once

#include "../cuda_sim_exact.h"

namespace faiss_ext {
namespace gpu {
namespace exact {
namespace stand_in {

cuda_sim_exact_faults faults();

} // namespace stand_in
} // namespace exact
} // namespace gpu
} // namespace faiss_ext
