#pragma once

#include <faiss/gpu/GpuResources.h>

#include <cstdint>
#include <optional>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/compute/PathCounters.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/faiss/FlatVectors.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/resources/KeptMemory.h>

namespace faiss_ext {
namespace gpu {

/// What the exact searches of one index keep: 8 bytes a vector on the GPU, and
/// the counts of their queries. Not thread-safe, but for `paths`: the caller
/// holds the lock of the resources.
class FAISS_EXT_API ExactVectors : public KeptMemory {
   public:
    /// All outlive this. Allocates nothing.
    ExactVectors(
            faiss::gpu::GpuResources& resources,
            int device,
            TransferCounters& counters);

    /// Of these vectors, one at least: made on the default stream, in whose
    /// order it is to be used, if `changes`, the number of changes of the
    /// index, the vectors' memory or the metric is not what it was. Work that
    /// uses an earlier one ended before the change. Where there is no memory to
    /// keep it, it is made in `temporary`, for as long as that lives; where
    /// there is none for that either, OutOfMemory names the way to do without.
    /// To make it is a part of what `recorder` records, if that is not null.
    /// Throws faiss::FaissException, CudaError, Interrupted; then there is
    /// none.
    exact::IndexState stateOf(
            const VectorsView& vectors,
            exact::Metric metric,
            const exact::TensorArithmetic& arithmetic,
            uint64_t changes,
            std::optional<ScratchMemory>& temporary,
            StageRecorder* recorder);

    PathCounters& paths() {
        return paths_;
    }

    void freeNow() noexcept override;
    void keepForEver() noexcept override;

   private:
    void reserve(size_t bytes);
    char* takeTemporary(
            size_t bytes,
            idx_t vectors,
            std::optional<ScratchMemory>& temporary);

    faiss::gpu::GpuResources& resources_;
    const int device_;
    TransferCounters& counters_;
    PathCounters paths_;

    std::optional<faiss::gpu::GpuMemoryReservation> memory_;
    exact::IndexState state_{};
    /// Of what, where there is one.
    struct Origin {
        uint64_t changes;
        const void* data;
        idx_t vectors;
        exact::Metric metric;

        bool operator==(const Origin& other) const {
            return changes == other.changes && data == other.data &&
                   vectors == other.vectors && metric == other.metric;
        }
    };
    std::optional<Origin> origin_;
};

} // namespace gpu
} // namespace faiss_ext
