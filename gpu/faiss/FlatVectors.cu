// Faiss' header of the store needs a CUDA compiler; nothing here runs on a GPU.

#include <faiss_ext/gpu/faiss/FlatVectors.h>

#include <cuda_fp16.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <faiss/gpu/impl/FlatIndex.cuh>
#include <faiss/gpu/utils/BlockSelectKernel.cuh>

#include <algorithm>
#include <type_traits>
#include <typeinfo>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/arrays/ConvertRows.h>
#include <faiss_ext/gpu/compute/kernels/OffsetLabels.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

using faiss::gpu::DeviceTensor;
using faiss::gpu::DeviceVector;
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

/// What the store keeps to itself, each by a pointer to the private member:
/// what is explicitly instantiated may name it (C++17, [temp.explicit] 12).
template <typename Name, typename Name::Type member>
struct Reveal {
    friend typename Name::Type privately(Name) {
        return member;
    }
};
#define FAISS_EXT_REVEAL(Name, T, member) \
    struct Name {                         \
        using Type = T FlatIndex::*;      \
        friend Type privately(Name);      \
    };                                    \
    template struct Reveal<Name, &FlatIndex::member>
using Floats = DeviceTensor<float, 2, true>;
using Halves = DeviceTensor<half, 2, true>;
using Norms = DeviceTensor<float, 1, true>;
FAISS_EXT_REVEAL(TheNorms, Norms, norms_);
FAISS_EXT_REVEAL(TheCount, SearchImplCount, num_);
FAISS_EXT_REVEAL(TheBytes32, DeviceVector<char>, rawData32_);
FAISS_EXT_REVEAL(TheBytes16, DeviceVector<char>, rawData16_);
FAISS_EXT_REVEAL(TheFloats, Floats, vectors_);
FAISS_EXT_REVEAL(TheHalves, Halves, vectorsHalf_);
FAISS_EXT_REVEAL(TheResources, GpuResources*, resources_);
#undef FAISS_EXT_REVEAL

Norms& normsOf(FlatIndex& store) {
    return store.*privately(TheNorms{});
}

/// Of the base class of a DeviceTensor, so that the memory stays whose it is.
template <typename T, int Dims>
void view(
        Tensor<T, Dims, true>& rows,
        Tensor<T, Dims, true>& all,
        idx_t first,
        idx_t count) {
    rows = all.narrow(0, first, count);
}

/// Vectors [first, first + count) of a store, as a store of their own that
/// computes on other resources: FlatIndex::query takes its streams and its
/// memory from those that the store was made with. Owns no vectors.
class StoreView {
   public:
    StoreView(FlatIndex& store, GpuResources& on, idx_t first, idx_t count)
            : index_(&on,
                     static_cast<int>(store.getDim()),
                     store.getUseFloat16(),
                     faiss::gpu::MemorySpace::Device) {
        if (store.getUseFloat16()) {
            view(index_.getVectorsFloat16Ref(),
                 store.getVectorsFloat16Ref(),
                 first,
                 count);
        } else {
            view(index_.getVectorsFloat32Ref(),
                 store.getVectorsFloat32Ref(),
                 first,
                 count);
        }
        view(normsOf(index_), normsOf(store), first, count);
    }

    FlatIndex& index() {
        return index_;
    }

   private:
    FlatIndex index_;
};

/// Of labels that are widened, for so many rows.
size_t labelBytes(idx_t rows, int k) {
    return kWideLabels ? 0
                       : roundUp(rows * k * sizeof(StoreLabel), kGranularity);
}

/// Of memory that is converted, for so many rows.
size_t convertedBytes(const FlatIndex& store, idx_t rows, int k) {
    const size_t halves =
            store.getUseFloat16() ? rows * store.getDim() * sizeof(half) : 0;
    return labelBytes(rows, k) + roundUp(halves, kGranularity);
}

