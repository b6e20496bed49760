// Searches that take seconds on a GPU, and are ended in the midst. On the
// simulator small ones, whose times mean nothing.

#include <dlfcn.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>

#include "support/Arrays.h"
#include "support/Calls.h"
#include "support/GpuTest.h"
#include "support/Interrupting.h"
#include "support/Neighbours.h"

namespace {

using Clock = std::chrono::steady_clock;
using faiss_ext::gpu::GpuIndexFlatL2;
using namespace test;

double secondsSince(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

bool isSimulated() {
    return dlsym(RTLD_DEFAULT, "cuda_sim_reset");
}

class LongSearch : public GpuTest {
   protected:
    static constexpr int kDims = 128;
    static constexpr int kNearest = 10;
    static constexpr int64_t kFew = 100;

    void SetUp() override {
        GpuTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        TunedConfig config;
        if (isSimulated()) {
            config.secondsAhead = 1e-12;
        }
        index_ = std::make_unique<GpuIndexFlatL2>(
                &resources(), kDims, faiss::gpu::GpuIndexFlatConfig(), config);
        vectors_ = isSimulated() ? 100 : 1000000;
        queries_ = isSimulated() ? 3000 : 200000;
        base_ = randomVectors(vectors_, kDims, 1);
        index_->add(vectors_, base_.data());
        x_ = randomVectors(queries_, kDims, 2);
    }

    /// Vectors are their own nearest neighbours.
    void expectAnswers() {
        std::vector<float> distances(kFew);
        std::vector<int64_t> labels(kFew, -2);
        index_->search(kFew, base_.data(), 1, distances.data(), labels.data());
        for (int64_t i = 0; i < kFew; ++i) {
            EXPECT_EQ(labels[i], i);
        }
    }

    std::unique_ptr<GpuIndexFlatL2> index_;
    int64_t vectors_ = 0;
    int64_t queries_ = 0;
    std::vector<float> base_;
    std::vector<float> x_;
};

TEST_F(LongSearch, is_over_soon_after_it_is_interrupted) {
    for (Memory memory : {Memory::Pageable, Memory::Pinned}) {
        SCOPED_TRACE(nameOf(memory));
        Array<float> distances(memory, queries_ * kNearest);
        Array<int64_t> labels(memory, queries_ * kNearest);
        const double after = isSimulated() ? 0 : 0.5;
        // As a few others have, which take memory that is then there.
        expectAnswers();
        const auto begin = Clock::now();
        bool ended = false;
        {
            const Interrupting interrupt(
                    [=](int) { return secondsSince(begin) >= after; });
            try {
                index_->search(
                        queries_,
                        x_.data(),
                        kNearest,
                        distances.data(),
                        labels.data());
            } catch (const faiss::FaissException& e) {
                ended = true;
                EXPECT_NE(
                        std::string(e.what()).find("interrupted"),
                        std::string::npos);
            }
            const double late = secondsSince(begin) - after;
            if (!interrupt.fired()) {
                GTEST_SKIP() << "the search took no " << after << " s here";
            }
            EXPECT_TRUE(ended);
            if (!isSimulated()) {
                EXPECT_LT(late, 0.3);
                std::cout << "    ended " << late * 1e3 << " ms after the "
                          << "interrupt was wanted\n";
            }
        }
        expectAnswers();
    }
}

TEST_F(LongSearch, finds_what_short_ones_find) {
    Neighbours found{
            std::vector<float>(queries_), std::vector<int64_t>(queries_)};
    const auto begin = Clock::now();
    index_->search(
            queries_,
            x_.data(),
            1,
            found.distances.data(),
            found.labels.data());
    std::cout << "    " << secondsSince(begin) << " s\n";
    std::vector<float> distances(kFew);
    std::vector<int64_t> labels(kFew);
    index_->search(
            kFew,
            x_.data() + (queries_ - kFew) * kDims,
            1,
            distances.data(),
            labels.data());
    // Whole numbers: the same, though several vectors may be as near.
    EXPECT_TRUE(std::equal(
            distances.begin(), distances.end(), found.distances.end() - kFew));
}

} // namespace
