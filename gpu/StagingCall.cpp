#include <faiss_ext/gpu/StagingCall.h>

#include <algorithm>

#include <faiss_ext/gpu/NvtxRange.h>
#include <faiss_ext/gpu/Tuning.h>

namespace faiss_ext {
namespace gpu {

StagingPipeline::Call::Call(
        StagingPipeline& pipeline,
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        const TileWork& work,
        StageRecorder* recorder,
        idx_t mostRows)
        : pipe_(pipeline),
          n_(n),
          work_(work),
          recorder_(recorder),
          mostRows_(mostRows),
          inputs_(RowArrays::Direction::ToDevice, n, pipeline.device_),
          outputs_(RowArrays::Direction::FromDevice, n, pipeline.device_),
          defaultStream_(
                  pipeline.resources_->getDefaultStream(pipeline.device_)),
          lanes_(*pipeline.resources_,
                 pipeline.device_,
                 pipeline.laneStore_,
                 pipeline.counters_) {
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
    if (work_.laneBytes > 0 && pipe_.sideBySide_) {
        const int asked = pipe_.config_.computeLanes;
        mostLanes_ = lanes_.affordable(
                std::min<size_t>(
                        asked > 0 ? asked : work_.lanes,
                        n_ / tuning::kComputeRows),
                work_.laneBytes);
    }
    // Pageable results want large tiles in any case: tuning::kLaneTileBytes.
    config_ = mostLanes_ > 1 && outputs_.pinnedRowBytes() == 0
                      ? &pipe_.laneConfig_
                      : &pipe_.config_;
    cut(*config_);
    if (plan_.tileRows > mostRows_) {
        cutDown(mostRows_);
    }
    mappable_ = byKernels && n <= tuning::kComputeRows &&
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
             outputs_.pinnedRowBytes(),
             work_.rowOperations,
             mostLanes_ > 1 ? tuning::kComputeRows
                            : tuning::kFaissStreams * tuning::kComputeRows},
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
    } else if (plan_.tiles() > 1) {
        runTiles();
    } else if (layOut(n_); borrow()) {
        runOneTile();
    } else {
        cutInHalf();
        runTiles();
    }
}

/// Everything is on the index's GPU: no copy, no wait.
void StagingPipeline::Call::runInPlace() {
    layOut(n_);
    EndWorkOnFailure onFailure = endOnFailure({defaultStream_});
    openLanes();
    computeAll(nullptr, nullptr);
    complete(onFailure);
}

/// The shortest path: all on the default stream, but for a computation that is
/// worth lanes.
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
    size_t mappedRowBytes = 0;
    if (mappable_) {
        mappedRowBytes = outputs_.mapHost(pinnedOut);
        layOut(n_);
    }
    openLanes();
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
    computeAll(inBlock, outBlock);
    pipe_.counters_.bytesToHost += n_ * mappedRowBytes;
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
/// With lanes, each computes a part of the tile in place of the default stream,
/// and goes on to the next tile without waiting for the others.
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
    readAhead();
    openLanes();
    for (int s = 0; s < plan_.depth; ++s) {
        auto& computed = pipe_.slots_[s].computed;
        while (computed.size() < lanes_.size()) {
            computed.emplace_back();
        }
    }
    lanes_.fork();
    if (inputs_.stagedRowBytes() > 0) {
        // Inputs and blocks are valid in the default stream's order.
        pipe_.start_->record(defaultStream_);
        pipe_.start_->orderBefore(uploadStream);
    }
    for (idx_t tile = 0; tile < plan_.tiles(); ++tile) {
        NvtxRange range("tile", tile);
        Slot& slot = pipe_.slots_[tile % plan_.depth];
        layOut(plan_.rowsOf(tile));
        if (inputs_.stagedRowBytes() > 0) {
            uploadTile(tile, slot);
        }
        computeTile(tile, slot);
        if (outputs_.stagedRowBytes() > 0) {
            downloadTile(tile, slot);
        }
    }
    lanes_.join();
    if (blocking_) {
        waitFor(copyStream_);
        copyLastTiles();
    } else if (outputs_.stagedRowBytes() > 0) {
        // Copies to another GPU come before later work of this index's stream.
        pipe_.slots_[(plan_.tiles() - 1) % plan_.depth].downloaded.orderBefore(
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
        throwIfContextLost(defaultStream_);
        noMemory_ = std::current_exception();
        borrowedIn_.release();
        return false;
    }
}

/// Smaller tiles, because the GPU has no memory for these. Throws what told so
/// where there are none.
void StagingPipeline::Call::cutInHalf() {
    if (plan_.tileRows == 1) {
        std::rethrow_exception(noMemory_);
    }
    cutDown(plan_.tileRows / 2);
}

