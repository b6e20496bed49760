#include <faiss_ext/gpu/call/StagingPipeline.h>

#include <algorithm>
#include <utility>

#include <faiss_ext/gpu/call/StagingCall.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

StagingPipeline::UnderWay::UnderWay(StagingPipeline& pipeline)
        : calls_(*pipeline.calls_) {
    calls_.refuseWhileUnderWay();
    pipeline.settle();
    calls_.underWay = true;
}

StagingPipeline::UnderWay::~UnderWay() {
    calls_.underWay = false;
}

StagingPipeline::Change::Change(StagingPipeline& pipeline)
        : underWay_(pipeline) {
    DeviceGuard guard(pipeline.device_);
    pipeline.waitForAll();
}

namespace {

double estimatedSpeed(int device) {
    int multiprocessors = 0;
    FAISS_EXT_CUDA_TRY(cudaDeviceGetAttribute(
            &multiprocessors, cudaDevAttrMultiProcessorCount, device));
    return multiprocessors * tuning::kOperationsPerMultiprocessorSecond;
}

} // namespace

StagingPipeline::StagingPipeline(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        const StagedConfig& config)
        : resources_(std::move(resources)),
          device_(device),
          calls_(callStateOf(resources_.get())),
          unsettled_(calls_->unsettled[device]),
          config_(withDefaults(config)),
          laneConfig_(withDefaults(config, true)),
          operationsPerSecond_(estimatedSpeed(device)),
          pool_(config_.pinnedBytes, counters_),
          copier_(copyTeamOf(resources_.get()), config_) {}

StagingPipeline::~StagingPipeline() {
    const RelaxedCapture relaxed;
    // For what others have in flight, too: a GPU lost in that shows here, and
    // not in Faiss' destructors, which would end the process.
    waitForDevice(device_);
    try {
        // cudaFree, of which that makes use, is not said to wait for host
        // functions, and these are of this object.
        settle();
    } catch (const CudaError&) {
        // Whether that is the end shows below.
    }
    // Of a stream that is Faiss' own: the default one may be a caller's, who
    // has destroyed it by now.
    if (contextLost(resources_->getAsyncCopyStream(device_))) {
        keepForEver();
    }
    // Right after the question, before any other CUDA call.
    for (Slot& slot : slots_) {
        slot.in.memory.reset();
        slot.out.memory.reset();
    }
}

void StagingPipeline::waitForAll() {
    // Every call leaves what it has in flight on other streams ordered before
    // the default stream, or has waited for it.
    const cudaError_t state =
            cudaStreamQuery(resources_->getDefaultStream(device_));
    if (state == cudaErrorNotReady) {
        cudaGetLastError();
        waitForDefaultStreamUnlessInterrupted();
    } else {
        FAISS_EXT_CUDA_TRY(state);
    }
}

/// The CUDA context is lost: what Faiss would abort on when it cannot free it
/// is not freed.
void StagingPipeline::keepForEver() noexcept {
    for (Slot& slot : slots_) {
        for (DeviceBlock* block : {&slot.in, &slot.out}) {
            if (block->memory) {
                block->memory->data = nullptr;
            }
        }
    }
    faiss_ext::gpu::keepForEver(resources_);
}

void StagingPipeline::run(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        const TileWork& work) {
    callUntilItFits(n, inputs, outputs, work, nullptr);
}

SearchProfile StagingPipeline::profile(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        const TileWork& work) {
    if (!recorder_) {
        recorder_.emplace();
    }
    const idx_t tiles = callUntilItFits(n, inputs, outputs, work, &*recorder_);
    // Not before the call has given its memory back: this may throw.
    return recorder_->finish(tiles);
}

/// Returns the number of tiles. What a tile is computed with, Faiss allocates:
/// where the GPU has no memory left for that, the call begins anew with half as
/// many rows at once, nothing side by side, and without the blocks kept so far.
/// What is thrown for want of memory for a single row is thrown, and so is all
/// that means something else, such as an interrupt.
idx_t StagingPipeline::callUntilItFits(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        const TileWork& work,
        StageRecorder* recorder) {
    const UnderWay underWay(*this);
    sideBySide_ = true;
    idx_t mostRows = n;
    while (true) {
        settle();
        if (recorder) {
            recorder->start(
                    resources_->getDefaultStream(device_),
                    [this](const Event& event) { wait(event); });
        }
        {
            Call call(*this, n, inputs, outputs, work, recorder, mostRows);
            try {
                call.run();
                return call.tiles();
            } catch (const faiss::FaissException& e) {
                rethrowUnlessOutOfMemory(
                        e, resources_->getDefaultStream(device_));
                const idx_t rows = call.rowsAtOnce();
                if (rows == 1 && !sideBySide_) {
                    throw;
                }
                mostRows = std::max<idx_t>(1, rows / 2);
                sideBySide_ = false;
            }
        }
        // Throws if the context is lost. Lanes, which used the blocks, were
        // waited for at the end of the call.
        freeBlocks(0);
    }
}

