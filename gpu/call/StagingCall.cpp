#include <faiss_ext/gpu/call/StagingCall.h>

#include <algorithm>

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/NvtxRange.h>

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
    estimate();
    mappable_ = byKernels && n <= tuning::kComputeRows &&
                n * outputs_.hostRowBytes() <= pipe_.config_.mappedBytes;
}

/// Whether the call is one that an interrupt must be able to end in the midst,
/// and how many rows are enqueued before it is looked for.
void StagingPipeline::Call::estimate() {
    const double most = config_->secondsAhead;
    rowSeconds_ = work_.rowOperations / pipe_.operationsPerSecond_ +
                  (inputs_.stagedRowBytes() + outputs_.stagedRowBytes()) /
                          tuning::kBytesPerSecond;
    long_ = n_ * rowSeconds_ > tuning::kLongCall * most;
    if (long_) {
        interrupts_.emplace();
    }
    if (long_ && blocking_) {
        pace_.emplace(pipe_.spareMarks_);
        // Two pieces, so that the GPU does not wait for the host in between.
        const idx_t step = computeStep();
        pacedRows_ = step * std::max<idx_t>(1, most / 2 / (step * rowSeconds_));
    }
}

/// Rows that are computed side by side.
idx_t StagingPipeline::Call::computeStep() const {
    return mostLanes_ > 1 ? tuning::kComputeRows
                          : tuning::kFaissStreams * tuning::kComputeRows;
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
             computeStep()},
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
        throwIfStopped();
        NvtxRange range("tile", tile);
        if (long_) {
            interrupts_->ask();
        }
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
    } catch (const faiss::FaissException& e) {
        rethrowUnlessOutOfMemory(e, defaultStream_);
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
    turns_.emplace(lanes_.size(), n_, rowsOfATile());
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

/// The one host wait of a blocking call, but for those of keepPace.
void StagingPipeline::Call::waitFor(cudaStream_t stream) {
    if (!pipe_.done_) {
        pipe_.done_.emplace();
    }
    pipe_.done_->record(stream);
    stageOnHost(
            recorder_, span(Stage::Wait, Lane::CallingThread, -1, 0), [this] {
                wait(*pipe_.done_);
            });
}

/// Calls that are estimated short leave the waiting to CUDA.
void StagingPipeline::Call::wait(const Event& event) {
    if (long_) {
        pipe_.waitUnlessInterrupted(event);
    } else {
        pipe_.wait(event);
    }
}

} // namespace gpu
} // namespace faiss_ext