/// Tiles of up to `rows` rows.
void StagingPipeline::Call::cutDown(idx_t rows) {
    StagedConfig smaller = *config_;
    smaller.tileRows = rows;
    cut(smaller);
}

/// Device memory for the tiles, of which two at least are to be under way at
/// once. Where it is short, the tiles become smaller, down to one row or a size
/// below which they are better done one after another in Faiss' temporary
/// memory, which is set aside already. (So they are where Faiss has found too
/// little for itself before.)
void StagingPipeline::Call::reserveBlocks() {
    const bool faissFirst = mostRows_ < n_;
    while (true) {
        layOut(plan_.tileRows);
        const size_t gap = inputs_.gap();
        const size_t in = inputs_.blockBytes() - gap;
        const size_t out = outputs_.blockBytes();
        const bool smallest = plan_.tileRows == 1 ||
                              std::max(in, out) <= tuning::kEndTileBytes;
        if (faissFirst && smallest) {
            break;
        }
        const int wanted = plan_.depth;
        const int ready = pipe_.growSlots(wanted, gap, in, out);
        if (ready == wanted || ready >= 2) {
            plan_.depth = ready;
            return;
        }
        pipe_.freeBlocks(0);
        if (smallest) {
            break;
        }
        cutInHalf();
    }
    while (!borrow()) {
        cutInHalf();
        layOut(plan_.tileRows);
    }
    // A slot, for its events.
    plan_.depth = pipe_.growSlots(1, 0, 0, 0);
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
    if (!pinnedOut_.empty()) {
        firstLeft_ = firstLeft();
    }
    pipe_.uploads_.reset(plan_.tiles());
    pipe_.downloads_.reset(plan_.tiles());
}

/// The team reads the queries of the tiles that have a slot each, one tile
/// after another, while this thread enqueues what comes behind.
void StagingPipeline::Call::readAhead() {
    if (pinnedIn_.empty()) {
        return;
    }
    for (idx_t tile = 0; tile < plan_.depth; ++tile) {
        layOut(plan_.rowsOf(tile));
        reads_.push_back(pipe_.copier_.copyAhead(
                inputs_.hostCopies(plan_.firstRow(tile), pinnedIn_[tile])));
    }
}

void StagingPipeline::Call::finishReading(idx_t tile) {
    if (!reads_[tile]) {
        copyOnHost(Stage::HostRead, inputs_, tile, pinnedIn_[tile]);
        return;
    }
    stageOnHost(
            recorder_, span(Stage::Wait, Lane::CallingThread, tile, 0), [&] {
                reads_[tile]->finish();
            });
    if (recorder_) {
        // The team may begin with a tile, and end, before the last one is read.
        const auto made = reads_[tile]->interval().after(readUntil_);
        readUntil_ = made.end;
        *recorder_->onHost(
                span(Stage::HostRead,
                     Lane::CopyThreads,
                     tile,
                     inputs_.packedBytes())) = made;
    }
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
            finishReading(tile);
        } else {
            // The slot's pinned memory is free in this stream's order.
            enqueueOnHost(
                    Stage::HostRead,
                    inputs_,
                    tile,
                    pinned,
                    pipe_.uploads_,
                    stream);
        }
    }
    for (const Event& computed : slot.computed) {
        computed.orderBefore(stream);
    }
    copyOnDevice(Stage::Upload, inputs_, tile, inBlock(slot), pinned, stream);
    onceOnly.releaseAfter(stream);
    slot.uploaded.record(stream);
}

void StagingPipeline::Call::computeTile(idx_t tile, Slot& slot) {
    for (const LaneTurns::Part& part : turns_->parts(rows_)) {
        const cudaStream_t stream = lanes_.stream(part.lane);
        if (inputs_.stagedRowBytes() > 0) {
            slot.uploaded.orderBefore(stream);
        }
        if (outputs_.stagedRowBytes() > 0) {
            slot.downloaded.orderBefore(stream);
        }
        compute(tile, part, inBlock(slot), outBlock(slot));
        slot.computed[part.lane].record(stream);
    }
}

