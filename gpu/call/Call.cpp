#include <faiss_ext/gpu/call/Call.h>

#include <faiss_ext/gpu/cuda/NvtxRange.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

namespace {

RowArrays inputsOf(const std::vector<InputRows>& inputs, idx_t n, int device) {
    RowArrays arrays(RowArrays::Direction::ToDevice, n, device);
    for (const InputRows& in : inputs) {
        arrays.add(in.name, in.data, in.rowBytes);
    }
    return arrays;
}

RowArrays outputsOf(
        const std::vector<OutputRows>& outputs,
        const RowArrays& inputs,
        idx_t n,
        int device) {
    RowArrays arrays(RowArrays::Direction::FromDevice, n, device);
    for (const OutputRows& out : outputs) {
        arrays.add(out.name, out.data, out.rowBytes);
    }
    arrays.refuseOverlap(inputs);
    arrays.refuseOverlap(arrays);
    return arrays;
}

char* dataOf(const std::optional<ScratchMemory>& memory) {
    return memory ? memory->data() : nullptr;
}

} // namespace

Call::Call(
        CallResources& kept,
        idx_t n,
        const std::vector<InputRows>& inputs,
        const std::vector<OutputRows>& outputs,
        Computation& computation,
        StageRecorder* recorder,
        const CallLimits& limits)
        : kept_(kept),
          n_(n),
          computation_(computation),
          recorder_(recorder),
          inputs_(inputsOf(inputs, n, kept.device)),
          outputs_(outputsOf(outputs, inputs_, n, kept.device)),
          plan_(planCall(
                  {n, inputs_.rowBytes(), outputs_.rowBytes(), computation},
                  limits)),
          defaultStream_(kept.defaultStream()),
          streams_(*kept.faiss, kept.device, kept.computeStreams, recorder),
          turns_(sideBySide() ? plan_.streams : 1,
                 n,
                 sideBySide() ? plan_.tiles.tileRows : plan_.rowsAtOnce) {
    if (plan_.interruptible) {
        interrupts_.emplace();
    }
    if (plan_.paced) {
        pace_.emplace(kept.spareMarks);
    }
}

void Call::run() {
    try {
        runPath();
    } catch (...) {
        // The exception tells it; Faiss would abort on an error left behind.
        cudaGetLastError();
        throw;
    }
}

void Call::runPath() {
    switch (plan_.path) {
        case CallPlan::Path::InPlace:
            return runInPlace();
        case CallPlan::Path::OneTile:
            return runOneTile();
        case CallPlan::Path::Tiles:
            return runTiles();
    }
}

/// Everything is on the index's GPU: no copy, no wait.
void Call::runInPlace() {
    openStreams();
    EndWorkOnFailure onFailure = endOnFailure({defaultStream_});
    computeAll(tileOf(0), nullptr, nullptr);
    endCall(onFailure);
}

/// The shortest path: all on the default stream, but for a computation that is
/// worth several.
void Call::runOneTile() {
    PinnedBuffer pinnedIn;
    const size_t packedIn = n_ * inputs_.rowBytes().pinned;
    const size_t packedOut = n_ * outputs_.rowBytes().pinned;
    if (packedIn > 0) {
        pinnedIn = kept_.pinned.acquire(packedIn);
    }
    char* const pinnedOut =
            packedOut > 0 ? pinnedForResults(packedOut, 0) : nullptr;
    const size_t mappedRowBytes =
            plan_.mapped ? outputs_.mapHost(pinnedOut) : 0;
    const Tile tile = tileOf(0);
    reserveTemporary(tile);
    openStreams();
    EndWorkOnFailure onFailure = endOnFailure({defaultStream_});
    auto* const inBlock = dataOf(temporaryIn_);
    auto* const outBlock = dataOf(temporaryOut_);
    copyOnHost(Stage::HostRead, tile, pinnedIn.data());
    copyOnDevice(Stage::Upload, tile, inBlock, pinnedIn.data(), defaultStream_);
    computeAll(tile, inBlock, outBlock);
    kept_.counters.bytesToHost += n_ * mappedRowBytes;
    copyOnDevice(Stage::CopyBack, tile, outBlock, pinnedOut, defaultStream_);
    if (plan_.waits) {
        waitFor(defaultStream_);
        temporaryIsUnused();
        copyOnHost(Stage::HostCopy, tile, pinnedOut);
    } else {
        pinnedIn.releaseAfter(defaultStream_);
    }
    endCall(onFailure);
}

