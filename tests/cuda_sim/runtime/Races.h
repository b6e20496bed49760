// Which accesses each byte has seen, and which two of them are unordered.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "Clock.h"

namespace cuda_sim {

/// Where an operation or a host access came from; what a report names.
struct Origin {
    std::string what;     // "cudaMemcpyAsync device to host, 4096 bytes"
    std::string where;    // "stream 3" or "host thread 1"
    const void* caller;   // return address of the runtime call
    uint64_t sequence;    // number of the runtime call
    bool pending = false; // an operation that has not executed
};

std::string describe(const Origin& origin);

struct Access {
    Epoch epoch;
    std::shared_ptr<const Origin> origin;
};

struct Conflict {
    std::shared_ptr<const Origin> other;
    bool otherIsWrite;
    uintptr_t begin;
    uintptr_t end;
};

/// For each interval of addresses: the last write, and the reads since.
/// Detection looks at clocks only, so it does not depend on the order in
/// which the schedule happened to run things.
class AccessMap {
   public:
    /// Records an access and returns those that it races with.
    std::vector<Conflict> record(
            uintptr_t begin,
            size_t bytes,
            bool isWrite,
            const Access& access,
            const VectorClock& clock);

    /// Accesses in the range that the clock does not cover.
    std::vector<Conflict> unordered(
            uintptr_t begin, size_t bytes, const VectorClock& clock) const;

    /// Whether an operation that has not executed touches the range.
    bool hasPending(uintptr_t begin, size_t bytes) const;

    /// Memory was given back: what happens there later is another story.
    void erase(uintptr_t begin, size_t bytes);

    /// Drops the accesses that every later one is ordered after.
    void prune(const VectorClock& knownToAll);

    void clear() {
        segments_.clear();
    }

    size_t size() const {
        return segments_.size();
    }

   private:
    struct Segment {
        uintptr_t end;
        Access write;
        std::vector<Access> reads;
    };
    using Segments = std::map<uintptr_t, Segment>;

    /// Makes `at` a boundary between segments.
    void split(uintptr_t at);
    Segments::const_iterator firstTouching(uintptr_t begin) const;

    Segments segments_; // disjoint, by begin
};

} // namespace cuda_sim
