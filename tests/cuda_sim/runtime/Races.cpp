#include "Races.h"

#include <algorithm>

namespace cuda_sim {

void AccessMap::split(uintptr_t at) {
    auto it = segments_.upper_bound(at);
    if (it == segments_.begin()) {
        return;
    }
    --it;
    if (it->first < at && at < it->second.end) {
        Segment right = it->second;
        it->second.end = at;
        segments_.emplace_hint(std::next(it), at, std::move(right));
    }
}

AccessMap::Segments::const_iterator AccessMap::firstTouching(
        uintptr_t begin) const {
    auto it = segments_.upper_bound(begin);
    if (it != segments_.begin()) {
        auto previous = std::prev(it);
        if (previous->second.end > begin) {
            return previous;
        }
    }
    return it;
}

std::vector<Conflict> AccessMap::record(
        uintptr_t begin,
        size_t bytes,
        bool isWrite,
        const Access& access,
        const VectorClock& clock) {
    std::vector<Conflict> conflicts;
    if (bytes == 0) {
        return conflicts;
    }
    uintptr_t end = begin + bytes;
    split(begin);
    split(end);

    uintptr_t gap = begin;
    auto it = segments_.lower_bound(begin);
    while (it != segments_.end() && it->first < end) {
        auto& segment = it->second;
        auto check = [&](const Access& earlier, bool earlierIsWrite) {
            if (earlier.origin && earlier.origin != access.origin &&
                !clock.covers(earlier.epoch)) {
                conflicts.push_back(
                        {earlier.origin,
                         earlierIsWrite,
                         it->first,
                         segment.end});
            }
        };
        check(segment.write, true);
        if (isWrite) {
            for (auto& read : segment.reads) {
                check(read, false);
            }
            it = segments_.erase(it);
            continue;
        }
        // A read that this one is ordered after says nothing more: whatever
        // is ordered after this one is ordered after that one.
        auto& reads = segment.reads;
        reads.erase(
                std::remove_if(
                        reads.begin(),
                        reads.end(),
                        [&](const Access& read) {
                            return clock.covers(read.epoch);
                        }),
                reads.end());
        reads.push_back(access);
        if (gap < it->first) {
            segments_.emplace_hint(
                    it, gap, Segment{it->first, Access(), {access}});
        }
        gap = segment.end;
        ++it;
    }
    if (isWrite) {
        segments_.emplace_hint(it, begin, Segment{end, access, {}});
    } else if (gap < end) {
        segments_.emplace_hint(it, gap, Segment{end, Access(), {access}});
    }
    return conflicts;
}

std::vector<Conflict> AccessMap::unordered(
        uintptr_t begin, size_t bytes, const VectorClock& clock) const {
    std::vector<Conflict> conflicts;
    for (auto it = firstTouching(begin);
         it != segments_.end() && it->first < begin + bytes;
         ++it) {
        auto check = [&](const Access& earlier, bool isWrite) {
            if (earlier.origin && !clock.covers(earlier.epoch)) {
                conflicts.push_back(
                        {earlier.origin, isWrite, it->first, it->second.end});
            }
        };
        check(it->second.write, true);
        for (auto& read : it->second.reads) {
            check(read, false);
        }
    }
    return conflicts;
}

bool AccessMap::hasPending(uintptr_t begin, size_t bytes) const {
    for (auto it = firstTouching(begin);
         it != segments_.end() && it->first < begin + bytes;
         ++it) {
        if (it->second.write.origin && it->second.write.origin->pending) {
            return true;
        }
        for (auto& read : it->second.reads) {
            if (read.origin->pending) {
                return true;
            }
        }
    }
    return false;
}

void AccessMap::erase(uintptr_t begin, size_t bytes) {
    split(begin);
    split(begin + bytes);
    segments_.erase(
            segments_.lower_bound(begin), segments_.lower_bound(begin + bytes));
}

void AccessMap::prune(const VectorClock& knownToAll) {
    for (auto it = segments_.begin(); it != segments_.end();) {
        auto& segment = it->second;
        auto& reads = segment.reads;
        reads.erase(
                std::remove_if(
                        reads.begin(),
                        reads.end(),
                        [&](const Access& read) {
                            return knownToAll.covers(read.epoch);
                        }),
                reads.end());
        if (knownToAll.covers(segment.write.epoch)) {
            segment.write = Access();
        }
        if (!segment.write.origin && reads.empty()) {
            it = segments_.erase(it);
        } else {
            ++it;
        }
    }
}

} // namespace cuda_sim
