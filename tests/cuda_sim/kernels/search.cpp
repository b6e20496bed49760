// Replaces GpuIndexFlat::searchImpl_, FlatIndex::query, bfKnn and the merge of
// what was found in parts: the same checks, the same temporary memory, the same
// waits, and then one operation in place of the kernels.

#include <cuda_fp16.h>
#include <faiss/gpu/GpuDistance.h>
#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/gpu/GpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/gpu/utils/CopyUtils.cuh>
#include <faiss/gpu/utils/DeviceTensor.cuh>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <limits>
#include <type_traits>

#include "../cuda_sim_kernel.h"
#include "Convert.h"
#include "Knn.h"

#include <faiss/impl/IDSelector.h>

// From 1.15 on, a flat index searches among selected vectors.
#if CUDA_SIM_FAISS_VERSION >= 11500
#define CUDA_SIM_SELECTOR_PARAMETER , const IDSelector* selector
#define CUDA_SIM_SELECTOR selector
#else
#define CUDA_SIM_SELECTOR_PARAMETER
#define CUDA_SIM_SELECTOR nullptr
#endif

namespace faiss {
namespace gpu {

/// As DeviceVector, whose header needs a CUDA compiler, keeps bytes.
struct StoredBytes {
    GpuMemoryReservation alloc_;
    size_t num_;
    size_t capacity_;
    GpuResources* res_;
    AllocInfo allocInfo_;
};

/// As far as it is used here; its header needs a CUDA compiler.
class FlatIndex {
   public:
    using Distances = Tensor<float, 2, true>;
    using Labels = Tensor<cuda_sim::Label, 2, true>;

    bool getUseFloat16() const;
    cuda_sim::Count getSize() const;
    Tensor<float, 2, true>& getVectorsFloat32Ref();
    Tensor<half, 2, true>& getVectorsFloat16Ref();

    void query(
            Tensor<float, 2, true>& queries,
            int k,
            MetricType metric,
            float metricArg,
            Distances& distances,
            Labels& labels,
            bool exactDistance CUDA_SIM_SELECTOR_PARAMETER);
    void query(
            Tensor<half, 2, true>& queries,
            int k,
            MetricType metric,
            float metricArg,
            Distances& distances,
            Labels& labels,
            bool exactDistance CUDA_SIM_SELECTOR_PARAMETER);

   private:
    template <typename T>
    void search(
            const Tensor<T, 2, true>& vectors,
            const Tensor<T, 2, true>& queries,
            int k,
            MetricType metric,
            float metricArg,
            Distances& distances,
            Labels& labels,
            const IDSelector* selector);

    // What Faiss' class has, in its order.
#if CUDA_SIM_FAISS_VERSION >= 10704
    const void* virtualFunctions_;
#endif
    GpuResources* resources_;
    int dim_;
    bool useFloat16_;
    MemorySpace space_;
    cuda_sim::Count num_;
    StoredBytes rawData32_;
    StoredBytes rawData16_;
    DeviceTensor<float, 2, true> vectors_;
    DeviceTensor<half, 2, true> vectorsHalf_;
    DeviceTensor<float, 1, true> norms_;
};

} // namespace gpu
} // namespace faiss

namespace cuda_sim {

namespace {

using namespace faiss::gpu;

void check(cudaError_t error, const char* what) {
    FAISS_THROW_IF_NOT_FMT(
            error == cudaSuccess,
            "simulated launch of %s failed (error %d %s)",
            what,
            int(error),
            cudaGetErrorString(error));
}

/// Rows of k elements, the first of each `stride` from the next row's.
template <typename T>
struct ResultRows {
    T* data;
    size_t rows;
    size_t k;
    size_t stride;

    template <typename Tensor>
    static ResultRows of(const Tensor& tensor) {
        return {tensor.data(),
                size_t(tensor.getSize(0)),
                size_t(tensor.getSize(1)),
                size_t(tensor.getStride(0))};
    }

    /// Those that an operation writes.
    void addTo(std::vector<cuda_sim_range>* ranges) const {
        if (stride == k) {
            ranges->push_back(writes(data, rows * k));
            return;
        }
        for (size_t row = 0; row < rows; ++row) {
            ranges->push_back(writes(data + row * stride, k));
        }
    }

