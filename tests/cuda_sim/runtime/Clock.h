// Vector clocks. A timeline is a stream or a host thread; its time is the
// number of its operations. An access is ordered before a later one exactly if
// the later one's clock covers the time of the first.

#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace cuda_sim {

using Timeline = uint32_t; // 0: none

struct Epoch {
    Timeline timeline = 0;
    uint64_t time = 0;
};

class VectorClock {
   public:
    uint64_t get(Timeline timeline) const {
        auto it = find(timeline);
        return it != entries_.end() && it->first == timeline ? it->second : 0;
    }

    void set(Timeline timeline, uint64_t time) {
        auto it = entries_.begin() + (find(timeline) - entries_.cbegin());
        if (it != entries_.end() && it->first == timeline) {
            it->second = time;
        } else {
            entries_.insert(it, {timeline, time});
        }
    }

    void join(const VectorClock& other) {
        if (&other == this) {
            return;
        }
        size_t hint = 0;
        for (auto& entry : other.entries_) {
            while (hint < entries_.size() &&
                   entries_[hint].first < entry.first) {
                ++hint;
            }
            if (hint < entries_.size() && entries_[hint].first == entry.first) {
                entries_[hint].second =
                        std::max(entries_[hint].second, entry.second);
            } else {
                entries_.insert(entries_.begin() + hint, entry);
            }
        }
    }

    bool covers(const Epoch& epoch) const {
        return epoch.timeline == 0 || get(epoch.timeline) >= epoch.time;
    }

    /// Drops the timelines for which retired(timeline, time) holds.
    template <typename F>
    void prune(const F& retired) {
        entries_.erase(
                std::remove_if(
                        entries_.begin(),
                        entries_.end(),
                        [&](const std::pair<Timeline, uint64_t>& e) {
                            return retired(e.first, e.second);
                        }),
                entries_.end());
    }

    size_t size() const {
        return entries_.size();
    }

   private:
    std::vector<std::pair<Timeline, uint64_t>>::const_iterator find(
            Timeline timeline) const {
        return std::lower_bound(
                entries_.begin(),
                entries_.end(),
                timeline,
                [](const std::pair<Timeline, uint64_t>& e, Timeline t) {
                    return e.first < t;
                });
    }

    std::vector<std::pair<Timeline, uint64_t>> entries_; // by timeline
};

} // namespace cuda_sim
