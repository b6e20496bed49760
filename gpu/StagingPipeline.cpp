#include <faiss_ext/gpu/StagingPipeline.h>

#include <algorithm>
#include <exception>
#include <utility>

#include <faiss_ext/gpu/CudaCheck.h>
#include <faiss_ext/gpu/NvtxRange.h>
#include <faiss_ext/gpu/ResourcesLock.h>
#include <faiss_ext/gpu/Tuning.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Armed before work is enqueued: if the call fails half-way, whatever is in
/// flight ends before the caller gets its arrays back and before pinned
/// buffers return to the pool. This is the one place that synchronises streams.
class EndWorkOnFailure {
   public:
    /// Of the work on `streams`, and on those of `resources` that Faiss' own
    /// computation uses.
    EndWorkOnFailure(
            faiss::gpu::GpuResources& resources,
            int device,
            std::vector<cudaStream_t> streams,
            HostCopies& uploads,
            HostCopies& downloads)
            : resources_(resources),
              device_(device),
              streams_(std::move(streams)),
              uploads_(uploads),
              downloads_(downloads) {}

    EndWorkOnFailure(const EndWorkOnFailure&) = delete;
    EndWorkOnFailure& operator=(const EndWorkOnFailure&) = delete;

    ~EndWorkOnFailure() {
        if (!armed_) {
            return;
        }
        for (cudaStream_t stream : resources_.getAlternateStreams(device_)) {
            FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(stream));
        }
        for (cudaStream_t stream : streams_) {
            FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(stream));
        }
        uploads_.abandon();
        downloads_.abandon();
    }

    void disarm() {
        armed_ = false;
    }

   private:
    faiss::gpu::GpuResources& resources_;
    const int device_;
    std::vector<cudaStream_t> streams_;
    HostCopies& uploads_;
    HostCopies& downloads_;
    bool armed_ = true;
};

} // namespace

/// One call of run, from the look at its arrays to the end of its wait.
class StagingPipeline::Call {
   public:
    /// `recorder`: where the times of its stages go, or nullptr.
    Call(StagingPipeline& pipeline,
         idx_t n,
         const std::vector<InputRows>& inputs,
         const std::vector<OutputRows>& outputs,
         const TileWork& work,
         StageRecorder* recorder);

    void run();

    idx_t tiles() const {
        return plan_.tiles;
    }

   private:
    void runInPlace();
    void runOneTile();
    void runTiles();

    void cut(const StagedConfig& config);
    void cutInHalf();
    bool borrow();
    void reserveBlocks();
    void prepareSlots();
    void uploadTile(idx_t tile, Slot& slot);
    void computeTile(idx_t tile, Slot& slot);
    void downloadTile(idx_t tile, Slot& slot);

    void layOut(idx_t rows);
    // The stages of the tile laid out last.
    void compute(idx_t tile, char* inBlock, char* outBlock);
    void copyOnDevice(
            Stage stage,
            const RowArrays& arrays,
            idx_t tile,
            char* block,
            char* pinned,
            cudaStream_t stream);
    void copyOnHost(
            Stage stage, const RowArrays& arrays, idx_t tile, char* pinned);
    void enqueueOnHost(
            Stage stage,
            const RowArrays& arrays,
            idx_t tile,
            char* pinned,
            HostCopies& queue,
            cudaStream_t stream);
    StageSpan span(Stage stage, Lane lane, idx_t tile, size_t bytes) const;
    Lane laneOf(cudaStream_t stream) const;
    char* inBlock(Slot& slot);
    char* outBlock(Slot& slot);
    char* pinnedForResults(size_t slot);
    void waitFor(cudaStream_t stream);
    void complete(EndWorkOnFailure& onFailure);
    EndWorkOnFailure endOnFailure(std::vector<cudaStream_t> streams);
    void runTilesOrOne();

    StagingPipeline& pipe_;
    const idx_t n_;
    const TileWork& work_;
    StageRecorder* const recorder_;
    RowArrays inputs_;
    RowArrays outputs_;
    /// Rows of the tile laid out last.
    idx_t rows_ = 0;
    TilePlan plan_;

