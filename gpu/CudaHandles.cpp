#include <faiss_ext/gpu/CudaHandles.h>

#include <typeinfo>
#include <utility>

#include <faiss_ext/gpu/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

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

bool contextLost(cudaStream_t stream) noexcept {
    for (int attempt = 0; attempt < 2; ++attempt) {
        const cudaError_t state = cudaStreamQuery(stream);
        cudaGetLastError();
        if (state == cudaSuccess || state == cudaErrorNotReady) {
            return false;
        }
    }
    return true;
}

void throwIfContextLost(cudaStream_t stream) {
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
        FAISS_EXT_CUDA_NOTHROW(cudaDeviceSynchronize());
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
    FAISS_EXT_CUDA_TRY(cudaEventSynchronize(event_));
}

bool Event::reached() const {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) {
        // Not a failure, yet it is left in the thread's last-error slot.
        cudaGetLastError();
        return false;
    }
    FAISS_EXT_CUDA_TRY(status);
    return true;
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
