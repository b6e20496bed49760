#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace scenarios {

/// How a child process ended and what it had to say.
struct Ended {
    /// The exit status, or -1 if a signal ended it.
    int status;
    std::string text;
};

/// Runs `work` in a process of its own, which has a fresh simulator (one that
/// has seen many runs is slow), and which may abort or hang: after `seconds`
/// it is ended. `work` returns the exit status and adds to the text; what the
/// process writes to stderr goes there, too.
///
/// The calling process must not have made any CUDA call: threads do not
/// survive the fork.
Ended inChild(
        unsigned seconds, const std::function<int(std::string& text)>& work);

} // namespace scenarios
