#include <faiss_ext/gpu/call/CallRunner.h>

#include <limits>
#include <utility>

#include <faiss_ext/gpu/call/Call.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

namespace {

double estimatedSpeed(int device) {
    int multiprocessors = 0;
    FAISS_EXT_CUDA_TRY(cudaDeviceGetAttribute(
            &multiprocessors, cudaDevAttrMultiProcessorCount, device));
    return multiprocessors * tuning::kOperationsPerMultiprocessorSecond;
}

} // namespace

CallResources::CallResources(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int gpu,
        const CallConfig& complete)
        : faiss(std::move(resources)),
          device(gpu),
          calls(callStateOf(faiss.get())),
          unsettled(calls->unsettled[gpu]),
          config(complete),
          operationsPerSecond(estimatedSpeed(gpu)),
          pinned(complete.pinnedBytes, counters),
          blocks(*faiss, gpu, counters, [this] { waitUntilUnused(); }),
          copier(copyTeamOf(faiss.get()),
                 complete.copyThreads,
                 complete.copyChunkBytes) {}

void CallResources::wait(const Event& event) {
    ++counters.hostWaits;
    event.wait();
}

void CallResources::waitUnlessInterrupted(const Event& event) {
    ++counters.hostWaits;
    faiss_ext::gpu::waitUnlessInterrupted(event);
}

const Event& CallResources::markDefaultStream() {
    if (!done) {
        done.emplace();
    }
    done->record(defaultStream());
    return *done;
}

void CallResources::waitUntilUnused() {
    const Event& end = markDefaultStream();
    if (!end.reached()) {
        waitUnlessInterrupted(end);
    }
}

void CallResources::settle() {
    for (auto& [gpu, left] : calls->unsettled) {
        if (!left) {
            continue;
        }
        try {
            const DeviceGuard current(gpu);
            FAISS_EXT_CUDA_TRY(cudaDeviceSynchronize());
        } catch (const CudaError&) {
            // Another GPU that is lost writes nothing any more.
            if (gpu == device || !contextLost(faiss->getAsyncCopyStream(gpu))) {
                throw;
            }
        }
        left = false;
    }
}

CallRunner::UnderWay::UnderWay(CallRunner& runner)
        : calls_(*runner.kept_.calls) {
    calls_.refuseWhileUnderWay();
    runner.kept_.settle();
    calls_.underWay = true;
}

CallRunner::UnderWay::~UnderWay() {
    calls_.underWay = false;
}

CallRunner::Change::Change(CallRunner& runner) : underWay_(runner) {
    DeviceGuard guard(runner.kept_.device);
    runner.kept_.waitUntilUnused();
}

CallRunner::CallRunner(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        const StagedConfig& config)
        : kept_(std::move(resources), device, complete(config)) {}

CallRunner::~CallRunner() {
    const RelaxedCapture relaxed;
    // For what others have in flight, too: a GPU lost in that shows here, and
    // not in Faiss' destructors, which would end the process.
    waitForDevice(kept_.device);
    try {
        // cudaFree, of which that makes use, is not said to wait for host
        // functions, and these are of this object.
        kept_.settle();
    } catch (const CudaError&) {
        // Whether that is the end shows below.
    }
    // Of a stream that is Faiss' own: the default one may be a caller's, who
    // has destroyed it by now.
    if (contextLost(kept_.faiss->getAsyncCopyStream(kept_.device))) {
        kept_.blocks.keepForEver();
        if (indexMemory_) {
            indexMemory_->keepForEver();
        }
        keepForEver(kept_.faiss);
    }
    // Right after the question, before any other CUDA call.
    kept_.blocks.freeNow();
    if (indexMemory_) {
        indexMemory_->freeNow();
    }
}

void CallRunner::run(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        Computation& computation) {
    runUntilItFits(n, inputs, outputs, computation, nullptr);
}

SearchProfile CallRunner::profile(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        Computation& computation) {
    if (!recorder_) {
        peaks_ = peaksOf(figuresOf(kept_.device));
        recorder_.emplace();
    }
    const CallPlan plan =
            runUntilItFits(n, inputs, outputs, computation, &*recorder_);
    // Not before the call has given its memory back: this may throw.
    SearchProfile profile = recorder_->finish(
            plan.tiles.tiles(), computation.leastWork(n), peaks_);
    profile.plan = plan.text();
    if (*computation.computedBy()) {
        profile.plan += std::string("; by ") + computation.computedBy();
    }
    return profile;
}

CallLimits CallRunner::limits() const {
    // Before that, Faiss ends the process over questions.
    kept_.faiss->initializeForDevice(kept_.device);
    const auto [buffer, bytes] = kept_.faiss->getPinnedMemory();
    const bool useful = buffer && bytes >= tuning::kSmallestFaissBuffer;
    return {kept_.config,
            kept_.pinned.capacity(),
            useful ? bytes : 0,
            kept_.faiss->getTempMemoryAvailable(kept_.device),
            kept_.operationsPerSecond};
}

/// Returns the plan that was carried out. What a tile is computed with, Faiss
/// allocates: where the GPU has no memory left for that, the call begins anew
/// by a plan with half as many rows at once, and without the blocks kept so
/// far. What is thrown for want of memory for a single row is thrown, and so is
/// all that means something else, such as an interrupt.
CallPlan CallRunner::runUntilItFits(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        Computation& computation,
        StageRecorder* recorder) {
    const UnderWay underWay(*this);
    bool scarce = false;
    idx_t mostRows = std::numeric_limits<idx_t>::max();
    while (true) {
        kept_.settle();
        if (recorder) {
            recorder->start(kept_.defaultStream(), [this](const Event& event) {
                kept_.wait(event);
            });
        }
        {
            CallLimits within = limits();
            within.scarce = scarce;
            within.mostRows = mostRows;
            Call call(kept_, n, inputs, outputs, computation, recorder, within);
            try {
                call.run();
                return call.plan();
            } catch (const faiss::FaissException& e) {
                rethrowUnlessOutOfMemory(e, kept_.defaultStream());
                if (!halve(within, call.plan())) {
                    throw;
                }
                scarce = within.scarce;
                mostRows = within.mostRows;
            }
        }
        // Throws if the context is lost. Streams side by side, which used the
        // blocks, were waited for at the end of the call.
        kept_.blocks.free();
    }
}

void CallRunner::waitForArguments() {
    const UnderWay underWay(*this);
    kept_.waitUnlessInterrupted(kept_.markDefaultStream());
}

void CallRunner::waitForDefaultStream() {
    kept_.wait(kept_.markDefaultStream());
}

} // namespace gpu
} // namespace faiss_ext
