#pragma once

// The fixture of tests that look into the simulated CUDA runtime.

#include <cuda_runtime_api.h>
#include <cuda_sim.h>
#include <gtest/gtest.h>

namespace test {

/// Each test begins on a clean simulator and must end without a report.
class SimTest : public ::testing::Test {
   protected:
    void SetUp() override {
        cuda_sim_reset();
    }

    void TearDown() override {
        cuda_sim_release_all();
        for (size_t i = 0; i < cuda_sim_check(); ++i) {
            ADD_FAILURE() << cuda_sim_report(i);
        }
        cuda_sim_reset();
    }

    static cuda_sim_stats counts() {
        cuda_sim_stats stats;
        cuda_sim_get_stats(&stats);
        return stats;
    }

    static uint64_t hostWaits() {
        const auto now = counts();
        return now.waits_event + now.waits_stream + now.waits_device +
               now.waits_memcpy + now.waits_pageable + now.waits_free;
    }

    static uint64_t bytesUp() {
        const auto now = counts();
        return now.bytes_h2d_pageable + now.bytes_h2d_pinned;
    }

    static uint64_t bytesDown() {
        const auto now = counts();
        return now.bytes_d2h_pageable + now.bytes_d2h_pinned;
    }

    static uint64_t copies() {
        const auto now = counts();
        return now.copies_h2d_pageable + now.copies_h2d_pinned +
               now.copies_d2h_pageable + now.copies_d2h_pinned +
               now.copies_d2d + now.copies_p2p + now.copies_h2h;
    }

    static uint64_t allocations() {
        const auto now = counts();
        return now.allocs_device + now.allocs_pinned + now.allocs_managed +
               now.allocs_async + now.registrations;
    }
};

} // namespace test
