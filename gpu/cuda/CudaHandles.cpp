#include <faiss_ext/gpu/cuda/CudaHandles.h>

#include <string>
#include <typeinfo>
#include <utility>

#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// How many RelaxedCapture this thread has.
thread_local int relaxedScopes = 0;

/// Errors of stream capture, which never mean that the context is lost.
bool isOfCapture(cudaError_t error) {
    return error >= cudaErrorStreamCaptureUnsupported &&
           error <= cudaErrorStreamCaptureWrongThread;
}

/// Whether `ask` fails each time, as it does where the context is lost, and
/// with an error that may mean that.
template <typename Ask>
bool keepsFailing(const Ask& ask) {
    for (int attempt = 0; attempt < 2; ++attempt) {
        const cudaError_t state = ask();
        cudaGetLastError();
        if (state == cudaSuccess || state == cudaErrorNotReady ||
            isOfCapture(state)) {
            return false;
        }
    }
    return true;
}

} // namespace

DeviceGuard::DeviceGuard(int device) : previous_(-1), changed_(false) {
    FAISS_EXT_CUDA_TRY(cudaGetDevice(&previous_));
    if (previous_ != device) {
        try {
            FAISS_EXT_CUDA_TRY(cudaSetDevice(device));
        } catch (const CudaError&) {
            // A lost GPU may be current all the same.
            FAISS_EXT_CUDA_NOTHROW(cudaSetDevice(previous_));
            throw;
        }
        changed_ = true;
    }
}

DeviceGuard::~DeviceGuard() {
    if (changed_) {
        FAISS_EXT_CUDA_NOTHROW(cudaSetDevice(previous_));
    }
}

CodeOfOthers::CodeOfOthers() noexcept {
    FAISS_EXT_CUDA_NOTHROW(cudaGetDevice(&device_));
}

CodeOfOthers::~CodeOfOthers() {
    if (lostByFork()) {
        return;
    }
    int now = device_;
    // To set it anew may begin a context on a GPU that this thread never used.
    if (cudaGetDevice(&now) == cudaSuccess && device_ >= 0 && now != device_) {
        cudaSetDevice(device_);
    }
    cudaGetLastError();
}

RelaxedCapture::RelaxedCapture() noexcept : exchanged_(false) {
    // Those within another one need not ask CUDA.
    if (relaxedScopes++ == 0 && !lostByFork()) {
        exchanged_ = cudaThreadExchangeStreamCaptureMode(&mode_) == cudaSuccess;
        if (!exchanged_) {
            cudaGetLastError();
        }
    }
}

RelaxedCapture::~RelaxedCapture() {
    --relaxedScopes;
    if (exchanged_) {
        FAISS_EXT_CUDA_NOTHROW(cudaThreadExchangeStreamCaptureMode(&mode_));
    }
}

void refuseCapture(cudaStream_t stream, const char* whose) {
    beforeCuda();
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaError_t error = cudaStreamIsCapturing(stream, &status);
    if (isOfCapture(error)) {
        // The legacy default stream, while one that joins it is captured.
        cudaGetLastError();
        status = cudaStreamCaptureStatusActive;
    } else {
        FAISS_EXT_CUDA_TRY(error);
    }
    if (status != cudaStreamCaptureStatusNone) {
        throw Unsupported(
                std::string(whose) +
                ": its stream is being captured into a CUDA graph, which "
                "cannot hold work of a GPU index; make this call before the "
                "capture begins or after it has ended. Nothing was enqueued, "
                "and the capture " +
                (status == cudaStreamCaptureStatusActive
                         ? "goes on unharmed"
                         : "had failed before"));
    }
}

bool contextLost(cudaStream_t stream) noexcept {
    if (lostByFork()) {
        return true;
    }
    const RelaxedCapture relaxed;
    return keepsFailing([stream] {
        // A stream that is being captured may not be asked how far it is.
        cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
        const cudaError_t error = cudaStreamIsCapturing(stream, &status);
        return error == cudaSuccess && status == cudaStreamCaptureStatusNone
                       ? cudaStreamQuery(stream)
                       : error;
    });
}

void throwIfContextLost(cudaStream_t stream) {
    const RelaxedCapture relaxed;
    if (contextLost(stream)) {
        FAISS_EXT_CUDA_TRY(cudaStreamQuery(stream));
    }
}

void rethrowUnlessOutOfMemory(
        const faiss::FaissException& e, cudaStream_t stream) {
    const bool outOfMemory = isOutOfMemory(e);
    // What Faiss says of a lost context is no CudaError yet.
    if (outOfMemory || typeid(e) == typeid(faiss::FaissException)) {
        throwIfContextLost(stream);
    }
    if (!outOfMemory) {
        throw;
    }
}

void waitForDevice(int device) noexcept {
    try {
        DeviceGuard current(device);
        const RelaxedCapture relaxed;
        // cudaFree waits for all that the device does, on which Faiss counts,
        // too; and unlike cudaDeviceSynchronize it may do so during a capture.
        void* unused = nullptr;
        if (cudaMalloc(&unused, 1) != cudaSuccess ||
            cudaFree(unused) != cudaSuccess) {
            cudaGetLastError();
            FAISS_EXT_CUDA_NOTHROW(cudaDeviceSynchronize());
        }
    } catch (const CudaError&) {
        // Lost: it does nothing any more.
    }
}

Event::Event() : Event(cudaEventDisableTiming) {}

Event::Event(unsigned flags) {
    FAISS_EXT_CUDA_TRY(cudaEventCreateWithFlags(&event_, flags));
}

Event::~Event() {
    if (event_) {
        FAISS_EXT_CUDA_NOTHROW(cudaEventDestroy(event_));
    }
}

Event::Event(Event&& other) noexcept
        : event_(std::exchange(other.event_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
}

void Event::record(cudaStream_t stream) {
    FAISS_EXT_CUDA_TRY(cudaEventRecord(event_, stream));
}

void Event::orderBefore(cudaStream_t stream) const {
    FAISS_EXT_CUDA_TRY(cudaStreamWaitEvent(stream, event_, 0));
}

void Event::wait() const {
    const RelaxedCapture relaxed;
    FAISS_EXT_CUDA_TRY(cudaEventSynchronize(event_));
}

bool Event::reached() const {
    beforeCuda();
    const RelaxedCapture relaxed;
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) {
        // Not a failure, yet it is left in the thread's last-error slot.
        cudaGetLastError();
        return false;
    }
    FAISS_EXT_CUDA_TRY(status);
    return true;
}

bool Event::isOver() const noexcept {
    const RelaxedCapture relaxed;
    bool reached = false;
    return keepsFailing([&] {
               const cudaError_t state = cudaEventQuery(event_);
               reached = state == cudaSuccess;
               return state;
           }) ||
           reached;
}

TimingEvent::TimingEvent() : Event(cudaEventDefault) {}

double TimingEvent::secondsSince(const TimingEvent& earlier) const {
    float milliseconds = 0;
    FAISS_EXT_CUDA_TRY(
            cudaEventElapsedTime(&milliseconds, earlier.event_, event_));
    return milliseconds / 1e3;
}

Stream::Stream() {
    FAISS_EXT_CUDA_TRY(
            cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}

Stream::~Stream() {
    if (stream_) {
        FAISS_EXT_CUDA_NOTHROW(cudaStreamDestroy(stream_));
    }
}

Stream::Stream(Stream&& other) noexcept
        : stream_(std::exchange(other.stream_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
}

} // namespace gpu
} // namespace faiss_ext
