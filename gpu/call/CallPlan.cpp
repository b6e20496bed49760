#include <faiss_ext/gpu/call/CallPlan.h>

#include <algorithm>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/compute/ComputeStreams.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// Of Faiss' temporary memory a scarce call takes so much for its blocks, at
/// most: the rest is for what Faiss computes with.
constexpr size_t kScarceShare = 4;

/// Above what a block of a tile has in bytes for its rows: its arrays are
/// aligned.
constexpr size_t kBlockSlack = 1024;

/// Plans one call, choice by choice.
class Planner {
   public:
    Planner(const CallRequest& request, const CallLimits& limits)
            : asked_(request),
              limits_(limits),
              config_(limits.config),
              needs_(request.computation.needs(request.n)) {}

    CallPlan plan() {
        plan_.waits = asked_.out.onHost > 0;
        const size_t lanes = lanesWorthwhile();
        cut(lanes);
        choosePath();
        if (lanes > 1) {
            chooseLanes(lanes);
        } else {
            chooseSlices();
        }
        chooseRowsAtOnce();
        plan_.mapped = needs_.storesToPinned && asked_.out.onHost > 0 &&
                       plan_.path == CallPlan::Path::OneTile &&
                       asked_.n <= tuning::kComputeRows &&
                       asked_.n * asked_.out.onHost <= config_.mappedBytes;
        if (plan_.path == CallPlan::Path::Tiles && asked_.out.pinned > 0) {
            plan_.firstCopiedByCaller = firstCopiedByCaller();
        }
        return std::move(plan_);
    }

   private:
    /// On how many streams parts of the rows could be computed, before it is
    /// known what else takes temporary memory.
    size_t lanesWorthwhile() const {
        if (needs_.laneBytes == 0 || limits_.scarce) {
            return 1;
        }
        const size_t most =
                config_.computeLanes > 0 ? config_.computeLanes : needs_.lanes;
        return affordableStreams(
                std::min<size_t>(most, asked_.n / tuning::kComputeRows),
                needs_.laneBytes,
                0,
                limits_.temporaryBytes);
    }

    void cut(size_t lanes) {
        // Pageable results want large tiles in any case: tuning::kTileBytes.
        sizes_ = lanes > 1 && asked_.out.pinned == 0 ? &config_.onLanes
                                                     : &config_.whole;
        step_ = lanes > 1 ? tuning::kComputeRows
                          : tuning::kFaissStreams * tuning::kComputeRows;
        const bool own = limits_.faissPinnedBytes == 0;
        const bool both = asked_.in.pinned > 0 && asked_.out.pinned > 0 && own;
        const size_t share =
                both ? limits_.pinnedBytes / 2 : limits_.pinnedBytes;
        plan_.tiles = planTiles(
                asked_.n,
                {asked_.in.staged,
                 asked_.in.pinned,
                 asked_.out.staged,
                 asked_.out.pinned,
                 needs_.rowOperations,
                 step_},
                *sizes_,
                mostTileRows(),
                share,
                own ? share : limits_.faissPinnedBytes);
    }

    /// Rows of a tile at most, where that is not for bytes to decide; else 0.
    idx_t mostTileRows() const {
        if (!limits_.scarce) {
            return config_.tileRows;
        }
        const size_t rowBytes =
                std::max<size_t>(1, asked_.in.staged + asked_.out.staged);
        // What does not fit is allocated, or makes another attempt.
        const idx_t fit = std::max<idx_t>(
                tuning::kComputeRows,
                limits_.temporaryBytes / kScarceShare / rowBytes);
        const idx_t most = std::min(limits_.mostRows, fit);
        return config_.tileRows > 0 ? std::min(config_.tileRows, most) : most;
    }

    void choosePath() {
        if (asked_.in.staged + asked_.out.staged == 0) {
            plan_.path = CallPlan::Path::InPlace;
        } else if (plan_.tiles.tiles() == 1) {
            plan_.path = CallPlan::Path::OneTile;
        } else {
            plan_.path = CallPlan::Path::Tiles;
            plan_.temporaryBlocks = limits_.scarce;
            if (limits_.scarce) {
                plan_.tiles.depth = 1;
            }
        }
    }

    /// Of all rows' blocks, about.
    size_t blockBytes() const {
        return asked_.n * (asked_.in.staged + asked_.out.staged);
    }

    /// Temporary memory that is left for scratch.
    size_t temporaryLeft() const {
        if (plan_.path != CallPlan::Path::OneTile) {
            return limits_.temporaryBytes;
        }
        const size_t blocks = blockBytes() + 2 * kBlockSlack;
        return limits_.temporaryBytes -
               std::min(limits_.temporaryBytes, blocks);
    }

    void chooseLanes(size_t most) {
        // Faiss computes on two streams by itself, but joins them after each
        // tile.
        const bool two = config_.computeLanes > 0 || plan_.tiles.tiles() > 1;
        const size_t streams =
                affordableStreams(most, needs_.laneBytes, 0, temporaryLeft());
        if (streams >= (two ? 2 : 3)) {
            plan_.streams = streams;
            plan_.laneBytes = needs_.laneBytes;
        }
    }

