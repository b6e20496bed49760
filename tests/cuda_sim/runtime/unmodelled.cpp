// Every other function of the runtime exists, and fails the test by its name.
// Their true parameters do not matter, so no CUDA header may be seen here.

#include "Unmodelled.h"

#define CUDA_SIM_UNMODELLED(name)                                       \
    extern "C" int name() {                                             \
        return cuda_sim_unmodelled(#name, __builtin_return_address(0)); \
    }
#include "unmodelled_functions.inc"
