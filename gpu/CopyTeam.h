#pragma once

#include <sys/types.h>

#include <cstddef>
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
    CopyTeam();
    /// Nobody is copying.
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

   private:
    class Job;
    class Workers;

    const pid_t process_;
    std::unique_ptr<Workers> workers_;
};

} // namespace gpu
} // namespace faiss_ext
