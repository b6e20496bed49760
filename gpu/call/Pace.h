#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <vector>

#include <faiss_ext/gpu/cuda/CudaHandles.h>

namespace faiss_ext {
namespace gpu {

/// How far the thread that enqueues a call is ahead of the GPU, as estimated:
/// so that a call that an interrupt ends has little left in flight.
class Pace {
   public:
    /// `spare`: events kept from call to call, which outlive this.
    explicit Pace(std::vector<Event>& spare) : spare_(spare) {}
    ~Pace();

    Pace(const Pace&) = delete;
    Pace& operator=(const Pace&) = delete;

    /// Whether work of so many seconds is to wait for earlier work, lest more
    /// than `most` be enqueued. Not for the last piece of it: while the host
    /// sees that one end, and enqueues the next, the GPU is not to run empty.
    bool tooFar(double seconds, double most) const {
        return pieces_.size() > 1 && ahead_ + seconds > most;
    }

    /// The end of the earliest work, if there is any.
    const Event& earliest() const {
        return pieces_.front().end;
    }
    void earliestIsDone();

    /// Work of so many seconds has been enqueued on `stream`. Throws CudaError.
    void enqueued(double seconds, cudaStream_t stream);

   private:
    struct Piece {
        Event end;
        double seconds;
    };

    std::vector<Event>& spare_;
    std::deque<Piece> pieces_;
    double ahead_ = 0;
};

} // namespace gpu
} // namespace faiss_ext
