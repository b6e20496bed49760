// Copy-back by itself: ours, stock Faiss' steps, plain copies.

#include <cuda_runtime_api.h>

#include <memory>
#include <stdexcept>
#include <vector>

#include <faiss_ext/gpu/arrays/ConvertRows.h>
#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>

#include "Benchs.h"
#include "Support.h"

using namespace benchs;
using faiss_ext::gpu::idx_t;
using faiss_ext::gpu::OutputRows;

namespace {

struct FreeDevice {
    void operator()(char* memory) const {
        FAISS_EXT_CUDA_NOTHROW(cudaFree(memory));
    }
};

using DeviceMemory = std::unique_ptr<char, FreeDevice>;

DeviceMemory deviceMemory(size_t bytes) {
    void* memory = nullptr;
    FAISS_EXT_CUDA_TRY(cudaMalloc(&memory, bytes));
    return DeviceMemory(static_cast<char*>(memory));
}

DeviceMemory deviceCopy(const void* data, size_t bytes) {
    DeviceMemory copy = deviceMemory(bytes);
    FAISS_EXT_CUDA_TRY(
            cudaMemcpy(copy.get(), data, bytes, cudaMemcpyHostToDevice));
    return copy;
}

} // namespace

/// The arrays, largest elements first as a call wants them.
struct faiss_ext_benchs_copy_back {
    struct Array {
        size_t elementBytes;
        /// What comes back.
        DeviceMemory results;
        /// Where methods without a call compute it.
        DeviceMemory computed;
    };

    idx_t n;
    cudaStream_t stream;
    std::vector<Array> arrays;
    std::unique_ptr<faiss_ext::gpu::CallRunner> runner;

    void add(const void* data, size_t elementBytes) {
        arrays.push_back(
                {elementBytes,
                 deviceCopy(data, n * elementBytes),
                 deviceMemory(n * elementBytes)});
    }

    void compute(const Array& array, idx_t first, idx_t rows, void* to) {
        FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                to,
                array.results.get() + first * array.elementBytes,
                rows * array.elementBytes,
                cudaMemcpyDeviceToDevice,
                stream));
    }

    void copy(void* to, const void* from, const Array& array) {
        FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                to, from, n * array.elementBytes, cudaMemcpyDefault, stream));
    }

    void staged(const std::vector<void*>& outputs) {
        std::vector<OutputRows> rows;
        for (size_t i = 0; i < arrays.size(); ++i) {
            rows.push_back({"output", outputs[i], arrays[i].elementBytes});
        }
        faiss_ext::gpu::RowFunction computation(
                [this](const auto&, const faiss_ext::gpu::ComputeRows& part) {
                    for (size_t i = 0; i < arrays.size(); ++i) {
                        compute(arrays[i],
                                part.first,
                                part.count,
                                part.outputs[i]);
                    }
                });
        runner->run(n, {}, rows, computation);
    }

    void stock(const std::vector<void*>& outputs) {
        for (size_t i = 0; i < arrays.size(); ++i) {
            copy(arrays[i].computed.get(), outputs[i], arrays[i]);
        }
        for (const Array& array : arrays) {
            compute(array, 0, n, array.computed.get());
        }
        for (size_t i = 0; i < arrays.size(); ++i) {
            copy(outputs[i], arrays[i].computed.get(), arrays[i]);
            FAISS_EXT_CUDA_TRY(cudaStreamSynchronize(stream));
        }
    }

    void plain(const std::vector<void*>& outputs) {
        for (size_t i = 0; i < arrays.size(); ++i) {
            compute(arrays[i], 0, n, arrays[i].computed.get());
            copy(outputs[i], arrays[i].computed.get(), arrays[i]);
        }
        FAISS_EXT_CUDA_TRY(cudaStreamSynchronize(stream));
    }

    /// A kernel that computes what it reads: of the library's conversions, the
    /// one that leaves the type as it is.
    void mapped(const std::vector<void*>& outputs) {
        for (size_t i = 0; i < arrays.size(); ++i) {
            const Array& array = arrays[i];
            const auto bytes = static_cast<int64_t>(array.elementBytes);
            const faiss_ext::gpu::DataType type{
                    bytes == 8 ? faiss_ext::gpu::DataType::Kind::Int
                               : faiss_ext::gpu::DataType::Kind::Float,
                    static_cast<int>(8 * bytes)};
            void* to = nullptr;
            FAISS_EXT_CUDA_TRY(cudaHostGetDevicePointer(&to, outputs[i], 0));
            faiss_ext::gpu::convertRows(
                    {array.results.get(), type, n, 1, bytes, bytes},
                    type,
                    to,
                    stream);
        }
        FAISS_EXT_CUDA_TRY(cudaStreamSynchronize(stream));
    }
};

faiss_ext_benchs_copy_back* faiss_ext_benchs_copy_back_new(
        int64_t n, const int64_t* labels, const float* distances) {
    return guarded(static_cast<faiss_ext_benchs_copy_back*>(nullptr), [&] {
        const auto shared = resources().getResources();
        const int device = currentDevice();
        auto self = std::make_unique<faiss_ext_benchs_copy_back>();
        self->n = n;
        self->stream = shared->getDefaultStream(device);
        if (labels) {
            self->add(labels, sizeof(*labels));
        }
        self->add(distances, sizeof(*distances));
        self->runner = std::make_unique<faiss_ext::gpu::CallRunner>(
                shared, device, faiss_ext::gpu::StagedConfig());
        FAISS_EXT_CUDA_TRY(cudaDeviceSynchronize());
        return self.release();
    });
}

double faiss_ext_benchs_copy_back_run(
        faiss_ext_benchs_copy_back* self,
        int method,
        int64_t* labels,
        float* distances) {
    return guarded(-1.0, [&] {
        std::vector<void*> outputs;
        if (self->arrays.size() > 1) {
            outputs.push_back(labels);
        }
        outputs.push_back(distances);
        const auto begin = Clock::now();
        switch (method) {
            case 0:
                self->staged(outputs);
                break;
            case 1:
                self->stock(outputs);
                break;
            case 2:
                self->plain(outputs);
                break;
            case 3:
                self->mapped(outputs);
                break;
            default:
                throw std::invalid_argument(
                        "method " + std::to_string(method) + "; 0 to 3");
        }
        return secondsSince(begin);
    });
}

void faiss_ext_benchs_copy_back_delete(faiss_ext_benchs_copy_back* self) {
    delete self;
}
