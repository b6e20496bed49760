#pragma once

#include <cuda_runtime_api.h>
#include <faiss/gpu/GpuResources.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/RowArrays.h>
#include <faiss_ext/gpu/call/TilePlan.h>
#include <faiss_ext/gpu/compute/CallLanes.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/host/HostCopies.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>
#include <faiss_ext/gpu/index/StagedConfig.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

namespace faiss_ext {
namespace gpu {

/// A row-major array that a call reads, [n, rowBytes]; host or device memory.
struct InputRows {
    const char* name;
    const void* data;
    size_t rowBytes;
};

/// A row-major array that a call writes and never reads, [n, rowBytes]; host or
/// device memory. data == nullptr: computed because the work must put it
/// somewhere, then dropped. byKernels: the work writes it with kernels alone,
/// and so can in pinned memory. behindLast: it begins where the output before
/// it ends, in the same allocation, and `data` is not looked at.
struct OutputRows {
    const char* name;
    void* data;
    size_t rowBytes;
    bool byKernels = false;
    bool behindLast = false;
};

/// What a call computes.
struct TileWork {
    /// Enqueues the computation of rows [first, first + rows) on the default
    /// stream of `on`: the resources of the index, or a lane (ComputeLane).
    /// `inputs` and `outputs` are device pointers to the first of these rows,
    /// in the order in which the arrays were given.
    std::function<void(
            faiss::gpu::GpuResources& on,
            idx_t first,
            idx_t rows,
            const void* const* inputs,
            void* const* outputs)>
            enqueue;

    /// Floating-point operations for each row, about, which decide how the call
    /// is cut; 0: not known.
    double rowOperations = 0;

    /// Scratch memory that `enqueue` takes on a lane, whatever rows of the call
    /// it is given. 0: it computes on the resources of the index alone.
    size_t laneBytes = 0;

    /// On how many lanes it is best computed side by side, where the config of
    /// the index leaves that open.
    int lanes = 1;
};

/// Moves the rows of a call to the GPU and its results to where the caller
/// wants them, tile by tile, in stream order: while one tile computes, the next
/// one goes up and the last one comes back.
///
/// Uploads run on a stream of its own, computation on the default stream of
/// Faiss' resources, copy-back on their asynchronous copy stream. (Faiss'
/// alternate streams are taken by its own distance computation: an upload there
/// would stand between its kernels.) A call of one tile copies on the default
/// stream too. Large computations run on lanes instead of the default stream,
/// part beside part. docs/architecture.md tells the life of a search.
///
/// Not thread-safe: the caller holds the lock of the resources.
class FAISS_EXT_API StagingPipeline {
   public:
    /// Allocates nothing on the GPU. Throws InvalidArray for a bad config.
    StagingPipeline(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int device,
            const StagedConfig& config);

    /// Waits for all work on the device, then frees the memory of this object.
    /// If the CUDA context is lost, the GPU works on nothing any more, and
    /// Faiss' resources, which abort the process when they cannot free, are
    /// kept for ever, with what was allocated from them.
    ~StagingPipeline();

    /// A call that is under way, of any index of the resources: while it lives,
    /// the code of others that its thread runs (a signal's handler, a pool's
    /// callback) gets Unsupported for other calls. Waits for what a call that
    /// failed has left in flight. Throws CudaError, and Unsupported itself.
    class FAISS_EXT_API UnderWay {
       public:
        explicit UnderWay(StagingPipeline& pipeline);
        ~UnderWay();
        UnderWay(const UnderWay&) = delete;
        UnderWay& operator=(const UnderWay&) = delete;

       private:
        CallState& calls_;
    };

    /// The change of an index, for its scope. Waits first for the work in
    /// flight that uses memory of this object, since Faiss' code would abort
    /// the process when it met a lost context. Throws as UnderWay, and
    /// Interrupted.
    class FAISS_EXT_API Change {
       public:
        explicit Change(StagingPipeline& pipeline);

       private:
        UnderWay underWay_;
    };

