#pragma once

// Arrays in every kind of memory, filled and read back the same way; portable
// between the simulator and a GPU.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace test {

enum class Memory { Pageable, Pinned, Managed, Device };

constexpr Memory kAllMemories[] = {
        Memory::Pageable, Memory::Pinned, Memory::Managed, Memory::Device};

inline const char* nameOf(Memory memory) {
    switch (memory) {
        case Memory::Pageable:
            return "pageable";
        case Memory::Pinned:
            return "pinned";
        case Memory::Managed:
            return "managed";
        default:
            return "device";
    }
}

inline void check(cudaError_t status) {
    ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status);
}

/// The GPU that calls of this thread mean.
inline void expectCurrent(int device) {
    int current = -1;
    EXPECT_EQ(cudaGetDevice(&current), cudaSuccess);
    EXPECT_EQ(current, device);
}

/// Owns `size` elements; move-only.
template <typename T>
class Array {
   public:
    Array(Memory memory, size_t size) : memory_(memory), size_(size) {
        const size_t bytes = size * sizeof(T);
        void* data = nullptr;
        switch (memory) {
            case Memory::Pageable:
                data = ::operator new(bytes);
                break;
            case Memory::Pinned:
                check(cudaHostAlloc(&data, bytes, cudaHostAllocDefault));
                break;
            case Memory::Managed:
                check(cudaMallocManaged(&data, bytes, cudaMemAttachGlobal));
                break;
            case Memory::Device:
                check(cudaMalloc(&data, bytes));
                break;
        }
        data_ = static_cast<T*>(data);
    }

    Array(Memory memory, const std::vector<T>& values)
            : Array(memory, values.size()) {
        set(values);
    }

    Array(Array&& other) noexcept
            : memory_(other.memory_),
              size_(other.size_),
              data_(std::exchange(other.data_, nullptr)) {}

    ~Array() {
        if (!data_) {
            return;
        }
        // Nothing may still use memory that is freed.
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        switch (memory_) {
            case Memory::Pageable:
                ::operator delete(data_);
                break;
            case Memory::Pinned:
                EXPECT_EQ(cudaFreeHost(data_), cudaSuccess);
                break;
            default:
                EXPECT_EQ(cudaFree(data_), cudaSuccess);
        }
    }

    T* data() {
        return data_;
    }

    void set(const std::vector<T>& values) {
        ASSERT_EQ(values.size(), size_);
        check(cudaMemcpy(
                data_, values.data(), size_ * sizeof(T), cudaMemcpyDefault));
        // The copy may return before the bytes have landed, and streams that do
        // not join the default stream would not wait for them.
        check(cudaDeviceSynchronize());
    }

    /// The elements now, after all work on the device is done.
    std::vector<T> get() const {
        std::vector<T> values(size_);
        check(cudaDeviceSynchronize());
        check(cudaMemcpy(
                values.data(), data_, size_ * sizeof(T), cudaMemcpyDefault));
        return values;
    }

    /// The elements now, without any CUDA call; host memory only.
    std::vector<T> peek() const {
        return std::vector<T>(data_, data_ + size_);
    }

   private:
    Memory memory_;
    size_t size_;
    T* data_ = nullptr;
};

} // namespace test
