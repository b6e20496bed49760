// Replaces GpuIndexFlat::searchImpl_, FlatIndex::query and the merge of what
// was found in parts: the same checks, the same temporary memory, the same
// waits, and then one operation in place of the kernels.

#include <cuda_fp16.h>
#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/gpu/GpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>
#include <faiss/impl/FaissAssert.h>
#include <faiss/impl/IDSelector.h>
#include <faiss/gpu/utils/CopyUtils.cuh>
#include <faiss/gpu/utils/DeviceTensor.cuh>

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <vector>

#include "Convert.h"
#include "EnqueueSearch.h"

// From 1.14.3 on, a flat index searches among selected vectors.
#if CUDA_SIM_FAISS_VERSION >= 11403
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

   private:
    // Given back last to first, as a stack is.
    std::array<GpuMemoryReservation, 7> taken_;
};

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
#if CUDA_SIM_FAISS_VERSION < 11403
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

} // namespace gpu
} // namespace faiss
