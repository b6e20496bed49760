#pragma once

#include <faiss_ext/gpu/profile/SearchProfile.h>

#include <set>
#include <string>

namespace test {

/// The streams that a search was computed on.
inline std::set<std::string> lanesOf(
        const faiss_ext::gpu::SearchProfile& profile) {
    std::set<std::string> lanes;
    for (const auto& span : profile.spans) {
        if (span.stage == faiss_ext::gpu::Stage::Compute) {
            lanes.insert(nameOf(span.lane));
        }
    }
    return lanes;
}

} // namespace test