    /// Only inside an operation.
    template <typename U>
    void set(const std::vector<U>& values) const {
        for (size_t row = 0; row < rows; ++row) {
            std::copy_n(values.begin() + row * k, k, view(data + row * stride));
        }
    }
};

/// The temporary memory of a search: chooseTileSize and runDistance in Faiss'
/// Distance.cu. The search writes it too.
class Scratch {
   public:
    Scratch(GpuResources* resources, const Knn& knn, int k) {
        if (knn.vectors.rows == 0) {
            return;
        }
        const size_t gigabyte = size_t(1) << 30;
        const size_t total = getCurrentDeviceProperties().totalGlobalMem;
        const size_t usage = total <= 4 * gigabyte   ? gigabyte / 2
                             : total <= 8 * gigabyte ? gigabyte / 4 * 3
                                                     : gigabyte;
        const size_t mostRows = knn.vectors.dims <= 32 ? 1024 : 512;
        const size_t mostColumns =
                usage / 2 / (knn.vectors.half ? 2 : 4) / mostRows;
        const size_t rows = std::min(mostRows, knn.queries.rows);
        const size_t columns = std::min(mostColumns, knn.vectors.rows);
        const size_t found =
                rows * k * ((knn.vectors.rows + columns - 1) / columns);
        const size_t product = rows * columns * sizeof(float);
        const size_t distances = found * sizeof(float);
        const size_t labels = found * sizeof(Label);
        const size_t sizes[] = {
                knn.queries.rows * sizeof(float),
                product,
                product,
                distances,
                distances,
                labels,
                labels};
        const auto stream = resources->getDefaultStreamCurrentDevice();
        for (size_t i = 0; i < std::size(sizes); ++i) {
            taken_[i] = resources->allocMemoryHandle(AllocRequest(
                    makeTempAlloc(AllocType::Other, stream), sizes[i]));
        }
    }

    std::vector<cuda_sim_range> ranges() const {
        std::vector<cuda_sim_range> written;
        for (const auto& memory : taken_) {
            if (memory.size > 0) {
                written.push_back(
                        writes(static_cast<char*>(memory.data), memory.size));
            }
        }
        return written;
    }

    /// Only inside an operation: leaves rubbish at both ends.
    static void use(const std::vector<cuda_sim_range>& ranges) {
        for (const auto& range : ranges) {
            char* const first =
                    view(static_cast<char*>(const_cast<void*>(range.ptr)));
            const size_t some = std::min<size_t>(range.bytes, 4096);
            std::memset(first, 0x5a, some);
            std::memset(first + range.bytes - some, 0x5a, some);
        }
    }

   private:
    // Given back last to first, as a stack is.
    std::array<GpuMemoryReservation, 7> taken_;
};

/// One operation that writes [queries, k] distances and labels, and scratch.
template <typename L>
void enqueueSearch(
        const char* name,
        const Knn& knn,
        int k,
        const ResultRows<float>& distances,
        const ResultRows<L>& labels,
        const std::vector<cuda_sim_range>& scratch,
        cudaStream_t stream) {
    std::vector<cuda_sim_range> ranges = scratch;
    ranges.insert(
            ranges.end(),
            {{knn.vectors.data, knn.vectors.bytes(), 0},
             {knn.queries.data, knn.queries.bytes(), 0}});
    if (knn.norms) {
        ranges.push_back(reads(knn.norms, knn.vectors.rows));
    }
    distances.addTo(&ranges);
    labels.addTo(&ranges);
    check(launch(name,
                 stream,
                 ranges,
                 [=] {
                     std::vector<float> found(knn.queries.rows * k);
                     std::vector<idx_t> ids(found.size());
                     knn.search(k, found.data(), ids.data());
                     Scratch::use(scratch);
                     distances.set(found);
                     labels.set(ids);
                 }),
          name);
}

/// The same to arrays whose rows follow each other.
template <typename L>
void enqueueSearch(
        const char* name,
        const Knn& knn,
        int k,
        float* distances,
        L* labels,
        cudaStream_t stream) {
    const size_t rows = knn.queries.rows, columns = k;
    enqueueSearch(
            name,
            knn,
            k,
            ResultRows<float>{distances, rows, columns, columns},
            ResultRows<L>{labels, rows, columns, columns},
            {},
            stream);
}

/// Widens labels on their way out. By Thrust, which waits for the stream.
void widen(const int* from, idx_t* to, size_t count, cudaStream_t stream) {
    check(launch("convertTensor<int, idx_t>",
                 stream,
                 {reads(from, count), writes(to, count)},
                 [=] { std::copy_n(view(from), count, view(to)); }),
          "convertTensor<int, idx_t>");
    check(cudaStreamSynchronize(stream), "convertTensor<int, idx_t>");
}

} // namespace

} // namespace cuda_sim

