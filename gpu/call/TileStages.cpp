// The stages of one tile: its queries to pinned memory and up, the computation,
// its results back and into the caller's arrays.

#include <faiss_ext/gpu/call/StagingCall.h>

namespace faiss_ext {
namespace gpu {

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

/// All at once, or, of a long call that waits, some after others, so that no
/// more is enqueued ahead of the GPU than an interrupt may have to wait for.
void StagingPipeline::Call::compute(
        idx_t tile,
        const LaneTurns::Part& part,
        char* inBlock,
        char* outBlock) {
    if (pacedRows_ == 0) {
        computeRows(tile, part, inBlock, outBlock);
        return;
    }
    for (idx_t done = 0; done < part.rows; done += pacedRows_) {
        const idx_t rows = std::min(pacedRows_, part.rows - done);
        const double seconds = rows * rowSeconds_;
        keepPace(tile, seconds);
        computeRows(
                tile, {part.lane, part.first + done, rows}, inBlock, outBlock);
        pace_->enqueued(seconds, lanes_.stream(part.lane));
    }
}

void StagingPipeline::Call::keepPace(idx_t tile, double seconds) {
    interrupts_->ask();
    while (pace_->tooFar(seconds, config_->secondsAhead)) {
        stageOnHost(
                recorder_,
                span(Stage::Wait, Lane::CallingThread, tile, 0),
                [&] { pipe_.waitUnlessInterrupted(pace_->earliest()); });
        pace_->earliestIsDone();
    }
}

void StagingPipeline::Call::computeRows(
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

} // namespace gpu
} // namespace faiss_ext
