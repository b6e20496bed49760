#pragma once

#include <faiss/gpu/GpuResources.h>

#include <memory>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/call/CallArrays.h>
#include <faiss_ext/gpu/call/CallPlan.h>
#include <faiss_ext/gpu/call/DeviceBlocks.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/Computation.h>
#include <faiss_ext/gpu/compute/ComputeStreams.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/host/HostCopies.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>
#include <faiss_ext/gpu/index/TransferStats.h>
#include <faiss_ext/gpu/profile/SearchProfile.h>
#include <faiss_ext/gpu/profile/StageRecorder.h>
#include <faiss_ext/gpu/resources/KeptMemory.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

namespace faiss_ext {
namespace gpu {

/// What the calls of one index are made with, kept from one to the next.
struct CallResources {
    CallResources(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int device,
            const CallConfig& config);

    cudaStream_t defaultStream() const {
        return faiss->getDefaultStream(device);
    }

    // One host wait each; the second one as Interrupts.h has it. Throw
    // CudaError, and Interrupted.
    void wait(const Event& event);
    void waitUnlessInterrupted(const Event& event);

    /// A mark on the default stream as it is now; until the next one.
    const Event& markDefaultStream();

    /// Waits until nothing in flight uses memory of this object: every call
    /// leaves what it has on other streams ordered before the default stream,
    /// or has waited for it.
    void waitUntilUnused();

    /// Waits for what a call that failed, of any index of the resources, may
    /// have left in flight, on any GPU: Faiss' pinned buffer is one for all.
    void settle();

    const std::shared_ptr<faiss::gpu::GpuResources> faiss;
    const int device;
    const std::shared_ptr<CallState> calls;
    /// In `calls`.
    bool& unsettled;
    const CallConfig config;
    /// About, with Faiss' kernels.
    const double operationsPerSecond;

    // Before the pool, which counts into it to its end.
    TransferCounters counters;
    PinnedBufferPool pinned;
    DeviceBlocks blocks;

    // Made by the first call that needs them.
    std::optional<Stream> uploadStream;
    std::optional<Event> start;
    std::optional<Event> done;
    ComputeStreams::Kept computeStreams;
    /// For Pace.
    std::vector<Event> spareMarks;

    const HostCopier copier;
    HostCopies uploads{copier};
    HostCopies downloads{copier};
};

/// Runs the calls of one index: moves rows to the GPU and results to where the
/// caller wants them, tile by tile, in stream order, so that while one tile
/// computes, the next one goes up and the last one comes back. CallPlan says
/// how; docs/architecture.md tells the life of a search.
///
/// Uploads run on a stream of its own, computation on the default stream of
/// Faiss' resources or on several side by side, copy-back on their asynchronous
/// copy stream. (Faiss' alternate streams are taken by its own distance
/// computation: an upload there would stand between its kernels.)
///
/// Not thread-safe: the caller holds the lock of the resources.
class FAISS_EXT_API CallRunner {
   public:
    /// Allocates nothing on the GPU. Throws InvalidArray for a bad config.
    CallRunner(
            std::shared_ptr<faiss::gpu::GpuResources> resources,
            int device,
            const StagedConfig& config);

    /// Waits for all work on the device, then frees the memory of this object.
    /// If the CUDA context is lost, the GPU works on nothing any more, and
    /// Faiss' resources, which abort the process when they cannot free, are
    /// kept for ever, with what was allocated from them.
    ~CallRunner();

    /// A call that is under way, of any index of the resources: while it lives,
    /// the code of others that its thread runs (a signal's handler, a pool's
    /// callback) gets Unsupported for other calls. Waits for what a call that
    /// failed has left in flight. Throws CudaError, and Unsupported itself.
    class FAISS_EXT_API UnderWay {
       public:
        explicit UnderWay(CallRunner& runner);
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
        explicit Change(CallRunner& runner);

       private:
        UnderWay underWay_;
    };

    /// Runs `computation` over n >= 1 rows; the index's device is current.
    /// Outputs first those with the largest elements, so that packing keeps
    /// them aligned.
    ///
    /// With any output in host memory: returns when every output is complete,
    /// after one wait for one event; a call that is estimated to take longer
    /// than twice Tuning::secondsAhead also waits for its own earlier
    /// computations, so as not to run further ahead of the GPU than that.
    /// Otherwise: returns when the work is enqueued, in the order of the
    /// default stream; pageable inputs have been read by then, pinned and
    /// managed ones must stay as they are until the stream has passed.
    ///
    /// Throws InvalidArray (nothing was enqueued), CudaError, Interrupted (from
    /// the waits of such a long call), Unsupported in the midst of another call
    /// of the same thread, or what `computation` throws; then nothing in flight
    /// touches the caller's memory any more, and outputs may be partly written.
    /// Where memory ran out (isOutOfMemory), and nowhere else, the call begins
    /// anew by another plan, with fewer rows at once.
    void run(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            Computation& computation);

    /// The same call, timed stage by stage; returns when every output is
    /// complete, wherever it lies. Waits a few times more, to compare the
    /// clocks and, where `run` would not, for the outputs.
    SearchProfile profile(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            Computation& computation);

    /// Waits until the work enqueued so far on the default stream is done; one
    /// host wait, to its end. Throws CudaError.
    void waitForDefaultStream();

    /// The same as a call of its own, before one that is to read what that work
    /// may write. Throws as UnderWay, and Interrupted.
    void waitForArguments();

    TransferCounters& counters() noexcept {
        return kept_.counters;
    }
    const CallConfig& config() const noexcept {
        return kept_.config;
    }

    /// `memory` is freed at the end of this object, and outlives it.
    void keep(KeptMemory& memory) noexcept {
        indexMemory_ = &memory;
    }

   private:
    CallPlan runUntilItFits(
            idx_t n,
            const std::vector<InputRows>& inputs,
            const std::vector<OutputRows>& outputs,
            Computation& computation,
            StageRecorder* recorder);
    CallLimits limits() const;

    CallResources kept_;
    KeptMemory* indexMemory_ = nullptr;
    // Of the first profile on.
    std::optional<StageRecorder> recorder_;
    GpuPeaks peaks_;
};

} // namespace gpu
} // namespace faiss_ext
