#pragma once

#include <cuda_runtime_api.h>

#include <faiss/impl/FaissException.h>

#include <faiss_ext/gpu/Export.h>

/// Owners of CUDA's handles: move-only, freed at the end of their life.

namespace faiss_ext {
namespace gpu {

/// Makes `device` the calling thread's current device for one scope.
class FAISS_EXT_API DeviceGuard {
   public:
    /// Throws CudaError.
    explicit DeviceGuard(int device);
    ~DeviceGuard();

    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

   private:
    int previous_;
    bool changed_;
};

/// For one scope, in which the thread runs code of others, a pool's or a
/// callback's. Afterwards the same GPU is current, since work that comes next
/// would else go to another one, and no error is left behind, on which Faiss
/// would abort after its next kernel. Does not throw.
class FAISS_EXT_API CodeOfOthers {
   public:
    CodeOfOthers() noexcept;
    ~CodeOfOthers();

    CodeOfOthers(const CodeOfOthers&) = delete;
    CodeOfOthers& operator=(const CodeOfOthers&) = delete;

   private:
    int device_ = -1;
};

/// For one scope, the calling thread may ask, wait, allocate and free while
/// anybody captures a stream into a CUDA graph (stream capture mode "relaxed",
/// cudaThreadExchangeStreamCaptureMode). Without it such a call fails while
/// another thread captures in CUDA's default mode, and spoils that capture.
/// Our streams take no part in a capture (`refuseCapture`), so none of these
/// calls is missing in a graph. The outermost one of a thread makes two
/// calls to CUDA, of less than 0.3 us each on an H200. Code of others, such as
/// an array's exporter, keeps the mode that its caller chose.
///
/// cudaDeviceSynchronize spoils a capture in any mode, so it is called only
/// where nothing else tells that the GPU is done.
class FAISS_EXT_API RelaxedCapture {
   public:
    RelaxedCapture() noexcept;
    ~RelaxedCapture();

    RelaxedCapture(const RelaxedCapture&) = delete;
    RelaxedCapture& operator=(const RelaxedCapture&) = delete;

   private:
    cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
    bool exchanged_;
};

/// Throws Unsupported if `stream`, which may be a default stream of the current
/// GPU, is being captured into a CUDA graph: our work on it would become a part
/// of the graph, or end the capture. Such a capture goes on unharmed. `whose`
/// stream begins the text. Throws CudaError.
FAISS_EXT_API void refuseCapture(cudaStream_t stream, const char* whose);

/// Whether the CUDA context of `stream` is lost, so that every call fails from
/// now on, by a failure or by a fork (ProcessLife.h). Asks twice: an error that
/// goes away is another one, and so is one of stream capture. Does not wait,
/// does not throw, harms no capture.
FAISS_EXT_API bool contextLost(cudaStream_t stream) noexcept;

/// Throws CudaError if it is: for where another failure may be due to that.
FAISS_EXT_API void throwIfContextLost(cudaStream_t stream);

/// For the handler of `e`: returns where that says that memory ran out, so that
/// less may do. Throws `e` where it says something else, or CudaError where the
/// context of `stream` is lost, which is then the reason.
FAISS_EXT_API void rethrowUnlessOutOfMemory(
        const faiss::FaissException& e, cudaStream_t stream);

/// Waits until `device` has done all work of all streams, or its CUDA context
/// is lost. Does not throw. Harms no capture, unless the device has not a byte
/// of memory left.
FAISS_EXT_API void waitForDevice(int device) noexcept;

/// A CUDA event without timing, on the device that is current when it is made.
class FAISS_EXT_API Event {
   public:
    /// Throws CudaError.
    Event();
    ~Event();
    Event(Event&& other) noexcept;
    Event& operator=(Event&& other) noexcept;

    /// Marks the point that `stream` has reached; replaces an earlier mark.
    void record(cudaStream_t stream);

    /// Work enqueued later on `stream` waits for the mark; the host does not.
    /// An event without a mark counts as reached.
    void orderBefore(cudaStream_t stream) const;

    /// The calling thread waits for the mark. Throws CudaError, also for a
    /// failure of the work before the mark.
    void wait() const;

    /// Whether the mark is reached; does not wait. Throws CudaError.
    bool reached() const;

    /// Whether nothing that came before the mark uses anything any more: the
    /// mark is reached, or the context is lost, as contextLost has it. Does not
    /// wait, does not throw.
    bool isOver() const noexcept;

   protected:
    explicit Event(unsigned flags);

    cudaEvent_t event_ = nullptr;
};

/// An event that also tells when the GPU reached it.
class FAISS_EXT_API TimingEvent : public Event {
   public:
    /// Throws CudaError.
    TimingEvent();

    /// Seconds on the GPU from the mark of `earlier` to this one's, to about
    /// half a microsecond; both are reached, and on the same device. Throws
    /// CudaError.
    double secondsSince(const TimingEvent& earlier) const;
};

/// A stream that does not join the legacy default stream.
class FAISS_EXT_API Stream {
   public:
    /// Throws CudaError.
    Stream();
    ~Stream();
    Stream(Stream&& other) noexcept;
    Stream& operator=(Stream&& other) noexcept;

    cudaStream_t get() const noexcept {
        return stream_;
    }

   private:
    cudaStream_t stream_ = nullptr;
};

} // namespace gpu
} // namespace faiss_ext