template <typename T>
Tensor<T, 2, true> matrix(T* data, idx_t rows, idx_t columns) {
    return {data,
            {static_cast<SearchImplCount>(rows),
             static_cast<SearchImplCount>(columns)}};
}

/// Rows of `columns` elements, in temporary memory.
template <typename T>
DeviceTensor<T, 2, true> temporary(
        GpuResources& resources, idx_t rows, int columns) {
    return {&resources,
            faiss::gpu::makeTempAlloc(
                    faiss::gpu::AllocType::Other,
                    resources.getDefaultStreamCurrentDevice()),
            {static_cast<SearchImplCount>(rows), columns}};
}

/// `count` elements, one after another.
void convert(
        const void* source,
        const DataType& from,
        idx_t count,
        const DataType& to,
        void* destination,
        cudaStream_t stream) {
    convertRows(
            {source, from, 1, count, 0, static_cast<int64_t>(from.bytes())},
            to,
            destination,
            stream);
}

/// Has `fill` write labels as Faiss does, and widens them to `labels` [rows, k]
/// where those are narrower.
template <typename Fill>
void withLabels(
        GpuResources& resources,
        idx_t rows,
        int k,
        idx_t* labels,
        const Fill& fill) {
    if constexpr (kWideLabels) {
        auto out = matrix(labels, rows, k);
        fill(out);
    } else {
        auto narrow = temporary<StoreLabel>(resources, rows, k);
        fill(narrow);
        convert(narrow.data(),
                kInt32,
                rows * k,
                kInt64,
                labels,
                resources.getDefaultStreamCurrentDevice());
    }
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

    void search(
            idx_t rows, const float* x, float* distances, idx_t* labels) const {
        auto out = matrix(distances, rows, k);
        withLabels(resources, rows, k, labels, [&](auto& found) {
            searchInto(rows, x, out, found);
        });
    }

    /// distances and labels: Tensors [rows, k], whose rows may lie apart.
    template <typename Distances, typename Labels>
    void searchInto(
            idx_t rows,
            const float* x,
            Distances& distances,
            Labels& labels) const {
        if (store.getUseFloat16()) {
            auto halves = temporary<half>(resources, rows, dims);
            convert(x, kFloat32, rows * dims, kFloat16, halves.data(), stream);
            query(halves, distances, labels);
        } else {
            auto queries = matrix(const_cast<float*>(x), rows, dims);
            query(queries, distances, labels);
        }
    }

    template <typename Queries, typename Distances, typename Labels>
    void query(Queries& queries, Distances& distances, Labels& labels) const {
        store.query(
                queries,
                k,
                asked.metric,
                asked.metricArg,
                distances,
                labels,
                true);
    }
};

/// What slices find, as Faiss' functions take it.
struct Found {
    Found(void* found, const StoreQueries& asked, int slices)
            : labels(
                      matrix(static_cast<StoreLabel*>(found),
                             asked.n,
                             idx_t(slices) * asked.k)),
              distances(
                      matrix(reinterpret_cast<float*>(labels.end()),
                             asked.n,
                             idx_t(slices) * asked.k)) {}

    Tensor<StoreLabel, 2, true> labels;
    Tensor<float, 2, true> distances;
};

} // namespace

VectorsView viewOf(FlatIndex& store) {
    const bool float16 = store.getUseFloat16();
    const Norms& norms = normsOf(store);
    return {float16 ? static_cast<const void*>(
                              store.getVectorsFloat16Ref().data())
                    : store.getVectorsFloat32Ref().data(),
            float16,
            norms.getSize(0) > 0 ? norms.data() : nullptr,
            store.getSize(),
            static_cast<int>(store.getDim())};
}

void reserveStore(FlatIndex& store, idx_t vectors, cudaStream_t stream) {
    store.reserve(vectors, stream);
}