namespace faiss {
namespace gpu {

using namespace cuda_sim;
using cuda_sim::idx_t;

void GpuIndexFlat::searchImpl_(
        Count n,
        const float* x,
        int k,
        float* distances,
        cuda_sim::idx_t* labels,
        const SearchParameters* params) const {
    Tensor<float, 2, true> queries(const_cast<float*>(x), {n, this->d});
    Tensor<float, 2, true> outDistances(distances, {n, k});
    const auto query = [&](auto& outLabels, auto... selector) {
        data_->query(
                queries,
                k,
                metric_type,
                metric_arg,
                outDistances,
                outLabels,
                true,
                selector...);
    };
#if CUDA_SIM_FAISS_VERSION < 10704
    (void)params; // ignored, as by the code that this replaces
    const auto stream = resources_->getDefaultStream(config_.device);
    DeviceTensor<int, 2, true> narrow(
            resources_.get(), makeTempAlloc(AllocType::Other, stream), {n, k});
    query(narrow);
    widen(narrow.data(), labels, size_t(n) * k, stream);
#else
    Tensor<cuda_sim::idx_t, 2, true> outLabels(labels, {n, k});
#if CUDA_SIM_FAISS_VERSION < 11500
    (void)params;
    query(outLabels);
#else
    query(outLabels, params ? params->sel : nullptr);
#endif
#endif
}

void FlatIndex::query(
        Tensor<float, 2, true>& queries,
        int k,
        MetricType metric,
        float metricArg,
        Distances& distances,
        Labels& labels,
        bool CUDA_SIM_SELECTOR_PARAMETER) {
    if (!getUseFloat16()) {
        search(getVectorsFloat32Ref(),
               queries,
               k,
               metric,
               metricArg,
               distances,
               labels,
               CUDA_SIM_SELECTOR);
        return;
    }
    search(getVectorsFloat16Ref(),
           convertTensorTemporary<float, half, 2>(
                   resources_,
                   resources_->getDefaultStreamCurrentDevice(),
                   queries),
           k,
           metric,
           metricArg,
           distances,
           labels,
           CUDA_SIM_SELECTOR);
}

void FlatIndex::query(
        Tensor<half, 2, true>& queries,
        int k,
        MetricType metric,
        float metricArg,
        Distances& distances,
        Labels& labels,
        bool CUDA_SIM_SELECTOR_PARAMETER) {
    FAISS_ASSERT(getUseFloat16());
    search(getVectorsFloat16Ref(),
           queries,
           k,
           metric,
           metricArg,
           distances,
           labels,
           CUDA_SIM_SELECTOR);
}

template <typename T>
void FlatIndex::search(
        const Tensor<T, 2, true>& vectors,
        const Tensor<T, 2, true>& queries,
        int k,
        MetricType metric,
        float metricArg,
        Distances& distances,
        Labels& labels,
        const IDSelector* selector) {
    checkMetric(metric);
    const auto matrix = [](const Tensor<T, 2, true>& rows) {
        Matrix result;
        result.data = rows.data();
        result.half = sizeof(T) == 2;
        result.rows = rows.getSize(0);
        result.dims = rows.getSize(1);
        return result;
    };
    Knn knn;
    knn.metric = metric;
    knn.metricArg = metricArg;
    knn.vectors = matrix(vectors);
    knn.queries = matrix(queries);
    if (knn.isEuclidean()) {
        FAISS_ASSERT(norms_.getSize(0) == vectors.getSize(0));
        knn.norms = norms_.data();
    }
    if (selector) {
        for (size_t i = 0; i < knn.vectors.rows; ++i) {
            knn.selected.push_back(selector->is_member(i));
        }
    }
    const Scratch scratch(resources_, knn, k);
    enqueueSearch(
            "bfKnnOnDevice",
            knn,
            k,
            ResultRows<float>::of(distances),
            ResultRows<cuda_sim::Label>::of(labels),
            scratch.ranges(),
            resources_->getDefaultStreamCurrentDevice());
}

namespace {

bool areApart(const cuda_sim_range& a, const cuda_sim_range& b) {
    const auto* first = static_cast<const char*>(a.ptr);
    const auto* second = static_cast<const char*>(b.ptr);
    return first + a.bytes <= second || second + b.bytes <= first;
}

} // namespace

// Declared in a header that needs a CUDA compiler.
void runBlockSelectPair(
        Tensor<float, 2, true>& inKeys,
        Tensor<cuda_sim::Label, 2, true>& inIndices,
        Tensor<float, 2, true>& outKeys,
        Tensor<cuda_sim::Label, 2, true>& outIndices,
        bool largest,
        int k,
        cudaStream_t stream) {
    const auto keys = ResultRows<float>::of(inKeys);
    const auto ids = ResultRows<cuda_sim::Label>::of(inIndices);
    const auto outK = ResultRows<float>::of(outKeys);
    const auto outI = ResultRows<cuda_sim::Label>::of(outIndices);
    FAISS_ASSERT(keys.stride == keys.k && ids.stride == ids.k);
    std::vector<cuda_sim_range> ranges = {
            reads(keys.data, keys.rows * keys.k),
            reads(ids.data, ids.rows * ids.k)};
    outK.addTo(&ranges);
    outI.addTo(&ranges);
    for (size_t in = 0; in < 2; ++in) {
        for (size_t out = 2; out < ranges.size(); ++out) {
            FAISS_ASSERT(areApart(ranges[in], ranges[out]));
        }
    }
    const auto select = [=] {
        std::vector<float> nearest;
        std::vector<cuda_sim::Label> labels;
        // What is no better than this is not selected, such as a NaN.
        const float worst = largest ? std::numeric_limits<float>::lowest()
                                    : std::numeric_limits<float>::max();
        const auto better = [=](float a, float b) {
            return largest ? a > b : a < b;
        };
        for (size_t row = 0; row < keys.rows; ++row) {
            const float* key = view(keys.data) + row * keys.k;
            const auto* id = view(ids.data) + row * ids.k;
            std::vector<size_t> order;
            for (size_t i = 0; i < keys.k; ++i) {
                if (better(key[i], worst)) {
                    order.push_back(i);
                }
            }
            std::stable_sort(
                    order.begin(), order.end(), [&](size_t a, size_t b) {
                        return better(key[a], key[b]);
                    });
            for (size_t i = 0; i < size_t(k); ++i) {
                const bool some = i < order.size();
                nearest.push_back(some ? key[order[i]] : worst);
                labels.push_back(some ? id[order[i]] : -1);
            }
        }
        outK.set(nearest);
        outI.set(labels);
    };
    check(launch("blockSelectPair", stream, ranges, select),
          "runBlockSelectPair");
}

namespace {

template <typename T>
void bfKnnOf(GpuResourcesProvider* prov, const GpuDistanceParams& args) {
    FAISS_THROW_IF_NOT_MSG(
            args.k > 0 || args.k == -1,
            "bfKnn: k must be > 0 for top-k reduction, "
            "or -1 for all pairwise distances");
    FAISS_THROW_IF_NOT_MSG(args.dims > 0, "bfKnn: dims must be > 0");
    FAISS_THROW_IF_NOT_MSG(
            args.numVectors > 0, "bfKnn: numVectors must be > 0");
    FAISS_THROW_IF_NOT_MSG(
            args.vectors, "bfKnn: vectors must be provided (passed null)");
    FAISS_THROW_IF_NOT_MSG(
            args.numQueries > 0, "bfKnn: numQueries must be > 0");
    FAISS_THROW_IF_NOT_MSG(
            args.queries, "bfKnn: queries must be provided (passed null)");
    FAISS_THROW_IF_NOT_MSG(
            args.outDistances,
            "bfKnn: outDistances must be provided (passed null)");
    FAISS_THROW_IF_NOT_MSG(
            args.outIndices || args.k == -1,
            "bfKnn: outIndices must be provided (passed null)");

    auto resources = prov->getResources();
    auto* res = resources.get();
    auto device = getCurrentDevice();
#if CUDA_SIM_FAISS_VERSION >= 10704
    if (args.device >= 0) {
        device = args.device;
    }
#endif
    DeviceScope scope(device);
    auto stream = res->getDefaultStream(device);
    auto count = [](size_t value) { return static_cast<Count>(value); };
    auto toDevice = [&](const void* data, bool rowMajor, size_t rows) {
        return toDeviceTemporary<T, 2>(
                res,
                device,
                const_cast<T*>(static_cast<const T*>(data)),
                stream,
                {count(rowMajor ? rows : args.dims),
                 count(rowMajor ? args.dims : rows)});
    };
    auto vectors =
            toDevice(args.vectors, args.vectorsRowMajor, args.numVectors);
    auto queries =
            toDevice(args.queries, args.queriesRowMajor, args.numQueries);
    DeviceTensor<float, 1, true> norms;
    if (args.vectorNorms) {
        norms = toDeviceTemporary<float, 1>(
                res,
                device,
                const_cast<float*>(args.vectorNorms),
                stream,
                {count(args.numVectors)});
    }
    auto outDistances = toDeviceTemporary<float, 2>(
            res,
            device,
            args.outDistances,
            stream,
            {count(args.numQueries),
             count(args.k == -1 ? args.numVectors : args.k)});

    checkMetric(args.metric);
    constexpr bool isHalf = sizeof(T) == 2;
    Knn knn;
    knn.metric = args.metric;
    knn.metricArg = args.metricArg;
    knn.vectors = {
            vectors.data(),
            isHalf,
            args.vectorsRowMajor,
            size_t(args.numVectors),
            size_t(args.dims)};
    knn.queries = {
            queries.data(),
            isHalf,
            args.queriesRowMajor,
            size_t(args.numQueries),
            size_t(args.dims)};
    float* distances = outDistances.data();

    // Room for labels of the given type at the caller's place or in front of
    // it, filled by `fill`, and brought there.
    auto withLabels = [&](auto* wanted, const auto& fill) {
        using L = typename std::remove_pointer<decltype(wanted)>::type;
        auto labels = toDeviceTemporary<L, 2>(
                res,
                device,
                wanted,
                stream,
                {count(args.numQueries), count(args.k)});
        fill(labels.data());
        fromDevice<L, 2>(labels, wanted, stream);
    };

    size_t results = knn.queries.rows * args.k;
    if (args.k == -1) {
        size_t pairs = knn.queries.rows * knn.vectors.rows;
        std::vector<cuda_sim_range> ranges = {
                {knn.vectors.data, knn.vectors.bytes(), 0},
                {knn.queries.data, knn.queries.bytes(), 0},
                writes(distances, pairs)};
        check(launch("allPairwiseDistanceOnDevice",
                     stream,
                     ranges,
                     [=] { knn.allPairs(view(distances)); }),
              "allPairwiseDistanceOnDevice");
    } else if (args.outIndicesType == IndicesDataType::I64) {
#if CUDA_SIM_FAISS_VERSION < 10704
        DeviceTensor<int, 2, true> narrow(
                res,
                makeTempAlloc(AllocType::Other, stream),
                {args.numQueries, args.k});
        enqueueSearch(
                "bfKnnOnDevice", knn, args.k, distances, narrow.data(), stream);
        withLabels(static_cast<idx_t*>(args.outIndices), [&](idx_t* labels) {
            widen(narrow.data(), labels, results, stream);
        });
#else
        withLabels(static_cast<idx_t*>(args.outIndices), [&](idx_t* labels) {
            enqueueSearch(
                    "bfKnnOnDevice", knn, args.k, distances, labels, stream);
        });
#endif
    } else if (args.outIndicesType == IndicesDataType::I32) {
        withLabels(static_cast<int*>(args.outIndices), [&](int* labels) {
            enqueueSearch(
                    "bfKnnOnDevice", knn, args.k, distances, labels, stream);
        });
    } else {
        FAISS_THROW_MSG("unknown outIndicesType");
    }
    (void)results;

    fromDevice<float, 2>(outDistances, args.outDistances, stream);
}

} // namespace

void bfKnn(GpuResourcesProvider* res, const GpuDistanceParams& args) {
    FAISS_THROW_IF_NOT_MSG(
            args.vectorType == args.queryType,
            "limitation: both vectorType and queryType must currently "
            "be the same (F32 or F16");
    if (args.vectorType == DistanceDataType::F32) {
        bfKnnOf<float>(res, args);
    } else if (args.vectorType == DistanceDataType::F16) {
        bfKnnOf<half>(res, args);
    } else {
        FAISS_THROW_MSG("unknown vectorType");
    }
}

} // namespace gpu
} // namespace faiss