    /// Few queries among many vectors: Faiss selects the nearest of one query
    /// with one of a GPU's many processors. The largest slices, for as many
    /// streams as may be, that there is memory for.
    void chooseSlices() {
        const idx_t rows = std::min(asked_.n, plan_.tiles.tileRows);
        const idx_t vectors = needs_.sliceableVectors;
        if (vectors == 0 || limits_.scarce || rows > tuning::kComputeRows) {
            return;
        }
        const idx_t least =
                std::max<idx_t>(config_.sliceVectors, rows * needs_.rowResults);
        const idx_t most = config_.computeLanes > 0 ? config_.computeLanes
                                                    : tuning::kComputeLanes;
        for (idx_t count = std::min(most, vectors / least);
             count > 1 && vectors / count >= least;
             count *= 2) {
            Slices slices;
            slices.vectors = divideUp(vectors, count);
            slices.count = static_cast<int>(divideUp(vectors, slices.vectors));
            const SliceNeeds needs =
                    asked_.computation.sliceNeeds(rows, slices);
            const size_t streams = affordableStreams(
                    std::min<size_t>(most, slices.count),
                    needs.laneBytes,
                    needs.foundBytes + needs.mergeBytes,
                    temporaryLeft());
            if (streams > 1) {
                plan_.streams = streams;
                plan_.laneBytes = needs.laneBytes;
                plan_.slices = slices;
                plan_.foundBytes = needs.foundBytes;
                return;
            }
        }
    }

    void chooseRowsAtOnce() {
        plan_.rowsAtOnce = std::min(plan_.tiles.tileRows, limits_.mostRows);
        const double most = config_.secondsAhead;
        plan_.rowSeconds = needs_.rowOperations / limits_.operationsPerSecond +
                           (asked_.in.staged + asked_.out.staged) /
                                   tuning::kBytesPerSecond;
        plan_.interruptible =
                asked_.n * plan_.rowSeconds > tuning::kLongCall * most;
        plan_.paced = plan_.interruptible && plan_.waits;
        if (plan_.paced) {
            // Two pieces, so that the GPU does not wait for the host in
            // between.
            const idx_t piece =
                    step_ *
                    std::max<idx_t>(1, most / 2 / (step_ * plan_.rowSeconds));
            plan_.rowsAtOnce = std::min(plan_.rowsAtOnce, piece);
        }
    }

    /// A host function begins up to 100 us after the copy that it stands
    /// behind, for CUDA's thread has to be woken, and behind the last tile
    /// there is nothing to hide that. One tile at least; more, each of which
    /// still has its slot, while their results are within oneTileBytes, like
    /// those of a call that is not cut.
    idx_t firstCopiedByCaller() const {
        const TilePlan& tiles = plan_.tiles;
        const size_t most = sizes_->oneTileBytes / asked_.out.pinned;
        idx_t first = tiles.tiles() - 1;
        while (first > tiles.tiles() - tiles.depth &&
               static_cast<size_t>(asked_.n - tiles.firstRow(first - 1)) <=
                       most) {
            --first;
        }
        return first;
    }

    const CallRequest& asked_;
    const CallLimits& limits_;
    const CallConfig& config_;
    const ComputeNeeds needs_;
    const TileSizes* sizes_ = nullptr;
    /// Rows that are computed side by side.
    idx_t step_ = 0;
    CallPlan plan_;
};

} // namespace

CallPlan planCall(const CallRequest& request, const CallLimits& limits) {
    return Planner(request, limits).plan();
}

bool halve(CallLimits& limits, const CallPlan& plan) {
    if (limits.scarce && plan.rowsAtOnce == 1) {
        return false;
    }
    limits.scarce = true;
    // Scratch memory for several streams may be all that is missing.
    limits.mostRows = plan.streams > 1
                              ? plan.rowsAtOnce
                              : std::max<idx_t>(1, plan.rowsAtOnce / 2);
    return true;
}

std::string CallPlan::text() const {
    const auto number = [](auto value) { return std::to_string(value); };
    std::string text = number(tiles.bounds.back()) + " rows ";
    switch (path) {
        case Path::InPlace:
            text += "in place";
            break;
        case Path::OneTile:
            text += mapped ? "in one tile, stored by the kernels"
                           : "in one tile";
            break;
        case Path::Tiles:
            text += "in " + number(tiles.tiles()) + " tiles of up to " +
                    number(tiles.tileRows) + " (" + number(tiles.depth) +
                    " at once)";
            if (temporaryBlocks) {
                text += ", in Faiss' temporary memory";
            }
            break;
    }
    if (slices.count > 1) {
        text += ", computed in " + number(slices.count) +
                " slices of the vectors on " + number(streams) + " streams";
    } else if (streams > 1) {
        text += ", computed on " + number(streams) + " streams";
    } else {
        text += ", computed on the default stream";
    }
    if (rowsAtOnce < tiles.tileRows) {
        text += ", " + number(rowsAtOnce) + " rows at once";
    }
    text += !waits  ? "; no wait"
            : paced ? "; waits now and then"
                    : "; one wait";
    return text;
}

} // namespace gpu
} // namespace faiss_ext
