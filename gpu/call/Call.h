#pragma once

#include <memory>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/call/CallPlan.h>
#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/call/ComputeTurns.h>
#include <faiss_ext/gpu/call/EndWorkOnFailure.h>
#include <faiss_ext/gpu/call/Pace.h>
#include <faiss_ext/gpu/call/RowArrays.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

/// One call of CallRunner, from the look at its arrays to the end of its wait.
/// Does what its plan says.
class Call {
   public:
    /// Plans it. `recorder`: where the times of its stages go, or nullptr.
    /// Throws InvalidArray, CudaError; nothing was enqueued.
    Call(CallResources& kept,
         idx_t n,
         const std::vector<InputRows>& inputs,
         const std::vector<OutputRows>& outputs,
         Computation& computation,
         StageRecorder* recorder,
         const CallLimits& limits);

    void run();

    const CallPlan& plan() const {
        return plan_;
    }

   private:
    /// One tile: its number, its first row, and where its rows lie.
    struct Tile {
        idx_t number;
        idx_t first;
        BlockLayout in;
        BlockLayout out;
    };
    Tile tileOf(idx_t number) const;

    /// Whether parts of the rows are computed on several streams.
    bool sideBySide() const {
        return plan_.streams > 1 && plan_.slices.count == 1;
    }

    void runPath();
    void runInPlace();
    void runOneTile();
    void runTiles();

    void reserveTemporary(const Tile& tile);
    void temporaryIsUnused();
    void prepareSlots();
    void openStreams();
    DeviceBlocks::Slot& slotOf(const Tile& tile);
    char* inBlock(DeviceBlocks::Slot& slot);
    char* outBlock(DeviceBlocks::Slot& slot);
    char* pinnedForResults(size_t bytes, size_t slot);
    EndWorkOnFailure endOnFailure(std::vector<cudaStream_t> streams);
    void waitFor(cudaStream_t stream);
    void endCall(EndWorkOnFailure& onFailure);

    // The stages of a tile, in TileStages.cpp.
    void readAhead();
    void finishReading(const Tile& tile);
    void upload(const Tile& tile);
    void compute(const Tile& tile);
    void download(const Tile& tile);
    void copyLastTiles();
    void computeAll(const Tile& tile, char* inBlock, char* outBlock);
    void computePart(
            const Tile& tile,
            const ComputeTurns::Part& part,
            char* inBlock,
            char* outBlock);
    void enqueuePart(
            const Tile& tile,
            const ComputeTurns::Part& part,
            char* inBlock,
            char* outBlock);
    void enqueueSlices(const ComputeRows& rows);
    cudaStream_t streamOf(const ComputeTurns::Part& part) const;
    void keepPace(const Tile& tile, double seconds);
    void copyOnDevice(
            Stage stage,
            const Tile& tile,
            char* block,
            char* pinned,
            cudaStream_t stream);
    void copyOnHost(Stage stage, const Tile& tile, char* pinned);
    void enqueueOnHost(
            Stage stage,
            const Tile& tile,
            char* pinned,
            HostCopies& queue,
            cudaStream_t stream);
    const RowArrays& arraysOf(Stage stage) const;
    static const BlockLayout& layoutOf(Stage stage, const Tile& tile);
    StageSpan span(Stage stage, Lane lane, idx_t tile, size_t bytes) const;
    Lane laneOf(cudaStream_t stream) const;

    CallResources& kept_;
    const idx_t n_;
    Computation& computation_;
    StageRecorder* const recorder_;
    RowArrays inputs_;
    RowArrays outputs_;
    const CallPlan plan_;
    const cudaStream_t defaultStream_;
    cudaStream_t copyStream_ = nullptr;

    // Where the plan takes the tiles' blocks from Faiss' temporary memory, a
    // stack: given back in the order opposite to this.
    std::optional<ScratchMemory> temporaryIn_;
    std::optional<ScratchMemory> temporaryOut_;
    // Scratch memory of streams side by side lies on the same stack.
    ComputeStreams streams_;
    ComputeTurns turns_;

    // Of a call that may be interrupted.
    std::optional<Pace> pace_;
    std::optional<InterruptClock> interrupts_;

    // Taken for the call; they go back after EndWorkOnFailure has done its
    // part.
    std::vector<PinnedBuffer> pinnedBuffers_;
    // For each slot, where pageable inputs and results pass through.
    std::vector<char*> pinnedIn_;
    std::vector<char*> pinnedOut_;
    // Of the first tiles, which have a slot each. They end before their pinned
    // memory goes back.
    std::vector<std::unique_ptr<CopyTeam::Ahead>> reads_;
    HostInterval::Clock::time_point readUntil_;
};

} // namespace gpu
} // namespace faiss_ext
