// What the conformance programs share. They use the CUDA runtime alone, so the
// same executable runs on the simulator and on a GPU, and must say the same.

#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#define CHECK_CUDA(call) ASSERT_EQ(cudaSuccess, (call)) << #call

namespace conformance {

/// Blocks a stream until the program opens it.
class Latch {
   public:
    ~Latch() {
        open();
    }
    /// Enqueues itself.
    cudaError_t close(cudaStream_t stream) {
        return cudaLaunchHostFunc(stream, &wait, this);
    }
    void open() {
        open_ = true;
    }

   private:
    static void CUDART_CB wait(void* self) {
        while (!static_cast<Latch*>(self)->open_) {
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
    }
    std::atomic<bool> open_{false};
};

/// A stream that goes with its scope.
class Stream {
   public:
    explicit Stream(unsigned flags = cudaStreamNonBlocking) {
        EXPECT_EQ(cudaSuccess, cudaStreamCreateWithFlags(&stream_, flags));
    }
    ~Stream() {
        if (stream_) {
            EXPECT_EQ(cudaSuccess, cudaStreamDestroy(stream_));
        }
    }
    cudaStream_t release() {
        auto stream = stream_;
        stream_ = nullptr;
        return stream;
    }
    operator cudaStream_t() const {
        return stream_;
    }

   private:
    cudaStream_t stream_ = nullptr;
};

class Event {
   public:
    explicit Event(unsigned flags = cudaEventDisableTiming) {
        EXPECT_EQ(cudaSuccess, cudaEventCreateWithFlags(&event_, flags));
    }
    ~Event() {
        EXPECT_EQ(cudaSuccess, cudaEventDestroy(event_));
    }
    operator cudaEvent_t() const {
        return event_;
    }

   private:
    cudaEvent_t event_ = nullptr;
};

/// Memory on the device, or pinned.
template <typename T>
class Buffer {
   public:
    Buffer(size_t count, bool pinned) : count_(count), pinned_(pinned) {
        void* data = nullptr;
        EXPECT_EQ(
                cudaSuccess,
                pinned ? cudaMallocHost(&data, bytes())
                       : cudaMalloc(&data, bytes()));
        data_ = static_cast<T*>(data);
    }
    ~Buffer() {
        EXPECT_EQ(cudaSuccess, pinned_ ? cudaFreeHost(data_) : cudaFree(data_));
    }
    size_t bytes() const {
        return count_ * sizeof(T);
    }
    T* get() const {
        return data_;
    }
    T& operator[](size_t i) const {
        return data_[i];
    }

   private:
    size_t count_;
    bool pinned_;
    T* data_ = nullptr;
};

template <typename T>
Buffer<T> onDevice(size_t count) {
    return {count, false};
}

template <typename T>
Buffer<T> pinned(size_t count) {
    return {count, true};
}

inline std::vector<int> counting(size_t count, int first = 0) {
    std::vector<int> values(count);
    for (size_t i = 0; i < count; ++i) {
        values[i] = first + static_cast<int>(i);
    }
    return values;
}

} // namespace conformance