    /// Whether the caller waits: some output is in host memory.
    bool blocking_ = false;
    /// Whether the kernels are to write the host's results themselves, if this
    /// is one tile.
    bool mappable_ = false;
    /// Faiss' pinned buffer if results may go through it, else {nullptr, 0}.
    std::pair<void*, size_t> faissPinned_{nullptr, 0};
    cudaStream_t defaultStream_;
    cudaStream_t copyStream_ = nullptr;

    // The blocks of a call that uses Faiss' temporary memory, a stack: given
    // back in the order opposite to this.
    faiss::gpu::GpuMemoryReservation borrowedIn_;
    faiss::gpu::GpuMemoryReservation borrowedOut_;
    // Why there is no more memory on the GPU.
    std::exception_ptr noMemory_;

    // Lent for the call; they go back after EndWorkOnFailure has done its part.
    std::vector<PinnedBuffer> lent_;
    // For each slot, where pageable inputs and results pass through.
    std::vector<char*> pinnedIn_;
    std::vector<char*> pinnedOut_;
};

StagingPipeline::Call::Call(
        StagingPipeline& pipeline,
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        const TileWork& work,
        StageRecorder* recorder)
        : pipe_(pipeline),
          n_(n),
          work_(work),
          recorder_(recorder),
          inputs_(RowArrays::Direction::ToDevice, n, pipeline.device_),
          outputs_(RowArrays::Direction::FromDevice, n, pipeline.device_),
          defaultStream_(
                  pipeline.resources_->getDefaultStream(pipeline.device_)) {
    for (const InputRows& in : inputs) {
        inputs_.add(in.name, in.data, in.rowBytes);
    }
    bool byKernels = true;
    for (const OutputRows& out : outputs) {
        byKernels &= out.byKernels;
        if (out.behindLast) {
            outputs_.addBehindLast(out.name, out.rowBytes);
        } else {
            outputs_.add(out.name, out.data, out.rowBytes);
        }
    }
    outputs_.refuseOverlap(inputs_);
    outputs_.refuseOverlap(outputs_);
    blocking_ = outputs_.anyOnHost();

    const auto faissPinned = pipe_.resources_->getPinnedMemory();
    if (faissPinned.first &&
        faissPinned.second >= tuning::kSmallestFaissBuffer) {
        faissPinned_ = faissPinned;
    }
    cut(pipe_.config_);
    mappable_ = byKernels &&
                n * outputs_.hostRowBytes() <= pipe_.config_.mappedBytes;
}

void StagingPipeline::Call::cut(const StagedConfig& config) {
    const size_t pool = pipe_.pool_.capacity();
    const bool both = inputs_.pinnedRowBytes() > 0 &&
                      outputs_.pinnedRowBytes() > 0 && !faissPinned_.first;
    const size_t share = both ? pool / 2 : pool;
    plan_ = planTiles(
            n_,
            {inputs_.stagedRowBytes(),
             inputs_.pinnedRowBytes(),
             outputs_.stagedRowBytes(),
             outputs_.pinnedRowBytes()},
            config,
            share,
            faissPinned_.first ? faissPinned_.second : share);
}

void StagingPipeline::Call::run() {
    try {
        runTilesOrOne();
    } catch (...) {
        if (contextLost(defaultStream_)) {
            // Faiss would abort the process when it cannot free them.
            borrowedIn_.data = nullptr;
            borrowedOut_.data = nullptr;
        }
        throw;
    }
}

void StagingPipeline::Call::runTilesOrOne() {
    if (inputs_.stagedRowBytes() == 0 && outputs_.stagedRowBytes() == 0) {
        runInPlace();
    } else if (plan_.tiles > 1) {
        runTiles();
    } else if (layOut(n_); borrow()) {
        runOneTile();
    } else {
        cutInHalf();
        runTiles();
    }
}

/// Everything is on the index's GPU: no copy, no event, no wait.
void StagingPipeline::Call::runInPlace() {
    layOut(n_);
    EndWorkOnFailure onFailure = endOnFailure({defaultStream_});
    compute(0, nullptr, nullptr);
    complete(onFailure);
}

