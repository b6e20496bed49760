#pragma once

// Each scenario with each CUDA call of this library failing once, and with the
// device lost at each of them.

#include <cstdint>
#include <string>

#include "Scenario.h"

namespace scenarios {

struct Fault {
    enum Kind {
        None,
        /// The nth CUDA call of libfaiss_ext fails with `error` and does
        /// nothing; all goes on.
        Call,
        /// From the nth CUDA call of libfaiss_ext on the device is lost.
        Device,
        /// The nth operation that the device executes loses it.
        Operation,
    };
    Kind kind = None;
    uint64_t nth = 0;
    int error = 0;

    /// "call:12:2" and back.
    static Fault parse(const std::string& text);
    std::string text() const;
};

/// Runs with one fault, in this process. Empty if all went as it must, or what
/// did not.
std::string runWithFault(const Scenario& scenario, uint64_t seed, Fault fault);

/// All faults, each in a process of its own: one that aborts or hangs is told
/// like any other failure. `program` is for the command that replays one.
std::string sweepFaults(const Scenario& scenario, const std::string& program);

/// Faults that happened in all sweeps so far, and how many of them hit work
/// that Faiss had enqueued itself while it changed an index, where it aborts.
uint64_t faultsInjected();
uint64_t abortsOfFaiss();

} // namespace scenarios
