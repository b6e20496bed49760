#pragma once

namespace faiss_ext {

/// Puts a callback of ours in the place of the one that Faiss' Python module
/// has for interrupts, and has that module put it back after its time limits
/// (TimeoutGuard of newer Faiss). It does the same, that is, it lets the main
/// thread handle signals, but
/// - other threads, which handle none, do not wait for the interpreter's lock,
///   which they may never get once the interpreter ends: then it ends their
///   calls;
/// - the garbage collector does not run meanwhile (LockedInCall);
/// - calls that a handler makes are refused where they would wait for ever
///   (gpu::Question).
///
/// A callback that somebody else has set stays. With the interpreter's lock;
/// throws PythonError.
void installInterrupts();

} // namespace faiss_ext