/// Three stages on three streams. For the tile in slot s = tile % depth:
///
///   upload stream:   wait computed; copy in; record uploaded
///   default stream:  wait uploaded, downloaded; compute; record computed
///   copy stream:     wait computed; copy out; record downloaded
///
/// Where several streams compute, each computes a part of the tile in place of
/// the default stream, and goes on to the next tile without waiting for the
/// others.
///
/// The upload's wait for `computed` and the computation's for `downloaded` are
/// for the tile that had the slot before, in this call or an earlier one;
/// an event never recorded holds up nothing.
void Call::runTiles() {
    if (!kept_.uploadStream) {
        kept_.uploadStream.emplace();
    }
    if (!kept_.start) {
        kept_.start.emplace();
    }
    const cudaStream_t uploadStream = kept_.uploadStream->get();
    copyStream_ = kept_.faiss->getAsyncCopyStream(kept_.device);
    EndWorkOnFailure onFailure =
            endOnFailure({uploadStream, defaultStream_, copyStream_});
    const bool in = inputs_.rowBytes().staged > 0;
    const bool out = outputs_.rowBytes().staged > 0;
    prepareSlots();
    readAhead();
    openStreams();
    for (int s = 0; s < plan_.tiles.depth; ++s) {
        auto& computed = kept_.blocks[s].computed;
        while (computed.size() < turns_.streams()) {
            computed.emplace_back();
        }
    }
    if (sideBySide()) {
        streams_.fork();
    }
    if (in) {
        // Inputs and blocks are valid in the default stream's order.
        kept_.start->record(defaultStream_);
        kept_.start->orderBefore(uploadStream);
    }
    for (idx_t number = 0; number < plan_.tiles.tiles(); ++number) {
        throwIfStopped();
        NvtxRange range("tile", number);
        if (interrupts_) {
            interrupts_->ask();
        }
        const Tile tile = tileOf(number);
        if (in) {
            upload(tile);
        }
        compute(tile);
        if (out) {
            download(tile);
        }
    }
    if (sideBySide()) {
        streams_.join();
    }
    if (plan_.waits) {
        waitFor(copyStream_);
        temporaryIsUnused();
        copyLastTiles();
    } else if (out) {
        // Copies to another GPU come before later work of this index's stream.
        kept_.blocks[(plan_.tiles.tiles() - 1) % plan_.tiles.depth]
                .downloaded.orderBefore(defaultStream_);
    }
    endCall(onFailure);
}

Call::Tile Call::tileOf(idx_t number) const {
    const idx_t rows = plan_.tiles.rowsOf(number);
    return {number,
            plan_.tiles.firstRow(number),
            inputs_.layOut(rows),
            outputs_.layOut(rows)};
}

/// Takes the blocks of a tile from Faiss' temporary memory. They are used in
/// the order of the default stream: other streams that use them wait for it,
/// and it for them.
void Call::reserveTemporary(const Tile& tile) {
    const auto reserve = [this](size_t bytes,
                                std::optional<ScratchMemory>& memory) {
        if (bytes > 0) {
            memory.emplace(*kept_.faiss, kept_.device, bytes, kept_.counters);
        }
    };
    reserve(tile.in.blockBytes, temporaryIn_);
    reserve(tile.out.blockBytes, temporaryOut_);
}

/// After a wait for all that the call has enqueued.
void Call::temporaryIsUnused() {
    for (auto* memory : {&temporaryIn_, &temporaryOut_}) {
        if (*memory) {
            (*memory)->isUnused();
        }
    }
}