void narrowStore(FlatIndex& store, idx_t vectors) {
    if (vectors == 0) {
        store.reset();
        return;
    }
    // Makes a vector of bytes no longer than it is, so nothing is allocated.
    constexpr cudaStream_t kNoStream = nullptr;
    const size_t elements = vectors * store.getDim();
    if (store.getUseFloat16()) {
        (store.*privately(TheBytes16{}))
                .resize(elements * sizeof(half), kNoStream);
        Halves& all = store.*privately(TheHalves{});
        view(all, all, 0, vectors);
    } else {
        (store.*privately(TheBytes32{}))
                .resize(elements * sizeof(float), kNoStream);
        Floats& all = store.*privately(TheFloats{});
        view(all, all, 0, vectors);
    }
    store.*privately(TheCount{}) = static_cast<SearchImplCount>(vectors);
    view(normsOf(store), normsOf(store), 0, vectors);
}

void searchStore(
        FlatIndex& store, GpuResources& on, const StoreQueries& queries) {
    if (&on == store.*privately(TheResources{})) {
        StoreSearch{store, on, queries}.searchAll();
        return;
    }
    StoreView view(store, on, 0, store.getSize());
    StoreSearch{view.index(), on, queries}.searchAll();
}

bool searchedByFaiss(const FlatIndex& store) {
    if constexpr (std::is_polymorphic_v<FlatIndex>) {
        return typeid(store) == typeid(FlatIndex);
    }
    return true;
}

size_t foundBytesOf(idx_t n, int k, int slices) {
    return roundUp(
            n * slices * k * (sizeof(StoreLabel) + sizeof(float)),
            kGranularity);
}

size_t mergeBytesOf(idx_t n, int k) {
    return labelBytes(n, k);
}

void searchSlice(
        FlatIndex& store,
        GpuResources& lane,
        const StoreQueries& queries,
        const Slices& slices,
        void* found,
        int slice) {
    const idx_t first = slice * slices.vectors;
    StoreView view(
            store,
            lane,
            first,
            std::min<idx_t>(slices.vectors, store.getSize() - first));
    Found all(found, queries, slices.count);
    auto distances = all.distances.narrow(1, slice * queries.k, queries.k);
    auto labels = all.labels.narrow(1, slice * queries.k, queries.k);
    StoreSearch{view.index(), lane, queries}.searchInto(
            queries.n, queries.x, distances, labels);
}

void mergeFound(
        GpuResources& resources,
        const StoreQueries& queries,
        const Slices& slices,
        void* found) {
    const cudaStream_t stream = resources.getDefaultStreamCurrentDevice();
    Found all(found, queries, slices.count);
    FAISS_EXT_CUDA_TRY(launchOffsetLabels(
            GroupedLabels<StoreLabel>{
                    all.labels.data(), queries.n, slices.count, queries.k},
            slices.vectors,
            stream));
    auto distances = matrix(queries.distances, queries.n, queries.k);
    withLabels(
            resources, queries.n, queries.k, queries.labels, [&](auto& labels) {
                faiss::gpu::runBlockSelectPair(
                        all.distances,
                        all.labels,
                        distances,
                        labels,
                        queries.metric == faiss::METRIC_INNER_PRODUCT,
                        queries.k,
                        stream);
            });
}

size_t laneBytesOf(const FlatIndex& store, idx_t n, int k, idx_t vectors) {
    // Faiss' tiles have so many rows, and two of them lie in a gigabyte.
    const size_t mostRows = store.getDim() <= 32 ? 1024 : 512;
    const size_t elementBytes = store.getUseFloat16() ? 2 : 4;
    const size_t mostColumns = (size_t(1) << 30) / 2 / elementBytes / mostRows;
    const size_t rows = std::min<size_t>(mostRows, n);
    const size_t columns = std::min<size_t>(mostColumns, vectors);
    // GPUs of less than 4 GiB have half as many columns.
    const size_t tiles = 2 * divideUp<size_t>(vectors, columns);
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