/// The shortest path: all on the default stream.
void StagingPipeline::Call::runOneTile() {
    PinnedBuffer pinnedIn;
    EndWorkOnFailure onFailure = endOnFailure({defaultStream_});
    if (inputs_.packedBytes() > 0) {
        pinnedIn = pipe_.pool_.acquire(inputs_.packedBytes());
    }
    char* pinnedOut = nullptr;
    if (outputs_.packedBytes() > 0) {
        pinnedOut = pinnedForResults(0);
    }
    if (mappable_) {
        pipe_.counters_.bytesToHost += n_ * outputs_.mapHost(pinnedOut);
        layOut(n_);
    }
    auto* inBlock = static_cast<char*>(borrowedIn_.get());
    auto* outBlock = static_cast<char*>(borrowedOut_.get());
    copyOnHost(Stage::HostRead, inputs_, 0, pinnedIn.data());
    copyOnDevice(
            Stage::Upload,
            inputs_,
            0,
            inBlock,
            pinnedIn.data(),
            defaultStream_);
    compute(0, inBlock, outBlock);
    copyOnDevice(
            Stage::CopyBack, outputs_, 0, outBlock, pinnedOut, defaultStream_);
    if (blocking_) {
        waitFor(defaultStream_);
        copyOnHost(Stage::HostCopy, outputs_, 0, pinnedOut);
    } else {
        pinnedIn.releaseAfter(defaultStream_);
    }
    complete(onFailure);
}

/// Three stages on three streams. For the tile in slot s = tile % depth:
///
///   upload stream:   wait computed; copy in; record uploaded
///   default stream:  wait uploaded, downloaded; compute; record computed
///   copy stream:     wait computed; copy out; record downloaded
///
/// The upload's wait for `computed` and the computation's for `downloaded` are
/// for the tile that had the slot before, in this call or an earlier one;
/// an event never recorded holds up nothing.
void StagingPipeline::Call::runTiles() {
    if (!pipe_.uploadStream_) {
        pipe_.uploadStream_.emplace();
    }
    if (!pipe_.start_) {
        pipe_.start_.emplace();
    }
    const cudaStream_t uploadStream = pipe_.uploadStream_->get();
    copyStream_ = pipe_.resources_->getAsyncCopyStream(pipe_.device_);
    EndWorkOnFailure onFailure =
            endOnFailure({uploadStream, defaultStream_, copyStream_});
    prepareSlots();
    if (inputs_.stagedRowBytes() > 0) {
        // Inputs and blocks are valid in the default stream's order.
        pipe_.start_->record(defaultStream_);
        pipe_.start_->orderBefore(uploadStream);
    }
    for (idx_t tile = 0; tile < plan_.tiles; ++tile) {
        NvtxRange range("tile", tile);
        Slot& slot = pipe_.slots_[tile % plan_.depth];
        layOut(plan_.rowsOf(tile, n_));
        if (inputs_.stagedRowBytes() > 0) {
            uploadTile(tile, slot);
        }
        computeTile(tile, slot);
        if (outputs_.stagedRowBytes() > 0) {
            downloadTile(tile, slot);
        }
    }
    if (blocking_) {
        waitFor(copyStream_);
    } else if (outputs_.stagedRowBytes() > 0) {
        // Copies to another GPU come before later work of this index's stream.
        pipe_.slots_[(plan_.tiles - 1) % plan_.depth].downloaded.orderBefore(
                defaultStream_);
    }
    complete(onFailure);
}

/// Takes the blocks of the tile laid out last from Faiss' temporary memory;
/// false if there is not enough, and not on the GPU either. They are used in
/// the order of the default stream: other streams that use them wait for it,
/// and it for them.
bool StagingPipeline::Call::borrow() {
    try {
        borrowedIn_ = pipe_.temporary(inputs_.blockBytes());
        borrowedOut_ = pipe_.temporary(outputs_.blockBytes());
        return true;
    } catch (const faiss::FaissException&) {
        if (contextLost(defaultStream_)) {
            throw;
        }
        noMemory_ = std::current_exception();
        borrowedOut_.release();
        borrowedIn_.release();
        return false;
    }
}

