#pragma once

extern "C" {

/// Reports the call of a function that is not modelled, and returns
/// cudaErrorNotSupported, or the error that the call fails with anyway.
int cuda_sim_unmodelled(const char* function, const void* caller);

} // extern "C"
