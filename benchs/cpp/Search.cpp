// The search as a C++ program makes it: faiss_ext's class and Faiss' own.

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuIndexFlat.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include "Benchs.h"
#include "Support.h"

using namespace benchs;

struct faiss_ext_benchs_index {
    std::unique_ptr<faiss::Index> index;
};

faiss_ext_benchs_index* faiss_ext_benchs_index_new(
        int ours, int d, int64_t nb, const float* base) {
    return guarded(static_cast<faiss_ext_benchs_index*>(nullptr), [&] {
        faiss::gpu::GpuIndexFlatConfig config;
        config.device = currentDevice();
        auto self = std::make_unique<faiss_ext_benchs_index>();
        if (ours) {
            self->index = std::make_unique<faiss_ext::gpu::GpuIndexFlatL2>(
                    &resources(), d, config);
        } else {
            self->index = std::make_unique<faiss::gpu::GpuIndexFlatL2>(
                    &resources(), d, config);
        }
        self->index->add(nb, base);
        FAISS_EXT_CUDA_TRY(cudaDeviceSynchronize());
        return self.release();
    });
}

double faiss_ext_benchs_index_search(
        faiss_ext_benchs_index* self,
        int64_t n,
        const float* x,
        int64_t k,
        float* distances,
        int64_t* labels,
        int wait) {
    return guarded(-1.0, [&] {
        const auto begin = Clock::now();
        self->index->search(n, x, k, distances, labels);
        if (wait) {
            FAISS_EXT_CUDA_TRY(cudaDeviceSynchronize());
        }
        return secondsSince(begin);
    });
}

namespace {

/// Where threads wait until all have arrived.
class StartingLine {
   public:
    explicit StartingLine(int threads) : missing_(threads) {}

    /// Returns when all are there: when that was.
    Clock::time_point arrive() {
        std::unique_lock<std::mutex> guard(mutex_);
        if (--missing_ == 0) {
            start_ = Clock::now();
            changed_.notify_all();
        }
        changed_.wait(guard, [this] { return missing_ == 0; });
        return start_;
    }

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int missing_;
    Clock::time_point start_;
};

} // namespace

double faiss_ext_benchs_index_search_threads(
        faiss_ext_benchs_index* self,
        int threads,
        int calls,
        const float* x,
        int64_t k,
        float* distances,
        int64_t* labels,
        int locked) {
    return guarded(-1.0, [&] {
        std::mutex mutex;
        const auto search = [&](int t) {
            std::unique_lock<std::mutex> lock(mutex, std::defer_lock);
            if (locked) {
                lock.lock();
            }
            self->index->search(
                    1,
                    x + t * self->index->d,
                    k,
                    distances + t * k,
                    labels + t * k);
        };
        StartingLine line(threads);
        std::vector<double> seconds(threads);
        std::vector<std::exception_ptr> failures(threads);
        const auto work = [&](int t) {
            const auto attempt = [&](int times) {
                try {
                    for (int i = 0; i < times && !failures[t]; ++i) {
                        search(t);
                    }
                } catch (...) {
                    failures[t] = std::current_exception();
                }
            };
            attempt(1);
            const auto start = line.arrive();
            attempt(calls);
            seconds[t] = secondsSince(start);
        };
        std::vector<std::thread> running;
        for (int t = 0; t < threads; ++t) {
            running.emplace_back(work, t);
        }
        for (std::thread& thread : running) {
            thread.join();
        }
        for (const std::exception_ptr& failure : failures) {
            if (failure) {
                std::rethrow_exception(failure);
            }
        }
        return *std::max_element(seconds.begin(), seconds.end());
    });
}

void faiss_ext_benchs_index_delete(faiss_ext_benchs_index* self) {
    delete self;
}