/// Smaller tiles, because the GPU has no memory for these. Throws what told so
/// where there are none.
void StagingPipeline::Call::cutInHalf() {
    const idx_t rows = plan_.tileRows / 2;
    if (rows == 0) {
        std::rethrow_exception(noMemory_);
    }
    StagedConfig smaller = pipe_.config_;
    smaller.tileRows = rows;
    cut(smaller);
}

/// Device memory for the tiles, of which two at least are to be under way at
/// once. Where it is short, the tiles become smaller, down to a size below
/// which they are better done one after another in Faiss' temporary memory,
/// which is set aside already.
void StagingPipeline::Call::reserveBlocks() {
    while (true) {
        layOut(plan_.tileRows);
        const size_t in = inputs_.blockBytes();
        const size_t out = outputs_.blockBytes();
        const int wanted = plan_.depth;
        const int ready = pipe_.growSlots(wanted, in, out);
        if (ready == wanted || ready >= 2) {
            plan_.depth = ready;
            return;
        }
        pipe_.freeBlocks(0);
        if (std::max(in, out) <= tuning::kSmallestTileBytes) {
            break;
        }
        cutInHalf();
    }
    while (!borrow()) {
        cutInHalf();
        layOut(plan_.tileRows);
    }
    plan_.depth = 1;
}

void StagingPipeline::Call::prepareSlots() {
    reserveBlocks();
    for (int s = 0; s < plan_.depth; ++s) {
        if (blocking_ && inputs_.packedBytes() > 0) {
            lent_.push_back(pipe_.pool_.acquire(inputs_.packedBytes()));
            pinnedIn_.push_back(lent_.back().data());
        }
        if (outputs_.packedBytes() > 0) {
            pinnedOut_.push_back(pinnedForResults(s));
        }
    }
    pipe_.uploads_.reset(plan_.tiles);
    pipe_.downloads_.reset(plan_.tiles);
}

void StagingPipeline::Call::uploadTile(idx_t tile, Slot& slot) {
    const cudaStream_t stream = pipe_.uploadStream_->get();
    PinnedBuffer onceOnly;
    char* pinned = nullptr;
    if (inputs_.packedBytes() == 0) {
        // Nothing for the host to do.
    } else if (!blocking_) {
        // The caller may free its array when we return: it is read here.
        onceOnly = pipe_.pool_.acquire(inputs_.packedBytes());
        pinned = onceOnly.data();
        copyOnHost(Stage::HostRead, inputs_, tile, pinned);
    } else {
        pinned = pinnedIn_[tile % plan_.depth];
        if (tile < plan_.depth) {
            copyOnHost(Stage::HostRead, inputs_, tile, pinned);
        } else {
            // The slot's pinned memory is free in this stream's order only.
            enqueueOnHost(
                    Stage::HostRead,
                    inputs_,
                    tile,
                    pinned,
                    pipe_.uploads_,
                    stream);
        }
    }
    slot.computed.orderBefore(stream);
    copyOnDevice(Stage::Upload, inputs_, tile, inBlock(slot), pinned, stream);
    onceOnly.releaseAfter(stream);
    slot.uploaded.record(stream);
}

void StagingPipeline::Call::computeTile(idx_t tile, Slot& slot) {
    if (inputs_.stagedRowBytes() > 0) {
        slot.uploaded.orderBefore(defaultStream_);
    }
    if (outputs_.stagedRowBytes() > 0) {
        slot.downloaded.orderBefore(defaultStream_);
    }
    compute(tile, inBlock(slot), outBlock(slot));
    slot.computed.record(defaultStream_);
}