/// Waits for what a call that failed, of any index of the resources, may have
/// left in flight, on any GPU: Faiss' pinned buffer is one for all.
void StagingPipeline::settle() {
    for (auto& [device, unsettled] : calls_->unsettled) {
        if (!unsettled) {
            continue;
        }
        try {
            const DeviceGuard current(device);
            FAISS_EXT_CUDA_TRY(cudaDeviceSynchronize());
        } catch (const CudaError&) {
            // Another GPU that is lost writes nothing any more.
            if (device == device_ ||
                !contextLost(resources_->getAsyncCopyStream(device))) {
                throw;
            }
        }
        unsettled = false;
    }
}

void StagingPipeline::waitForArguments() {
    const UnderWay underWay(*this);
    waitForDefaultStreamUnlessInterrupted();
}

void StagingPipeline::waitForDefaultStream() {
    wait(markDefaultStream());
}

void StagingPipeline::waitForDefaultStreamUnlessInterrupted() {
    waitUnlessInterrupted(markDefaultStream());
}

const Event& StagingPipeline::markDefaultStream() {
    if (!done_) {
        done_.emplace();
    }
    done_->record(resources_->getDefaultStream(device_));
    return *done_;
}

void StagingPipeline::wait(const Event& event) {
    ++counters_.hostWaits;
    event.wait();
}

void StagingPipeline::waitUnlessInterrupted(const Event& event) {
    ++counters_.hostWaits;
    faiss_ext::gpu::waitUnlessInterrupted(event);
}

/// Makes sure that the first slots have blocks of `gap` and `in`, and of `out`
/// bytes: `depth` of them, or as many as the GPU has memory for, which is
/// returned. The others then have none.
int StagingPipeline::growSlots(int depth, size_t gap, size_t in, size_t out) {
    while (slots_.size() < static_cast<size_t>(depth)) {
        slots_.emplace_back();
    }
    const auto grow = [&](Slot& slot) {
        return growBlock(slot.in, gap, in) && growBlock(slot.out, 0, out);
    };
    for (int s = 0; s < depth; ++s) {
        if (grow(slots_[s])) {
            continue;
        }
        // Blocks that were too small, or are of later slots, make room.
        freeBlocks(s);
        if (!grow(slots_[s])) {
            freeBlocks(s);
            return s;
        }
    }
    return depth;
}

/// Makes sure that a slot's block holds `gap` and `bytes`; false if the GPU has
/// not so much memory left, and then there is none. A smaller one is exchanged
/// once its last user is done with it.
bool StagingPipeline::growBlock(DeviceBlock& block, size_t gap, size_t bytes) {
    if (bytes == 0 || (block.memory && block.memory->size >= gap + bytes)) {
        return true;
    }
    if (block.memory) {
        // All, and not this slot alone: freeing waits for the whole device.
        waitForAll();
        block.memory.reset();
    }
    try {
        // Not from Faiss' temporary memory, which is safe only in the order of
        // one stream. Powers of two, so that slowly growing calls do not
        // allocate each time.
        block.memory.emplace(
                resources_->allocMemoryHandle(faiss::gpu::AllocRequest(
                        faiss::gpu::AllocType::Other,
                        device_,
                        faiss::gpu::MemorySpace::Device,
                        resources_->getDefaultStream(device_),
                        gap + PinnedBufferPool::bucketSize(bytes))));
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, resources_->getDefaultStream(device_));
        return false;
    }
    ++counters_.deviceAllocations;
    return true;
}

/// Frees the blocks of the slots from `first` on, once their last users are
/// done with them. Throws CudaError, such as where the context is lost, and
/// that was why there seemed to be no memory.
void StagingPipeline::freeBlocks(size_t first) {
    waitForAll();
    for (size_t s = first; s < slots_.size(); ++s) {
        slots_[s].in.memory.reset();
        slots_[s].out.memory.reset();
    }
}

/// Faiss' temporary memory, for work on the default stream alone.
faiss::gpu::GpuMemoryReservation StagingPipeline::temporary(size_t bytes) {
    return resources_->allocMemoryHandle(faiss::gpu::AllocRequest(
            faiss::gpu::AllocType::Other,
            device_,
            faiss::gpu::MemorySpace::Temporary,
            resources_->getDefaultStream(device_),
            bytes));
}

void StagingPipeline::enqueue(
        const std::vector<DeviceCopy>& copies, cudaStream_t stream) {
    for (const DeviceCopy& copy : copies) {
        FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                copy.destination,
                copy.source,
                copy.bytes,
                cudaMemcpyDefault,
                stream));
        if (copy.from.onHost()) {
            ++counters_.copiesToDevice;
            counters_.bytesToDevice += copy.bytes;
        } else if (copy.to.onHost()) {
            ++counters_.copiesToHost;
            counters_.bytesToHost += copy.bytes;
        } else {
            ++counters_.copiesAcrossDevices;
            counters_.bytesAcrossDevices += copy.bytes;
        }
    }
}

} // namespace gpu
} // namespace faiss_ext
