#pragma once

#include <chrono>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>

/// How the calls of this library notice that Faiss' InterruptCallback wants
/// them to end: Ctrl-C in Python, a time limit. Faiss' own code asks it between
/// the queries that it computes at once; this asks where a thread waits.
///
/// The callback may take the interpreter's lock and run any Python code, so it
/// is never asked by a thread that holds a lock which others may wait for with
/// the interpreter's lock in their hands (docs/architecture.md), nor by CUDA's
/// threads or the copying ones.

namespace faiss_ext {
namespace gpu {

/// For an InterruptCallback that runs code of others, such as the handlers of
/// signals: made by each question, of Faiss' or ours. Calls of this library in
/// such code are refused where they could wait for ever.
class FAISS_EXT_API Question {
   public:
    Question();
    ~Question();
    Question(const Question&) = delete;
    Question& operator=(const Question&) = delete;

    /// Not where code of others asks, in the midst of another question: then
    /// there is nothing to run.
    bool outermost() const {
        return outermost_;
    }

   private:
    const bool outermost_;
    const bool ofFaiss_;
};

/// Whether this thread is in the midst of a question that Faiss asks, for which
/// Faiss holds a lock that each of its computations takes now and then.
bool faissIsAsking() noexcept;

/// Throws Unsupported where a call may not be made in the midst of a question:
/// in one that Faiss asks, for which it holds a lock that the call would need,
/// and in any if the call waits for another thread, which may be waiting for
/// what this one holds.
FAISS_EXT_API void refuseInQuestion(bool waits);

/// Throws Interrupted if the callback, where there is one, says so; whatever
/// that does, the current GPU stays, and CUDA's last error is none. Asks it at
/// once, so not for small pieces of work: see InterruptClock.
FAISS_EXT_API void throwIfInterrupted();

/// Asks no more often than every tuning::kInterruptSeconds, and not before that
/// time has passed since it was made: short calls never ask.
class FAISS_EXT_API InterruptClock {
   public:
    using Clock = std::chrono::steady_clock;

    InterruptClock() : last_(Clock::now()) {}

    /// Throws Interrupted.
    void ask();

   private:
    Clock::time_point last_;
};

/// The calling thread waits until the GPU has reached `event`, and asks in
/// between. The first moments without a sleep, so that short waits end on time;
/// then about a tenth of a millisecond late. Throws CudaError as Event::wait
/// does, and Interrupted.
FAISS_EXT_API void waitUnlessInterrupted(const Event& event);

} // namespace gpu
} // namespace faiss_ext