void StagingPipeline::Call::downloadTile(idx_t tile, Slot& slot) {
    char* pinned = outputs_.packedBytes() > 0 ? pinnedOut_[tile % plan_.depth]
                                              : nullptr;
    slot.computed.orderBefore(copyStream_);
    copyOnDevice(
            Stage::CopyBack,
            outputs_,
            tile,
            outBlock(slot),
            pinned,
            copyStream_);
    if (pinned) {
        enqueueOnHost(
                Stage::HostCopy,
                outputs_,
                tile,
                pinned,
                pipe_.downloads_,
                copyStream_);
    }
    slot.downloaded.record(copyStream_);
}

void StagingPipeline::Call::layOut(idx_t rows) {
    rows_ = rows;
    inputs_.layOut(rows);
    outputs_.layOut(rows);
}

void StagingPipeline::Call::compute(idx_t tile, char* inBlock, char* outBlock) {
    const idx_t first = plan_.firstRow(tile);
    const auto in = inputs_.devicePointers(first, inBlock);
    const auto out = outputs_.devicePointers(first, outBlock);
    stageOnStream(
            recorder_,
            span(Stage::Compute, Lane::DefaultStream, tile, 0),
            defaultStream_,
            [&] { work_(first, rows_, in.data(), out.data()); });
}

/// Enqueues the GPU's part between `block` and what it can copy by itself.
void StagingPipeline::Call::copyOnDevice(
        Stage stage,
        const RowArrays& arrays,
        idx_t tile,
        char* block,
        char* pinned,
        cudaStream_t stream) {
    const auto copies =
            arrays.deviceCopies(plan_.firstRow(tile), block, pinned);
    if (copies.empty()) {
        return;
    }
    stageOnStream(
            recorder_,
            span(stage, laneOf(stream), tile, arrays.stagedRowBytes()),
            stream,
            [&] { pipe_.enqueue(copies, stream); });
}

/// Does the host's part, between `pinned` and pageable arrays, at once.
void StagingPipeline::Call::copyOnHost(
        Stage stage, const RowArrays& arrays, idx_t tile, char* pinned) {
    if (arrays.packedBytes() == 0) {
        return;
    }
    stageOnHost(
            recorder_,
            span(stage, Lane::CallingThread, tile, arrays.pinnedRowBytes()),
            [&] {
                pipe_.copier_.copy(
                        arrays.hostCopies(plan_.firstRow(tile), pinned));
            });
}

/// The same in the order of `stream`.
void StagingPipeline::Call::enqueueOnHost(
        Stage stage,
        const RowArrays& arrays,
        idx_t tile,
        char* pinned,
        HostCopies& queue,
        cudaStream_t stream) {
    HostInterval* timed = nullptr;
    if (recorder_) {
        timed = recorder_->onHost(
                span(stage, laneOf(stream), tile, arrays.pinnedRowBytes()));
    }
    queue.enqueue(
            arrays.hostCopies(plan_.firstRow(tile), pinned), stream, timed);
}

/// Of the tile laid out last, for the recorder.
StageSpan StagingPipeline::Call::span(
        Stage stage, Lane lane, idx_t tile, size_t rowBytes) const {
    StageSpan what;
    what.stage = stage;
    what.lane = lane;
    what.tile = tile;
    what.bytes = rowBytes * rows_;
    return what;
}

Lane StagingPipeline::Call::laneOf(cudaStream_t stream) const {
    return stream == defaultStream_ ? Lane::DefaultStream
           : stream == copyStream_  ? Lane::CopyStream
                                    : Lane::UploadStream;
}

char* StagingPipeline::Call::inBlock(Slot& slot) {
    return borrowedIn_.get() ? static_cast<char*>(borrowedIn_.get())
                             : slot.in.data();
}

char* StagingPipeline::Call::outBlock(Slot& slot) {
    return borrowedOut_.get() ? static_cast<char*>(borrowedOut_.get())
                              : slot.out.data();
}

/// Pinned memory for the results of one slot. Faiss' own buffer is safe here:
/// Faiss uses it for uploads whose end its default stream and its copy stream
/// wait for, and our copies into it are over when the call that made them
/// returns.
char* StagingPipeline::Call::pinnedForResults(size_t slot) {
    const size_t bytes = outputs_.packedBytes();
    const size_t stride = PinnedBufferPool::bucketSize(bytes);
    if (faissPinned_.first && (slot + 1) * stride <= faissPinned_.second) {
        return static_cast<char*>(faissPinned_.first) + slot * stride;
    }
    lent_.push_back(pipe_.pool_.acquire(bytes));
    return lent_.back().data();
}

