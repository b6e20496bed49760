// The base of tests of the simulator itself.

#pragma once

#include <string>

#include "../cuda_sim.h"
#include "../cuda_sim_kernel.h"
#include "conformance.h"

namespace cuda_sim {

/// Starts each test on a fresh simulator; at its end nothing may be reported
/// or leaked that the test has not taken with takeReport.
class SimTest : public testing::Test {
   protected:
    void SetUp() override {
        cuda_sim_reset();
        cuda_sim_set_hold_timeout_ms(0);
    }

    void TearDown() override {
        cuda_sim_release_all();
        cudaDeviceSynchronize();
        cuda_sim_report_leaks();
        for (size_t i = 0; i < cuda_sim_check(); ++i) {
            ADD_FAILURE() << cuda_sim_report(i);
        }
        cuda_sim_reset();
    }

    /// Expects exactly this one report; returns its text.
    std::string takeReport(int kind) {
        EXPECT_EQ(1u, cuda_sim_check());
        EXPECT_EQ(kind, cuda_sim_report_kind_of(0));
        const char* text = cuda_sim_report(0);
        std::string result = text ? text : "";
        for (size_t i = 1; i < cuda_sim_check(); ++i) {
            ADD_FAILURE() << "also: " << cuda_sim_report(i);
        }
        cuda_sim_clear_reports();
        return result;
    }
};

/// A kernel that adds one to each of the integers.
inline cudaError_t addOne(int* data, size_t count, cudaStream_t stream) {
    return launch(
            "addOne", stream, {reads(data, count), writes(data, count)}, [=] {
                int* p = view(data);
                for (size_t i = 0; i < count; ++i) {
                    ++p[i];
                }
            });
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

} // namespace cuda_sim
