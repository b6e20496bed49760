// Faiss' header of the store needs a CUDA compiler; nothing here runs on a GPU.

#include <faiss_ext/gpu/FlatStore.h>

#include <cuda_fp16.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <faiss/gpu/impl/FlatIndex.cuh>

#include <algorithm>
#include <type_traits>

#include <faiss_ext/gpu/ConvertRows.h>
#include <faiss_ext/gpu/Rounding.h>

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
constexpr size_t kGranularity = 256;

constexpr DataType kFloat16{DataType::Kind::Float, 16};
constexpr DataType kFloat32{DataType::Kind::Float, 32};
constexpr DataType kInt32{DataType::Kind::Int, 32};
constexpr DataType kInt64{DataType::Kind::Int, 64};

/// FlatIndex::query computes on the streams and in the memory of resources that
/// the store keeps for itself, in a member that is private. This names it: what
/// is explicitly instantiated may (C++17, [temp.explicit] 12).
GpuResources*& resourcesOf(FlatIndex& store);

template <GpuResources* FlatIndex::*resources>
struct NameResources {
    friend GpuResources*& resourcesOf(FlatIndex& store) {
        return store.*resources;
    }
};
template struct NameResources<&FlatIndex::resources_>;

/// Lets a store use other resources for the time of one scope.
class UsesResources {
   public:
    UsesResources(FlatIndex& store, GpuResources& resources)
            : member_(resourcesOf(store)), own_(member_) {
        member_ = &resources;
    }
    ~UsesResources() {
        member_ = own_;
    }

    UsesResources(const UsesResources&) = delete;
    UsesResources& operator=(const UsesResources&) = delete;

   private:
    GpuResources*& member_;
    GpuResources* const own_;
};

/// Of memory that is converted, for so many rows.
size_t convertedBytes(const FlatIndex& store, idx_t rows, int k) {
    const auto bytes = [&](size_t row) {
        return roundUp(rows * row, kGranularity);
    };
    return bytes(kWideLabels ? 0 : k * sizeof(StoreLabel)) +
           bytes(store.getUseFloat16() ? store.getDim() * sizeof(half) : 0);
}

/// One search, cut into what one call of the store takes.
struct StoreSearch {
    FlatIndex& store;
    GpuResources& resources;
    const StoreQueries& asked;
    const int dims = static_cast<int>(store.getDim());
    const int k = asked.k;
    const cudaStream_t stream = resources.getDefaultStreamCurrentDevice();

    /// How many queries are searched at a time.
    idx_t step() const {
        return convertedBytes(store, 1, k) > 0 ? std::min(kRowsAtOnce, asked.n)
                                               : asked.n;
    }

    void searchAll() const {
        for (idx_t first = 0; first < asked.n; first += step()) {
            search(std::min(step(), asked.n - first),
                   asked.x + first * dims,
                   asked.distances + first * k,
                   asked.labels + first * k);
        }
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
        store.query(
                queries, k, asked.metric, asked.metricArg, out, labels, true);
    }
};

} // namespace

idx_t vectorsIn(const FlatIndex& store) {
    return store.getSize();
}

bool searchStore(
        FlatIndex& store,
        GpuResources& resources,
        const StoreQueries& queries) {
    const StoreSearch search{store, resources, queries};
    if (convertedBytes(store, search.step(), queries.k) >
        resources.getTempMemoryAvailable(faiss::gpu::getCurrentDevice())) {
        return false;
    }
    search.searchAll();
    return true;
}

void searchStoreOnLane(
        FlatIndex& store, GpuResources& lane, const StoreQueries& queries) {
    const UsesResources uses(store, lane);
    StoreSearch{store, lane, queries}.searchAll();
}

size_t laneBytesOf(const FlatIndex& store, idx_t n, int k) {
    // Faiss' tiles have so many rows, and two of them lie in a gigabyte.
    const size_t mostRows = store.getDim() <= 32 ? 1024 : 512;
    const size_t elementBytes = store.getUseFloat16() ? 2 : 4;
    const size_t mostColumns = (size_t(1) << 30) / 2 / elementBytes / mostRows;
    const size_t vectors = store.getSize();
    const size_t rows = std::min<size_t>(mostRows, n);
    const size_t columns = std::min(mostColumns, vectors);
    // GPUs of less than 4 GiB have half as many columns.
    const size_t tiles = 2 * divideUp(vectors, columns);
    const auto twoOf = [](size_t bytes) {
        return 2 * roundUp(bytes, kGranularity);
    };
    const size_t norms = roundUp(n * sizeof(float), kGranularity);
    return norms + twoOf(rows * columns * sizeof(float)) +
           twoOf(rows * tiles * k * sizeof(float)) +
           twoOf(rows * tiles * k * sizeof(StoreLabel)) +
           convertedBytes(store, std::min(kRowsAtOnce, n), k);
}

} // namespace gpu
} // namespace faiss_ext
