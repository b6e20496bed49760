// The stages of one tile: its queries to pinned memory and up, the computation,
// its results back and into the caller's arrays.

#include <faiss_ext/gpu/call/Call.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>

#include <algorithm>

namespace faiss_ext {
namespace gpu {

namespace {

/// Enqueues and counts them.
void enqueueCopies(
        const std::vector<DeviceCopy>& copies,
        cudaStream_t stream,
        TransferCounters& counters) {
    for (const DeviceCopy& copy : copies) {
        FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                copy.destination,
                copy.source,
                copy.bytes,
                cudaMemcpyDefault,
                stream));
        if (copy.from.onHost()) {
            ++counters.copiesToDevice;
            counters.bytesToDevice += copy.bytes;
        } else if (copy.to.onHost()) {
            ++counters.copiesToHost;
            counters.bytesToHost += copy.bytes;
        } else {
            ++counters.copiesAcrossDevices;
            counters.bytesAcrossDevices += copy.bytes;
        }
    }
}

} // namespace

/// The team reads the queries of the tiles that have a slot each, one tile
/// after another, while this thread enqueues what comes behind.
void Call::readAhead() {
    if (pinnedIn_.empty()) {
        return;
    }
    for (idx_t number = 0; number < plan_.tiles.depth; ++number) {
        const Tile tile = tileOf(number);
        reads_.push_back(kept_.copier.copyAhead(
                inputs_.hostCopies(tile.in, tile.first, pinnedIn_[number])));
    }
}

void Call::finishReading(const Tile& tile) {
    auto& read = reads_[tile.number];
    if (!read) {
        copyOnHost(Stage::HostRead, tile, pinnedIn_[tile.number]);
        return;
    }
    stageOnHost(
            recorder_,
            span(Stage::Wait, Lane::CallingThread, tile.number, 0),
            [&] { read->finish(); });
    if (recorder_) {
        // The team may begin with a tile, and end, before the last one is read.
        const auto made = read->interval().after(readUntil_);
        readUntil_ = made.end;
        *recorder_->onHost(
                span(Stage::HostRead,
                     Lane::CopyThreads,
                     tile.number,
                     tile.in.packedBytes)) = made;
    }
}

void Call::upload(const Tile& tile) {
    const cudaStream_t stream = kept_.uploadStream->get();
    DeviceBlocks::Slot& slot = slotOf(tile);
    PinnedBuffer onceOnly;
    char* pinned = nullptr;
    if (tile.in.packedBytes == 0) {
        // Nothing for the host to do.
    } else if (!plan_.waits) {
        // The caller may free its array when we return: it is read here.
        onceOnly = kept_.pinned.acquire(tile.in.packedBytes);
        pinned = onceOnly.data();
        copyOnHost(Stage::HostRead, tile, pinned);
    } else {
        pinned = pinnedIn_[tile.number % plan_.tiles.depth];
        if (tile.number < plan_.tiles.depth) {
            finishReading(tile);
        } else {
            // The slot's pinned memory is free in this stream's order.
            enqueueOnHost(Stage::HostRead, tile, pinned, kept_.uploads, stream);
        }
    }
    for (const Event& computed : slot.computed) {
        computed.orderBefore(stream);
    }
    copyOnDevice(Stage::Upload, tile, inBlock(slot), pinned, stream);
    onceOnly.releaseAfter(stream);
    slot.uploaded.record(stream);
}

void Call::compute(const Tile& tile) {
    DeviceBlocks::Slot& slot = slotOf(tile);
    for (const ComputeTurns::Part& part : turns_.parts(tile.in.rows)) {
        const cudaStream_t stream = streamOf(part);
        if (inputs_.rowBytes().staged > 0) {
            slot.uploaded.orderBefore(stream);
        }
        if (outputs_.rowBytes().staged > 0) {
            slot.downloaded.orderBefore(stream);
        }
        computePart(tile, part, inBlock(slot), outBlock(slot));
        slot.computed[part.stream].record(stream);
    }
}

void Call::download(const Tile& tile) {
    DeviceBlocks::Slot& slot = slotOf(tile);
    char* const pinned = tile.out.packedBytes > 0
                                 ? pinnedOut_[tile.number % plan_.tiles.depth]
                                 : nullptr;
    for (const Event& computed : slot.computed) {
        computed.orderBefore(copyStream_);
    }
    copyOnDevice(Stage::CopyBack, tile, outBlock(slot), pinned, copyStream_);
    if (pinned && tile.number < plan_.firstCopiedByCaller) {
        enqueueOnHost(
                Stage::HostCopy, tile, pinned, kept_.downloads, copyStream_);
    }
    slot.downloaded.record(copyStream_);
}

void Call::copyLastTiles() {
    if (pinnedOut_.empty()) {
        return;
    }
    const idx_t tiles = plan_.tiles.tiles();
    const idx_t first = plan_.firstCopiedByCaller;
    std::vector<HostCopy> copies;
    size_t bytes = 0;
    for (idx_t number = first; number < tiles; ++number) {
        const Tile tile = tileOf(number);
        const auto ofTile = outputs_.hostCopies(
                tile.out, tile.first, pinnedOut_[number % plan_.tiles.depth]);
        copies.insert(copies.end(), ofTile.begin(), ofTile.end());
        bytes += tile.out.packedBytes;
    }
    stageOnHost(
            recorder_,
            span(Stage::HostCopy,
                 Lane::CallingThread,
                 first == tiles - 1 ? first : -1,
                 bytes),
            [&] { kept_.copier.copy(copies); });
}

/// The one tile that there is, in the order of the default stream.
void Call::computeAll(const Tile& tile, char* inBlock, char* outBlock) {
    if (sideBySide()) {
        streams_.fork();
    }
    for (const ComputeTurns::Part& part : turns_.parts(tile.in.rows)) {
        computePart(tile, part, inBlock, outBlock);
    }
    if (sideBySide()) {
        streams_.join();
    }
}

