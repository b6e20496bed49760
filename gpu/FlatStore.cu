// Faiss' header of the store needs a CUDA compiler; nothing here runs on a GPU.

#include <faiss_ext/gpu/FlatStore.h>

#include <cuda_fp16.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <faiss/gpu/impl/FlatIndex.cuh>

#include <algorithm>
#include <type_traits>

#include <faiss_ext/gpu/ConvertRows.h>

namespace faiss_ext {
namespace gpu {

namespace {

using faiss::gpu::DeviceTensor;
using faiss::gpu::FlatIndex;
using faiss::gpu::GpuResources;
using faiss::gpu::Tensor;

constexpr bool kWideLabels = std::is_same_v<StoreLabel, idx_t>;

/// How many queries are converted at a time: enough that the GPU does not run
/// empty between two parts (Faiss computes 512 or 1024 at once), so few that
/// what is converted fits into Faiss' temporary memory (128 MiB for 2048
/// neighbours) and is counted by 32 bits, as in Faiss 1.7.3.
constexpr idx_t kRowsAtOnce = 16384;

/// Of Faiss' temporary memory.
constexpr size_t kGranularity = 16;

constexpr DataType kFloat16{DataType::Kind::Float, 16};
constexpr DataType kFloat32{DataType::Kind::Float, 32};
constexpr DataType kInt32{DataType::Kind::Int, 32};
constexpr DataType kInt64{DataType::Kind::Int, 64};

/// One search, cut into what one call of the store takes.
struct StoreSearch {
    FlatIndex& store;
    GpuResources& resources;
    faiss::MetricType metric;
    float metricArg;
    int dims;
    int k;
    cudaStream_t stream;

    /// Of what is converted, for so many rows.
    size_t temporaryBytes(idx_t rows) const {
        const auto rounded = [&](size_t rowBytes) {
            return (rows * rowBytes + kGranularity - 1) / kGranularity *
                   kGranularity;
        };
        return rounded(kWideLabels ? 0 : k * sizeof(StoreLabel)) +
               rounded(store.getUseFloat16() ? dims * sizeof(half) : 0);
    }

    /// Rows of `columns` elements, in temporary memory.
    template <typename T>
    DeviceTensor<T, 2, true> temporary(idx_t rows, int columns) const {
        return {&resources,
                faiss::gpu::makeTempAlloc(faiss::gpu::AllocType::Other, stream),
                {static_cast<SearchImplCount>(rows), columns}};
    }

    template <typename T>
    static Tensor<T, 2, true> matrix(T* data, idx_t rows, int columns) {
        return {data, {static_cast<SearchImplCount>(rows), columns}};
    }

    /// `count` elements, one after another.
    void convert(
            const void* source,
            const DataType& from,
            idx_t count,
            const DataType& to,
            void* destination) const {
        convertRows(
                {source, from, 1, count, 0, static_cast<int64_t>(from.bytes())},
                to,
                destination,
                stream);
    }

    void search(
            idx_t rows, const float* x, float* distances, idx_t* labels) const {
        if constexpr (kWideLabels) {
            auto out = matrix(labels, rows, k);
            convertQueries(rows, x, distances, out);
        } else {
            auto narrow = temporary<StoreLabel>(rows, k);
            convertQueries(rows, x, distances, narrow);
            convert(narrow.data(), kInt32, rows * k, kInt64, labels);
        }
    }

    template <typename Labels>
    void convertQueries(
            idx_t rows,
            const float* x,
            float* distances,
            Labels& labels) const {
        if (store.getUseFloat16()) {
            auto halves = temporary<half>(rows, dims);
            convert(x, kFloat32, rows * dims, kFloat16, halves.data());
            query(rows, halves, distances, labels);
        } else {
            auto queries = matrix(const_cast<float*>(x), rows, dims);
            query(rows, queries, distances, labels);
        }
    }

    template <typename Queries, typename Labels>
    void query(idx_t rows, Queries& queries, float* distances, Labels& labels)
            const {
        auto out = matrix(distances, rows, k);
        store.query(queries, k, metric, metricArg, out, labels, true);
    }
};

} // namespace

idx_t vectorsIn(const FlatIndex& store) {
    return store.getSize();
}

bool searchStore(
        FlatIndex& store,
        GpuResources& resources,
        faiss::MetricType metric,
        float metricArg,
        idx_t n,
        const float* x,
        int k,
        float* distances,
        idx_t* labels) {
    const int dims = static_cast<int>(store.getDim());
    const StoreSearch search{
            store,
            resources,
            metric,
            metricArg,
            dims,
            k,
            resources.getDefaultStreamCurrentDevice()};
    const bool converts = search.temporaryBytes(1) > 0;
    const idx_t step = converts ? std::min(kRowsAtOnce, n) : n;
    if (search.temporaryBytes(step) >
        resources.getTempMemoryAvailable(faiss::gpu::getCurrentDevice())) {
        return false;
    }
    for (idx_t first = 0; first < n; first += step) {
        search.search(
                std::min(step, n - first),
                x + first * dims,
                distances + first * k,
                labels + first * k);
    }
    return true;
}

} // namespace gpu
} // namespace faiss_ext
