// The least time that a GPU needs, by what CUDA says of it; no GPU.

#include <faiss_ext/gpu/profile/Roofline.h>
#include <gtest/gtest.h>

namespace {

using namespace faiss_ext::gpu;

constexpr GpuFigures kH200{9, 0, 132, 1980000, 3201000, 6144};

GpuPeaks round() {
    GpuPeaks peaks;
    peaks.known = true;
    peaks.tensorOperations = 1000;
    peaks.floatInstructions = 100;
    peaks.bytes = 10;
    return peaks;
}

TEST(Roofline, has_the_peaks_that_a_data_sheet_has) {
    const GpuPeaks peaks = peaksOf(kH200);
    EXPECT_TRUE(peaks.known);
    // Of an H200 NVIDIA says 989 Tflop/s at 1.83 GHz, 67 Tflop/s in float32,
    // and 4.8 TB/s.
    EXPECT_NEAR(peaks.tensorOperations / 1.98 * 1.83, 989.4e12, 0.1e12);
    EXPECT_NEAR(2 * peaks.floatInstructions, 66.9e12, 0.1e12);
    EXPECT_NEAR(peaks.bytes, 4.92e12, 0.01e12);
    EXPECT_EQ(
            peaks.text,
            "1071 Tflop/s by tensor cores, 33.5e12 float32 instructions/s, "
            "4.92 TB/s");
}

TEST(Roofline, of_other_gpus_is_not_known) {
    GpuFigures ampere = kH200;
    ampere.major = 8;
    EXPECT_FALSE(peaksOf(ampere).known);
    EXPECT_EQ(peaksOf(ampere).text, "not known for compute capability 8.0");
    GpuFigures blackwell = kH200;
    blackwell.major = 10;
    EXPECT_FALSE(peaksOf(blackwell).known);
    for (int GpuFigures::*figure :
         {&GpuFigures::multiprocessors,
          &GpuFigures::clock,
          &GpuFigures::memoryClock,
          &GpuFigures::memoryBus}) {
        GpuFigures silent = kH200;
        silent.*figure = 0;
        EXPECT_FALSE(peaksOf(silent).known);
        EXPECT_EQ(
                peaksOf(silent).text,
                "not known, as CUDA does not tell the GPU's clocks");
    }
}

TEST(Roofline, is_the_longest_of_what_works_side_by_side) {
    const QueryPaths none;
    EXPECT_DOUBLE_EQ(floorSeconds({2000, 100, 10}, none, round()), 2);
    EXPECT_DOUBLE_EQ(floorSeconds({1000, 300, 10}, none, round()), 3);
    EXPECT_DOUBLE_EQ(floorSeconds({1000, 100, 40}, none, round()), 4);
}

TEST(Roofline, of_nothing_known_is_not_known) {
    EXPECT_EQ(floorSeconds({}, {}, round()), -1);
    EXPECT_EQ(floorSeconds({1, 1, 1}, {}, GpuPeaks()), -1);
}

TEST(Roofline, counts_the_queries_alone_that_need_it) {
    const QueryPaths paths{true, 6, 3, 1};
    EXPECT_DOUBLE_EQ(
            floorSeconds(
                    {1000, 0, 0, ComputeWork::Of::Widened}, paths, round()),
            0.3);
    EXPECT_DOUBLE_EQ(
            floorSeconds({0, 1000, 0, ComputeWork::Of::Last}, paths, round()),
            1);
    EXPECT_DOUBLE_EQ(
            floorSeconds(
                    {1000, 0, 0, ComputeWork::Of::Filtered}, paths, round()),
            0.9);
    EXPECT_EQ(
            floorSeconds({0, 1000, 0, ComputeWork::Of::Last}, {}, round()), -1);
}

TEST(Roofline, adds_up_the_spans_of_a_name) {
    const std::vector<ComputeSpan> spans{
            {"copy", Lane::DefaultStream, 0, 1, 2},
            {"filter 1", Lane::DefaultStream, 0, 2, 4},
            {"select", Lane::DefaultStream, 0, 4, 5},
            {"filter 1", Lane::DefaultStream, 1, 6, 9},
            {"select", Lane::DefaultStream, 1, 9, 9.5}};
    const std::vector<ComputeWork> works{
            {0, 0, 5}, {1000, 0, 0}, {}, {500, 0, 0}, {0, 0, 1}};
    const auto stages = computeStages(spans, works, {}, round());
    ASSERT_EQ(stages.size(), 3u);
    EXPECT_EQ(stages[0].name, "copy");
    EXPECT_EQ(stages[1].name, "filter 1");
    EXPECT_EQ(stages[1].spans, 2);
    EXPECT_DOUBLE_EQ(stages[1].seconds, 5);
    EXPECT_DOUBLE_EQ(stages[1].floor, 1.5);
    // Of one of them it is not known.
    EXPECT_EQ(stages[2].floor, -1);
    EXPECT_DOUBLE_EQ(stages[2].seconds, 1.5);
}

} // namespace