EndWorkOnFailure StagingPipeline::Call::endOnFailure(
        std::vector<cudaStream_t> streams) {
    return EndWorkOnFailure(
            *pipe_.resources_,
            pipe_.device_,
            std::move(streams),
            pipe_.uploads_,
            pipe_.downloads_);
}

/// The end of a call. One that is recorded waits in any case.
void StagingPipeline::Call::complete(EndWorkOnFailure& onFailure) {
    if (recorder_ && !blocking_) {
        waitFor(defaultStream_);
    }
    onFailure.disarm();
}

/// The one host wait of a blocking call.
void StagingPipeline::Call::waitFor(cudaStream_t stream) {
    if (!pipe_.done_) {
        pipe_.done_.emplace();
    }
    pipe_.done_->record(stream);
    stageOnHost(
            recorder_, span(Stage::Wait, Lane::CallingThread, -1, 0), [this] {
                pipe_.wait(*pipe_.done_);
            });
}

StagingPipeline::StagingPipeline(
        std::shared_ptr<faiss::gpu::GpuResources> resources,
        int device,
        const StagedConfig& config)
        : resources_(std::move(resources)),
          device_(device),
          config_(withDefaults(config)),
          pool_(config_.pinnedBytes, counters_),
          copier_(copyTeamOf(resources_.get()), config_) {}

StagingPipeline::~StagingPipeline() {
    try {
        // A call that failed may have left work on any of its streams.
        DeviceGuard guard(device_);
        FAISS_EXT_CUDA_TRY(cudaDeviceSynchronize());
    } catch (const std::exception&) {
        // Whether that is the end shows below.
    }
    if (contextLost(resources_->getDefaultStream(device_))) {
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
    DeviceGuard guard(device_);
    const cudaError_t state =
            cudaStreamQuery(resources_->getDefaultStream(device_));
    if (state == cudaErrorNotReady) {
        cudaGetLastError();
        waitForDefaultStream();
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
    Call(*this, n, inputs, outputs, work, nullptr).run();
}

SearchProfile StagingPipeline::profile(
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        const TileWork& work) {
    if (!recorder_) {
        recorder_.emplace();
    }
    recorder_->start(
            resources_->getDefaultStream(device_),
            [this](const Event& event) { wait(event); });
    idx_t tiles = 0;
    {
        Call call(*this, n, inputs, outputs, work, &*recorder_);
        call.run();
        tiles = call.tiles();
    }
    // Not before the call has given its memory back: this may throw.
    return recorder_->finish(tiles);
}

void StagingPipeline::waitForDefaultStream() {
    if (!done_) {
        done_.emplace();
    }
    done_->record(resources_->getDefaultStream(device_));
    wait(*done_);
}

void StagingPipeline::wait(const Event& event) {
    ++counters_.hostWaits;
    event.wait();
}

/// Makes sure that the first slots have blocks of `in` and `out` bytes: `depth`
/// of them, or as many as the GPU has memory for, which is returned. The others
/// then have none.
int StagingPipeline::growSlots(int depth, size_t in, size_t out) {
    while (slots_.size() < static_cast<size_t>(depth)) {
        slots_.emplace_back();
    }
    const auto grow = [&](Slot& slot) {
        return growBlock(slot.in, in) && growBlock(slot.out, out);
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

/// Makes sure that a slot's block holds `bytes`; false if the GPU has not so
/// much memory left, and then there is none. A smaller one is exchanged once
/// its last user is done with it.
bool StagingPipeline::growBlock(DeviceBlock& block, size_t bytes) {
    if (bytes == 0 || (block.memory && block.memory->size >= bytes)) {
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
                        PinnedBufferPool::bucketSize(bytes))));
    } catch (const faiss::FaissException&) {
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