    /// Runs `work` over n >= 1 rows; the index's device is current. Outputs
    /// first those with the largest elements, so that packing keeps them
    /// aligned.
    ///
    /// With any output in host memory: returns when every output is complete,
    /// after one wait for one event; a call that is estimated to take longer
    /// than config().secondsAhead also waits for its own earlier computations,
    /// so as not to run further ahead of the GPU than that. Otherwise: returns
    /// when the work is enqueued, in the order of the default stream; pageable
    /// inputs have been read by then, pinned and managed ones must stay as they
    /// are until the stream has passed.
    ///
    /// Throws InvalidArray (nothing was enqueued), CudaError, Interrupted (from
    /// the waits of such a long call), Unsupported in the midst of another call
    /// of the same thread, or what `work` throws; then nothing in flight
    /// touches the caller's memory any more, and outputs may be partly written.
    /// Where `work` says that memory ran out (isOutOfMemory), and nowhere else,
    /// the call begins anew with fewer rows at once.
    void run(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            const TileWork& work);

    /// The same call, timed stage by stage; returns when every output is
    /// complete, wherever it lies. Waits a few times more, to compare the
    /// clocks and, where `run` would not, for the outputs.
    SearchProfile profile(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            const TileWork& work);

    /// Waits until the work enqueued so far on the default stream is done; one
    /// host wait, to its end. Throws CudaError.
    void waitForDefaultStream();

    /// The same as a call of its own, before one that is to read what that work
    /// may write. Throws as UnderWay, and Interrupted.
    void waitForArguments();

    TransferCounters& counters() noexcept {
        return counters_;
    }

    /// As it was given, without zeros.
    const StagedConfig& config() const noexcept {
        return config_;
    }

    /// Whether a TileWork may take memory to compute parts side by side: not
    /// where a call begins anew because there was too little.
    bool sideBySide() const noexcept {
        return sideBySide_;
    }

    /// For a TileWork that divides what it does on the default stream by
    /// itself; from `enqueue` alone, when that is not on a lane.
    CallLanes lanes() {
        return {*resources_, device_, laneStore_, counters_};
    }

   private:
    class Call;

    /// Device memory kept from call to call.
    struct DeviceBlock {
        std::optional<faiss::gpu::GpuMemoryReservation> memory;
        char* data() {
            return memory ? static_cast<char*>(memory->get()) : nullptr;
        }
    };

    /// What one tile under way holds. The events outlive the call: a later call
    /// that takes the slot's memory waits for them, on its stream.
    struct Slot {
        DeviceBlock in;
        DeviceBlock out;
        /// Upload stream: the rows are in `in`.
        Event uploaded;
        /// Default stream, or each lane: `in` has been read, `out` written.
        std::vector<Event> computed;
        /// Copy stream: `out` has been read.
        Event downloaded;
    };

    idx_t callUntilItFits(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            const TileWork& work,
            StageRecorder* recorder);
    void waitForAll();
    void waitForDefaultStreamUnlessInterrupted();
    void settle();
    const Event& markDefaultStream();
    void wait(const Event& event);
    void waitUnlessInterrupted(const Event& event);
    void keepForEver() noexcept;
    int growSlots(int depth, size_t gap, size_t in, size_t out);
    bool growBlock(DeviceBlock& block, size_t gap, size_t bytes);
    void freeBlocks(size_t first);
    faiss::gpu::GpuMemoryReservation temporary(size_t bytes);
    void enqueue(const std::vector<DeviceCopy>& copies, cudaStream_t stream);

    const std::shared_ptr<faiss::gpu::GpuResources> resources_;
    const int device_;
    const std::shared_ptr<CallState> calls_;
    /// In `calls_`.
    bool& unsettled_;
    // Without zeros: for calls that compute on the default stream, and on
    // lanes.
    const StagedConfig config_;
    const StagedConfig laneConfig_;
    /// About, with Faiss' kernels.
    const double operationsPerSecond_;

    // Before the pool, which counts into it to its end.
    TransferCounters counters_;
    PinnedBufferPool pool_;

    // Made by the first call that needs them, kept for the later ones.
    std::optional<Stream> uploadStream_;
    std::optional<Event> start_;
    std::optional<Event> done_;
    std::vector<Slot> slots_;
    LaneStore laneStore_;
    /// For Pace.
    std::vector<Event> spareMarks_;
    bool sideBySide_ = true;
    const HostCopier copier_;
    HostCopies uploads_{copier_};
    HostCopies downloads_{copier_};
    std::optional<StageRecorder> recorder_;
};

} // namespace gpu
} // namespace faiss_ext
