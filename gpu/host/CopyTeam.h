#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// One stretch of host memory to copy to another.
struct HostCopy {
    void* destination;
    const void* source;
    size_t bytes;
    /// The GPU reads the destination next, and no CPU: it is written past the
    /// caches, from which the GPU would have to fetch it line by line.
    bool forGpu = false;
};

/// When the host did something.
struct HostInterval {
    using Clock = std::chrono::steady_clock;
    Clock::time_point begin;
    Clock::time_point end;

    /// What of it comes after a moment; nothing, at that moment, if it is over.
    HostInterval after(Clock::time_point moment) const {
        return {std::max(begin, moment), std::max(end, moment)};
    }
};

/// Threads that copy between host memories together with the thread that asks
/// them to: one alone is slower than the link to the GPU, by far where it is
/// the first to touch the pages it writes.
///
/// Threads are started by the first copy that wants them, sleep in between, and
/// end with the object. They make no CUDA call, so a CUDA host function may
/// wait for them. In a process that was forked from the one that made the
/// object there are none, and each caller copies alone.
class FAISS_EXT_API CopyTeam {
   public:
    class Ahead;

    CopyTeam();
    /// Nobody is copying, and no Ahead is left.
    ~CopyTeam();

    CopyTeam(const CopyTeam&) = delete;
    CopyTeam& operator=(const CopyTeam&) = delete;

    /// Makes the copies, and returns when all are made. They are cut where the
    /// address of the destination is a multiple of chunkBytes >= 1, so that no
    /// two threads touch a page first, if that is a multiple of the page size;
    /// as many threads take part as there are chunkBytes in all the copies, and
    /// `threads` at most, the calling one among them. Fewer, if no more can be
    /// started.
    ///
    /// Any number of threads may call at once; the team has the greatest
    /// `threads` less one that were ever asked for.
    void copy(
            const std::vector<HostCopy>& copies,
            int threads,
            size_t chunkBytes) noexcept;

    /// Begins such copies, without the calling thread, which goes on; one chunk
    /// is worth a thread. The team works at what was asked for first before it
    /// begins with the next. nullptr if it is to have no threads, or is of the
    /// process that this one was forked from.
    std::unique_ptr<Ahead> copyAhead(
            std::vector<HostCopy> copies, int threads, size_t chunkBytes);

   private:
    class Job;
    class Workers;

    bool hasThreads() const;

    /// What tells the process that made it (ProcessLife.h).
    const uint32_t forks_;
    std::unique_ptr<Workers> workers_;
};

/// Copies that the team makes while the thread that asked for them does
/// something else. The team outlives it.
class FAISS_EXT_API CopyTeam::Ahead {
   public:
    /// What has not begun is left undone; nothing is under way any more.
    ~Ahead();

    Ahead(const Ahead&) = delete;
    Ahead& operator=(const Ahead&) = delete;

    /// Returns when all are made, with the calling thread's help.
    void finish() noexcept;

    /// From the first one's begin to the last one's end; once they are made.
    HostInterval interval() const noexcept;

   private:
    friend class CopyTeam;

    Ahead(std::vector<HostCopy>&& copies,
          int threads,
          size_t chunkBytes,
          Workers& workers);

    const std::vector<HostCopy> copies_;
    const std::unique_ptr<Job> job_;
    /// nullptr once it is finished.
    Workers* workers_;
};

} // namespace gpu
} // namespace faiss_ext
