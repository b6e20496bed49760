#pragma once

// A pool of GPU memory as frameworks have them: what is given back on a stream
// is lent again to that stream, at once and without asking whether the GPU is
// done with it. The simulator sees who gives back too early.

#include <cuda_runtime_api.h>
#include <faiss_ext/gpu/resources/DeviceAllocator.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace test {

class CachingPool : public faiss_ext::gpu::DeviceAllocator {
   public:
    struct Block {
        size_t bytes;
        int device;
        cudaStream_t stream;
    };

    /// Nothing may be in use any more.
    ~CachingPool() override {
        for (const auto& entry : cached_) {
            for (void* memory : entry.second) {
                cudaFree(memory);
            }
        }
    }

    void* allocate(size_t bytes, int device, cudaStream_t stream) override {
        std::lock_guard<std::mutex> guard(lock_);
        ++requests_;
        if (failing_ > 0 && --failing_ == 0) {
            failing_ = keepsFailing_ ? 1 : 0;
            throw std::runtime_error("the pool is exhausted");
        }
        void* memory = nullptr;
        auto& cached = cached_[{device, stream, bytes}];
        if (!cached.empty()) {
            memory = cached.back();
            cached.pop_back();
        } else if (cudaMalloc(&memory, bytes) != cudaSuccess) {
            throw std::runtime_error(cudaGetErrorString(cudaGetLastError()));
        }
        inUse_[memory] = {bytes, device, stream};
        bytesInUse_ += bytes;
        return memory;
    }

    void deallocate(
            void* memory,
            size_t bytes,
            int device,
            cudaStream_t stream) noexcept override {
        std::lock_guard<std::mutex> guard(lock_);
        const auto found = inUse_.find(memory);
        if (found == inUse_.end() || found->second.bytes != bytes ||
            found->second.device != device || found->second.stream != stream) {
            ++wronglyGivenBack_;
            return;
        }
        inUse_.erase(found);
        bytesInUse_ -= bytes;
        cached_[{device, stream, bytes}].push_back(memory);
    }

    /// The nth request from now on, from 1, throws; 0: none does.
    void fail(int nth) {
        std::lock_guard<std::mutex> guard(lock_);
        failing_ = nth;
        keepsFailing_ = false;
    }

    /// `count` requests from now on succeed, and none after them until fail(0).
    void failAllAfter(int count) {
        std::lock_guard<std::mutex> guard(lock_);
        failing_ = count + 1;
        keepsFailing_ = true;
    }

    std::map<void*, Block> inUse() const {
        std::lock_guard<std::mutex> guard(lock_);
        return inUse_;
    }
    size_t bytesInUse() const {
        std::lock_guard<std::mutex> guard(lock_);
        return bytesInUse_;
    }
    int requests() const {
        std::lock_guard<std::mutex> guard(lock_);
        return requests_;
    }
    int wronglyGivenBack() const {
        std::lock_guard<std::mutex> guard(lock_);
        return wronglyGivenBack_;
    }

   private:
    mutable std::mutex lock_;
    std::map<std::tuple<int, cudaStream_t, size_t>, std::vector<void*>> cached_;
    std::map<void*, Block> inUse_;
    size_t bytesInUse_ = 0;
    int requests_ = 0;
    int failing_ = 0;
    bool keepsFailing_ = false;
    int wronglyGivenBack_ = 0;
};

} // namespace test
