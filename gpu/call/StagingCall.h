#pragma once

// Private to StagingPipeline.

#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/call/EndWorkOnFailure.h>
#include <faiss_ext/gpu/call/LaneTurns.h>
#include <faiss_ext/gpu/call/Pace.h>
#include <faiss_ext/gpu/call/StagingPipeline.h>
#include <faiss_ext/gpu/compute/CallLanes.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

/// One call of run, from the look at its arrays to the end of its wait.
class StagingPipeline::Call {
   public:
    /// `recorder`: where the times of its stages go, or nullptr. `mostRows`:
    /// rows that are computed at once, at most.
    Call(StagingPipeline& pipeline,
         idx_t n,
         const std::vector<InputRows>& inputs,
         const std::vector<OutputRows>& outputs,
         const TileWork& work,
         StageRecorder* recorder,
         idx_t mostRows);

    void run();

    idx_t tiles() const {
        return plan_.tiles();
    }
    /// Rows that are computed at once.
    idx_t rowsAtOnce() const {
        return pacedRows_ > 0 ? std::min(pacedRows_, rowsOfATile())
                              : rowsOfATile();
    }

   private:
    idx_t rowsOfATile() const {
        return std::min(plan_.tileRows, mostRows_);
    }
    void estimate();
    idx_t computeStep() const;
    void runInPlace();
    void runOneTile();
    void runTiles();

    void cut(const StagedConfig& config);
    void cutInHalf();
    void cutDown(idx_t rows);
    bool borrow();
    void reserveBlocks();
    void prepareSlots();
    void readAhead();
    void finishReading(idx_t tile);
    void uploadTile(idx_t tile, Slot& slot);
    void computeTile(idx_t tile, Slot& slot);
    void downloadTile(idx_t tile, Slot& slot);
    idx_t firstLeft() const;
    void copyLastTiles();

    void openLanes();

    void layOut(idx_t rows);
    // The stages of the tile laid out last.
    void compute(
            idx_t tile,
            const LaneTurns::Part& part,
            char* inBlock,
            char* outBlock);
    void computeRows(
            idx_t tile,
            const LaneTurns::Part& part,
            char* inBlock,
            char* outBlock);
    void keepPace(idx_t tile, double seconds);
    void computeAll(char* inBlock, char* outBlock);
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
    void wait(const Event& event);
    void complete(EndWorkOnFailure& onFailure);
    EndWorkOnFailure endOnFailure(std::vector<cudaStream_t> streams);
    void runTilesOrOne();

    StagingPipeline& pipe_;
    const idx_t n_;
    const TileWork& work_;
    StageRecorder* const recorder_;
    const idx_t mostRows_;
    RowArrays inputs_;
    RowArrays outputs_;
    /// Rows of the tile laid out last.
    idx_t rows_ = 0;
    /// How many lanes the call would have room for, and how it is cut then.
    size_t mostLanes_ = 0;
    const StagedConfig* config_ = nullptr;
    TilePlan plan_;

    /// Whether the caller waits: some output is in host memory.
    bool blocking_ = false;
    /// For each row, about; whether all of them take so long that interrupts
    /// are looked for; and how many are then computed at once, if the caller
    /// waits.
    double rowSeconds_ = 0;
    bool long_ = false;
    idx_t pacedRows_ = 0;
    /// Of a long call.
    std::optional<Pace> pace_;
    std::optional<InterruptClock> interrupts_;
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
    // Scratch memory of lanes lies on the same stack.
    CallLanes lanes_;
    std::optional<LaneTurns> turns_;
    // Why there is no more memory on the GPU.
    std::exception_ptr noMemory_;

    // Lent for the call; they go back after EndWorkOnFailure has done its part.
    std::vector<PinnedBuffer> lent_;
    // For each slot, where pageable inputs and results pass through.
    std::vector<char*> pinnedIn_;
    std::vector<char*> pinnedOut_;
    idx_t firstLeft_ = 0;
    // Of the first tiles, which have a slot each. They end before their pinned
    // memory goes back.
    std::vector<std::unique_ptr<CopyTeam::Ahead>> reads_;
    HostInterval::Clock::time_point readUntil_;
};

} // namespace gpu
} // namespace faiss_ext
