#include <faiss_ext/gpu/index/GpuCloner.h>

#include <faiss/IndexFlat.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexScalarQuantizer.h>

#include <algorithm>
#include <memory>
#include <string>
#include <typeinfo>

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Devices.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/index/GpuIndexFlatCosine.h>
#include <faiss_ext/gpu/index/IndexShards.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Vectors of a CPU index that are not stored as float32 go over in blocks.
constexpr idx_t kVectorsPerBlock = 1 << 20;

bool isFloat16Store(const faiss::Index* index) {
    auto* quantized = dynamic_cast<const faiss::IndexScalarQuantizer*>(index);
    return quantized && quantized->sq.qtype == faiss::ScalarQuantizer::QT_fp16;
}

/// Faiss' cloner with the flat cases replaced. Indexes that hold others are
/// cloned by Faiss, which comes back here for what they hold.
class FlatCloner : public faiss::gpu::ToGpuCloner {
   public:
    using faiss::gpu::ToGpuCloner::ToGpuCloner;

    faiss::Index* clone_Index(const faiss::Index* index) override {
        if (dynamic_cast<const GpuIndexFlatCosine*>(index)) {
            return partOf(*index, 0, index->ntotal);
        }
        if (usesCuvs(*this)) {
            return faiss::gpu::ToGpuCloner::clone_Index(index);
        }
        if (auto* flat = dynamic_cast<const faiss::IndexFlat*>(index)) {
            return new GpuIndexFlat(provider, flat, flatConfig(useFloat16));
        }
        if (isFloat16Store(index)) {
            auto copy = std::make_unique<GpuIndexFlat>(
                    provider, index->d, index->metric_type, flatConfig(true));
            std::vector<float> block;
            for (idx_t i = 0; i < index->ntotal; i += kVectorsPerBlock) {
                const idx_t n = std::min(kVectorsPerBlock, index->ntotal - i);
                block.resize(static_cast<size_t>(n) * index->d);
                index->reconstruct_n(i, n, block.data());
                copy->add(n, block.data());
            }
            return copy.release();
        }
        return faiss::gpu::ToGpuCloner::clone_Index(index);
    }

    /// Of the vectors [begin, end) of a flat index on the CPU, or of a cosine
    /// index on a GPU, where they stay as they are stored.
    faiss::Index* partOf(const faiss::Index& index, idx_t begin, idx_t end) {
        if (auto* cosine = dynamic_cast<const GpuIndexFlatCosine*>(&index)) {
            auto part = std::make_unique<GpuIndexFlatCosine>(
                    provider,
                    static_cast<int>(cosine->d),
                    flatConfig(useFloat16 || cosine->storesFloat16()));
            part->addFrom(*cosine, begin, end - begin);
            return part.release();
        }
        const auto& flat = dynamic_cast<const faiss::IndexFlat&>(index);
        faiss::IndexFlat empty(flat.d, flat.metric_type);
        empty.metric_arg = flat.metric_arg;
        std::unique_ptr<faiss::Index> part(clone_Index(&empty));
        part->add(end - begin, flat.get_xb() + begin * flat.d);
        return part.release();
    }

   private:
    faiss::gpu::GpuIndexFlatConfig flatConfig(bool float16) const {
        faiss::gpu::GpuIndexFlatConfig config;
        config.device = device;
        config.useFloat16 = float16;
        return config;
    }
};

/// Faiss' cloner for several GPUs, which makes stock indexes of flat ones
/// through copies of its single-GPU cloner; so the flat cases are met here.
class MultipleCloner : public faiss::gpu::ToGpuClonerMultiple {
   public:
    using faiss::gpu::ToGpuClonerMultiple::ToGpuClonerMultiple;

    faiss::Index* clone_Index(const faiss::Index* index) override {
        if (sub_cloners.size() == 1) {
            return onGpu(0, index);
        }
        const bool known = dynamic_cast<const faiss::IndexFlat*>(index) ||
                           dynamic_cast<const GpuIndexFlatCosine*>(index);
        if (!known || sub_cloners.empty()) {
            return withOurShards(
                    faiss::gpu::ToGpuClonerMultiple::clone_Index(index));
        }
        return shard ? shardsOf(*index) : replicasOf(*index);
    }

