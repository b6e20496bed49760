#pragma once

#include <Python.h>
#include <cuda_runtime_api.h>

#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/cuda/CudaHandles.h>

namespace faiss_ext {

/// Python objects whose memory a stream still uses: arrays of calls that have
/// returned before their work was done.
///
/// Any thread, with or without the interpreter's lock: no method touches an
/// object, and none wants that lock. Its events are used again, so that calls
/// in steady state make none.
class InFlight {
   public:
    /// What is given up: references that now are the caller's, for `giveUp`.
    using Done = std::vector<PyObject*>;

    /// That of this process.
    static InFlight& ofProcess();

    /// Keeps `owners`, a reference that this takes over, until `stream` of GPU
    /// `device`, which is current, has done what it holds now; `andThen`,
    /// streams of that GPU, go on behind that. Does not wait. Throws CudaError;
    /// then the reference is still the caller's.
    void keep(
            cudaStream_t stream,
            int device,
            PyObject* owners,
            const std::vector<cudaStream_t>& andThen);

    /// `later` comes after what `earlier` holds now; both of GPU `device`,
    /// which is current. Does not wait. Throws CudaError.
    void order(cudaStream_t earlier, cudaStream_t later, int device);

    /// What is no longer in use: the work is done, or the GPU is lost, and the
    /// call whose work it was tells of that. Does not wait, and asks for one
    /// mark of a stream more than there are to give up, however many are left.
    Done takeDone();

    /// Everything, once the work is done; also frees the events. What cannot be
    /// waited for is kept for ever.
    Done takeAll();

    /// With the interpreter's lock: gives up references.
    static void giveUp(Done& done);

   private:
    struct Kept {
        gpu::Event mark;
        PyObject* owners;
    };

    gpu::Event takeEvent(int device);
    void putBack(int device, gpu::Event event);

    std::mutex mutex_;
    /// By stream and GPU, in the order in which the marks are reached.
    std::map<std::pair<cudaStream_t, int>, std::deque<Kept>> lines_;
    /// Events without use, by GPU: as many as were in use at a time.
    std::map<int, std::vector<gpu::Event>> idle_;
};

/// What in_flight.py calls, with the interpreter's lock, which they release
/// where CUDA is called. They return None, or nullptr with an exception set.
PyObject* keepInFlight(cudaStream_t stream, int device, PyObject* owners);
PyObject* letGo();
PyObject* finishInFlight();

} // namespace faiss_ext