void StagingPipeline::Call::downloadTile(idx_t tile, Slot& slot) {
    char* pinned = outputs_.packedBytes() > 0 ? pinnedOut_[tile % plan_.depth]
                                              : nullptr;
    for (const Event& computed : slot.computed) {
        computed.orderBefore(copyStream_);
    }
    copyOnDevice(
            Stage::CopyBack,
            outputs_,
            tile,
            outBlock(slot),
            pinned,
            copyStream_);
    if (pinned && tile < firstLeft_) {
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

/// The first of the last tiles whose results this thread copies into pageable
/// arrays itself, once it has waited for them: a host function begins up to 100
/// us after the copy that it stands behind, for CUDA's thread has to be woken,
/// and behind the last tile there is nothing to hide that. One at least; more,
/// each of which still has its slot, while their results are within
/// oneTileBytes, like those of a call that is not cut.
idx_t StagingPipeline::Call::firstLeft() const {
    const size_t most = config_->oneTileBytes / outputs_.pinnedRowBytes();
    idx_t first = plan_.tiles() - 1;
    while (first > plan_.tiles() - plan_.depth &&
           static_cast<size_t>(n_ - plan_.firstRow(first - 1)) <= most) {
        --first;
    }
    return first;
}

void StagingPipeline::Call::copyLastTiles() {
    if (pinnedOut_.empty()) {
        return;
    }
    std::vector<HostCopy> copies;
    size_t bytes = 0;
    for (idx_t tile = firstLeft_; tile < plan_.tiles(); ++tile) {
        layOut(plan_.rowsOf(tile));
        const auto ofTile = outputs_.hostCopies(
                plan_.firstRow(tile), pinnedOut_[tile % plan_.depth]);
        copies.insert(copies.end(), ofTile.begin(), ofTile.end());
        bytes += outputs_.packedBytes();
    }
    const idx_t tile = firstLeft_ == plan_.tiles() - 1 ? firstLeft_ : -1;
    stageOnHost(
            recorder_,
            span(Stage::HostCopy, Lane::CallingThread, tile, bytes),
            [&] { pipe_.copier_.copy(copies); });
}

void StagingPipeline::Call::layOut(idx_t rows) {
    rows_ = rows;
    inputs_.layOut(rows);
    outputs_.layOut(rows);
}

void StagingPipeline::Call::compute(
        idx_t tile,
        const LaneTurns::Part& part,
        char* inBlock,
        char* outBlock) {
    const idx_t first = plan_.firstRow(tile);
    const auto in = inputs_.devicePointers(first, inBlock, part.first);
    const auto out = outputs_.devicePointers(first, outBlock, part.first);
    stageOnStream(
            recorder_,
            span(Stage::Compute, lanes_.profiledAs(part.lane), tile, 0),
            lanes_.stream(part.lane),
            [&] {
                work_.enqueue(
                        lanes_.on(part.lane),
                        first + part.first,
                        part.rows,
                        in.data(),
                        out.data());
            });
}

/// The one tile that there is, in the order of the default stream.
void StagingPipeline::Call::computeAll(char* inBlock, char* outBlock) {
    lanes_.fork();
    for (const LaneTurns::Part& part : turns_->parts(rows_)) {
        compute(0, part, inBlock, outBlock);
    }
    lanes_.join();
}

/// Lanes take their scratch memory from what is left of Faiss' temporary
/// memory, so the call has what else it takes from there already.
void StagingPipeline::Call::openLanes() {
    // Faiss computes on two streams by itself, but joins them after each tile.
    const size_t least = config_->computeLanes > 0 || plan_.tiles() > 1 ? 2 : 3;
    const size_t lanes = lanes_.affordable(mostLanes_, work_.laneBytes);
    if (lanes >= least) {
        lanes_.open(lanes, work_.laneBytes);
    }
    turns_.emplace(lanes_.size(), n_, rowsAtOnce());
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
    size_t bytes = 0;
    for (const DeviceCopy& copy : copies) {
        bytes += copy.bytes;
    }
    stageOnStream(
            recorder_, span(stage, laneOf(stream), tile, bytes), stream, [&] {
                pipe_.enqueue(copies, stream);
            });
}

/// Does the host's part, between `pinned` and pageable arrays, at once.
void StagingPipeline::Call::copyOnHost(
        Stage stage, const RowArrays& arrays, idx_t tile, char* pinned) {
    if (arrays.packedBytes() == 0) {
        return;
    }
    stageOnHost(
            recorder_,
            span(stage, Lane::CallingThread, tile, arrays.packedBytes()),
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
                span(stage, laneOf(stream), tile, arrays.packedBytes()));
    }
    queue.enqueue(
            arrays.hostCopies(plan_.firstRow(tile), pinned), stream, timed);
}

/// For the recorder.
StageSpan StagingPipeline::Call::span(
        Stage stage, Lane lane, idx_t tile, size_t bytes) const {
    StageSpan what;
    what.stage = stage;
    what.lane = lane;
    what.tile = tile;
    what.bytes = bytes;
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
            pipe_.downloads_,
            pipe_.unsettled_);
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

} // namespace gpu
} // namespace faiss_ext