/// All at once, or, of a call that is paced, some after others, so that no more
/// is enqueued ahead of the GPU than an interrupt may have to wait for.
void Call::computePart(
        const Tile& tile,
        const ComputeTurns::Part& part,
        char* inBlock,
        char* outBlock) {
    if (!plan_.paced) {
        enqueuePart(tile, part, inBlock, outBlock);
        return;
    }
    for (idx_t done = 0; done < part.rows; done += plan_.rowsAtOnce) {
        const idx_t rows = std::min(plan_.rowsAtOnce, part.rows - done);
        const double seconds = rows * plan_.rowSeconds;
        keepPace(tile, seconds);
        enqueuePart(
                tile,
                {part.stream, part.first + done, rows},
                inBlock,
                outBlock);
        pace_->enqueued(seconds, streamOf(part));
    }
}

void Call::keepPace(const Tile& tile, double seconds) {
    interrupts_->ask();
    while (pace_->tooFar(seconds, kept_.config.secondsAhead)) {
        stageOnHost(
                recorder_,
                span(Stage::Wait, Lane::CallingThread, tile.number, 0),
                [&] { kept_.waitUnlessInterrupted(pace_->earliest()); });
        pace_->earliestIsDone();
    }
}

void Call::enqueuePart(
        const Tile& tile,
        const ComputeTurns::Part& part,
        char* inBlock,
        char* outBlock) {
    const auto in =
            inputs_.devicePointers(tile.in, tile.first, inBlock, part.first);
    const auto out =
            outputs_.devicePointers(tile.out, tile.first, outBlock, part.first);
    const ComputeRows rows{
            tile.first + part.first, part.rows, in.data(), out.data()};
    const Lane lane = sideBySide() ? streams_.profiledAs(part.stream)
                                   : Lane::DefaultStream;
    stageOnStream(
            recorder_,
            span(Stage::Compute, lane, tile.number, 0),
            streamOf(part),
            [&] {
                if (plan_.slices.count > 1) {
                    enqueueSlices(rows);
                } else if (sideBySide()) {
                    computation_.enqueue(streams_[part.stream], rows);
                } else {
                    computation_.enqueue(streams_.whole(), rows);
                }
            });
}

/// Slices of the vectors side by side, merged on the default stream.
void Call::enqueueSlices(const ComputeRows& rows) {
    streams_.fork();
    for (int slice = 0; slice < plan_.slices.count; ++slice) {
        computation_.enqueueSlice(
                streams_[slice % streams_.size()],
                rows,
                plan_.slices,
                streams_.shared(),
                slice);
    }
    streams_.join();
    computation_.mergeSlices(
            streams_.whole(), rows, plan_.slices, streams_.shared());
}

cudaStream_t Call::streamOf(const ComputeTurns::Part& part) const {
    return sideBySide() ? streams_[part.stream].stream : defaultStream_;
}

/// Enqueues the GPU's part between `block` and what it can copy by itself.
void Call::copyOnDevice(
        Stage stage,
        const Tile& tile,
        char* block,
        char* pinned,
        cudaStream_t stream) {
    const auto copies = arraysOf(stage).deviceCopies(
            layoutOf(stage, tile), tile.first, block, pinned);
    if (copies.empty()) {
        return;
    }
    size_t bytes = 0;
    for (const DeviceCopy& copy : copies) {
        bytes += copy.bytes;
    }
    stageOnStream(
            recorder_,
            span(stage, laneOf(stream), tile.number, bytes),
            stream,
            [&] { enqueueCopies(copies, stream, kept_.counters); });
}

/// Does the host's part, between `pinned` and pageable arrays, at once.
void Call::copyOnHost(Stage stage, const Tile& tile, char* pinned) {
    const BlockLayout& layout = layoutOf(stage, tile);
    if (layout.packedBytes == 0) {
        return;
    }
    stageOnHost(
            recorder_,
            span(stage, Lane::CallingThread, tile.number, layout.packedBytes),
            [&] {
                kept_.copier.copy(
                        arraysOf(stage).hostCopies(layout, tile.first, pinned));
            });
}

/// The same in the order of `stream`.
void Call::enqueueOnHost(
        Stage stage,
        const Tile& tile,
        char* pinned,
        HostCopies& queue,
        cudaStream_t stream) {
    const BlockLayout& layout = layoutOf(stage, tile);
    HostInterval* timed = nullptr;
    if (recorder_) {
        timed = recorder_->onHost(
                span(stage, laneOf(stream), tile.number, layout.packedBytes));
    }
    queue.enqueue(
            arraysOf(stage).hostCopies(layout, tile.first, pinned),
            stream,
            timed);
}

/// Those that a stage copies: queries on their way up, results on theirs back.
const RowArrays& Call::arraysOf(Stage stage) const {
    return stage == Stage::HostRead || stage == Stage::Upload ? inputs_
                                                              : outputs_;
}

const BlockLayout& Call::layoutOf(Stage stage, const Tile& tile) {
    return stage == Stage::HostRead || stage == Stage::Upload ? tile.in
                                                              : tile.out;
}

/// For the recorder.
StageSpan Call::span(Stage stage, Lane lane, idx_t tile, size_t bytes) const {
    StageSpan what;
    what.stage = stage;
    what.lane = lane;
    what.tile = tile;
    what.bytes = bytes;
    return what;
}

Lane Call::laneOf(cudaStream_t stream) const {
    return stream == defaultStream_ ? Lane::DefaultStream
           : stream == copyStream_  ? Lane::CopyStream
                                    : Lane::UploadStream;
}

} // namespace gpu
} // namespace faiss_ext