   private:
    FlatCloner clonerOf(size_t i) const {
        const auto& sub = sub_cloners[i];
        return FlatCloner(sub.provider, sub.device, *this);
    }

    faiss::Index* onGpu(size_t i, const faiss::Index* index) const {
        return clonerOf(i).clone_Index(index);
    }

    faiss::Index* replicasOf(const faiss::Index& index) const {
        auto replicas = std::make_unique<faiss::IndexReplicas>();
        ownSubIndexes(*replicas, true);
        for (size_t i = 0; i < sub_cloners.size(); ++i) {
            replicas->addIndex(onGpu(i, &index));
        }
        return replicas.release();
    }

    faiss::Index* shardsOf(const faiss::Index& index) const {
        const auto count = static_cast<idx_t>(sub_cloners.size());
        auto shards = std::make_unique<IndexShards>(
                index.d, /*threaded=*/true, /*successive_ids=*/true);
        ownSubIndexes(*shards, true);
        for (idx_t i = 0; i < count; ++i) {
            shards->add_shard(clonerOf(i).partOf(
                    index,
                    index.ntotal * i / count,
                    index.ntotal * (i + 1) / count));
        }
        return shards.release();
    }

    /// Shards of Faiss' become ours, with what they hold.
    static faiss::Index* withOurShards(faiss::Index* made) {
        auto* theirs = dynamic_cast<faiss::IndexShards*>(made);
        // Those of one inverted file are a class of their own.
        if (!theirs || typeid(*theirs) != typeid(faiss::IndexShards)) {
            return made;
        }
        std::unique_ptr<faiss::IndexShards> owner(theirs);
        auto ours = std::make_unique<IndexShards>(
                made->d, /*threaded=*/true, theirs->successive_ids);
        ownSubIndexes(*ours, false);
        for (int i = 0; i < theirs->count(); ++i) {
            ours->addIndex(theirs->at(i));
        }
        // Not before: that may throw.
        ownSubIndexes(*theirs, false);
        ownSubIndexes(*ours, true);
        return ours.release();
    }
};

void checkArguments(
        const faiss::gpu::GpuResourcesProvider* provider,
        int device,
        const faiss::Index* index) {
    checkDevice(device, "device");
    FAISS_THROW_IF_NOT_MSG(provider, "provider: null; resources are needed");
    FAISS_THROW_IF_NOT_MSG(index, "index: null; an index on the CPU is needed");
}

} // namespace

faiss::Index* index_cpu_to_gpu(
        faiss::gpu::GpuResourcesProvider* provider,
        int device,
        const faiss::Index* index,
        const faiss::gpu::GpuClonerOptions* options) {
    checkArguments(provider, device, index);
    // Indexes of Faiss' own are made here, too.
    const RelaxedCapture relaxed;
    const faiss::gpu::GpuClonerOptions defaults;
    return FlatCloner(provider, device, options ? *options : defaults)
            .clone_Index(index);
}

faiss::Index* index_cpu_to_gpu_multiple(
        std::vector<faiss::gpu::GpuResourcesProvider*>& provider,
        std::vector<int>& devices,
        const faiss::Index* index,
        const faiss::gpu::GpuMultipleClonerOptions* options) {
    if (provider.size() != devices.size()) {
        throw InvalidDevice(
                "provider: " + std::to_string(provider.size()) +
                " resources for " + std::to_string(devices.size()) +
                " devices: give one for each");
    }
    if (devices.empty()) {
        // Faiss makes an index of none, which has lost the vectors.
        throw InvalidDevice("devices: none; one or more is needed");
    }
    for (size_t i = 0; i < devices.size(); ++i) {
        checkArguments(provider[i], devices[i], index);
    }
    const RelaxedCapture relaxed;
    const faiss::gpu::GpuMultipleClonerOptions defaults;
    return MultipleCloner(provider, devices, options ? *options : defaults)
            .clone_Index(index);
}

} // namespace gpu
} // namespace faiss_ext