void Call::prepareSlots() {
    // As large as any.
    const BlockLayout in = inputs_.layOut(plan_.tiles.tileRows);
    const BlockLayout out = outputs_.layOut(plan_.tiles.tileRows);
    if (plan_.temporaryBlocks) {
        reserveTemporary({0, 0, in, out});
        kept_.blocks.reserve(plan_.tiles.depth, 0, 0);
    } else {
        kept_.blocks.reserve(plan_.tiles.depth, in.blockBytes, out.blockBytes);
    }
    for (int s = 0; s < plan_.tiles.depth; ++s) {
        if (plan_.waits && in.packedBytes > 0) {
            pinnedBuffers_.push_back(kept_.pinned.acquire(in.packedBytes));
            pinnedIn_.push_back(pinnedBuffers_.back().data());
        }
        if (out.packedBytes > 0) {
            pinnedOut_.push_back(pinnedForResults(out.packedBytes, s));
        }
    }
    kept_.uploads.reset(plan_.tiles.tiles());
    kept_.downloads.reset(plan_.tiles.tiles());
}

/// Streams side by side take their scratch memory from what is left of Faiss'
/// temporary memory, so the call has what else it takes from there already.
void Call::openStreams() {
    if (plan_.streams > 1) {
        streams_.open(plan_.streams, plan_.laneBytes, plan_.foundBytes);
    }
}

DeviceBlocks::Slot& Call::slotOf(const Tile& tile) {
    return kept_.blocks[tile.number % plan_.tiles.depth];
}

char* Call::inBlock(DeviceBlocks::Slot& slot) {
    return static_cast<char*>(
            plan_.temporaryBlocks ? dataOf(temporaryIn_)
            : slot.in             ? slot.in->get()
                                  : nullptr);
}

char* Call::outBlock(DeviceBlocks::Slot& slot) {
    return static_cast<char*>(
            plan_.temporaryBlocks ? dataOf(temporaryOut_)
            : slot.out            ? slot.out->get()
                                  : nullptr);
}

/// Pinned memory for the results of one slot. Faiss' own buffer is safe here:
/// Faiss uses it for uploads whose end its default stream and its copy stream
/// wait for, and our copies into it are over when the call that made them
/// returns.
char* Call::pinnedForResults(size_t bytes, size_t slot) {
    const auto [buffer, available] = kept_.faiss->getPinnedMemory();
    const size_t stride = PinnedBufferPool::bucketSize(bytes);
    if (buffer && available >= tuning::kSmallestFaissBuffer &&
        (slot + 1) * stride <= available) {
        return static_cast<char*>(buffer) + slot * stride;
    }
    pinnedBuffers_.push_back(kept_.pinned.acquire(bytes));
    return pinnedBuffers_.back().data();
}

EndWorkOnFailure Call::endOnFailure(std::vector<cudaStream_t> streams) {
    return EndWorkOnFailure(
            *kept_.faiss,
            kept_.device,
            std::move(streams),
            kept_.uploads,
            kept_.downloads,
            kept_.unsettled);
}

/// The end of a call. One that is recorded waits in any case.
void Call::endCall(EndWorkOnFailure& onFailure) {
    if (recorder_ && !plan_.waits) {
        waitFor(defaultStream_);
        temporaryIsUnused();
    }
    onFailure.disarm();
}

/// The one host wait of a call that waits, but for those of keepPace. Calls
/// that are estimated short leave the waiting to CUDA.
void Call::waitFor(cudaStream_t stream) {
    if (!kept_.done) {
        kept_.done.emplace();
    }
    kept_.done->record(stream);
    stageOnHost(
            recorder_, span(Stage::Wait, Lane::CallingThread, -1, 0), [this] {
                if (plan_.interruptible) {
                    kept_.waitUnlessInterrupted(*kept_.done);
                } else {
                    kept_.wait(*kept_.done);
                }
            });
}

} // namespace gpu
} // namespace faiss_ext
