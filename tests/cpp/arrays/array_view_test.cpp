// Descriptions of arrays: sizes in 128 bits, reach, contiguity.

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include <faiss_ext/gpu/arrays/ArrayView.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>

using namespace faiss_ext::gpu;

namespace {

constexpr DataType kFloat32{DataType::Kind::Float, 32};
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();

ArrayView view(
        std::vector<int64_t> shape,
        std::vector<int64_t> strides,
        uintptr_t address = 1 << 20,
        DataType dtype = kFloat32) {
    return ArrayView(
            "x",
            {reinterpret_cast<void*>(address),
             dtype,
             std::move(shape),
             std::move(strides),
             DeviceKind::Cuda,
             0,
             false});
}

} // namespace

TEST(ArrayView, contiguous_array) {
    const auto a = view({3, 8}, {32, 4});
    EXPECT_TRUE(a.isContiguous());
    EXPECT_EQ(24, a.elements());
    EXPECT_EQ(96u, a.checkedBytes());
    EXPECT_EQ(96u, a.span());
    EXPECT_EQ(a.data(), a.lowest());
}

TEST(ArrayView, strides_of_extent_one_say_nothing) {
    EXPECT_TRUE(view({1, 8}, {kLeast, 4}).isContiguous());
    EXPECT_TRUE(view({8, 1}, {4, 3}).isContiguous());
}

TEST(ArrayView, negative_strides_reach_below_the_first_element) {
    const auto a = view({3, 8}, {-32, 4});
    EXPECT_FALSE(a.isContiguous());
    EXPECT_EQ(static_cast<char*>(a.data()) - 64, a.lowest());
    EXPECT_EQ(96u, a.span());
}

TEST(ArrayView, zero_strides_repeat) {
    const auto a = view({3, 8}, {0, 4});
    EXPECT_EQ(32u, a.span());
    EXPECT_EQ(96u, a.checkedBytes());
    EXPECT_FALSE(a.isContiguous());
}

TEST(ArrayView, empty_arrays_need_no_memory) {
    const auto a = view({0, kMost, kMost}, {kMost, kLeast, 3}, 0);
    EXPECT_TRUE(a.isContiguous());
    EXPECT_EQ(0u, a.checkedBytes());
    EXPECT_EQ(0u, a.span());
}

TEST(ArrayView, a_scalar_is_one_element) {
    EXPECT_EQ(4u, view({}, {}).checkedBytes());
}

TEST(ArrayView, products_that_wrap_are_refused) {
    // 2^32 * 2^32 is 0 in 64 bits; 2^62 * 4 bytes too.
    for (const auto& shape : std::vector<std::vector<int64_t>>{
                 {int64_t(1) << 32, int64_t(1) << 32},
                 {int64_t(1) << 62},
                 {(int64_t(1) << 62) + 1},
                 {kMost, kMost, kMost, kMost}}) {
        EXPECT_THROW(compactStrides("x", shape, kFloat32), InvalidArray);
        EXPECT_THROW(
                view(shape, std::vector<int64_t>(shape.size(), 0)),
                InvalidArray);
    }
}

TEST(ArrayView, reaches_that_wrap_are_refused) {
    EXPECT_THROW(view({5, 2}, {int64_t(1) << 62, 4}), InvalidArray);
    EXPECT_THROW(view({3, 8}, {kLeast, 4}), InvalidArray);
    EXPECT_THROW(view({3, 8}, {-(1 << 21), 4}), InvalidArray);
    EXPECT_THROW(
            view({3, 8}, {32, 4}, std::numeric_limits<uintptr_t>::max() - 43),
            InvalidArray);
}

TEST(ArrayView, descriptions_that_do_not_fit_together_are_refused) {
    EXPECT_THROW(view({3, -8}, {32, 4}), InvalidArray);
    EXPECT_THROW(view({3, 8}, {32}), InvalidArray);
    EXPECT_THROW(view({3, 8}, {33, 4}), InvalidArray);
    EXPECT_THROW(view({3, 8}, {32, 4}, 0), InvalidArray);
    EXPECT_THROW(view({3, 8}, {32, 4}, (1 << 20) + 2), InvalidArray);
    EXPECT_THROW(
            view(std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 4)),
            InvalidArray);
    for (const int bits : {0, 1, 4, 12, 24, 128}) {
        EXPECT_THROW(
                view({3}, {4}, 1 << 20, {DataType::Kind::Float, bits}),
                InvalidArray)
                << bits;
    }
}

TEST(ArrayView, a_refusal_begins_with_the_name) {
    try {
        view({-1}, {4});
        FAIL();
    } catch (const InvalidArray& e) {
        EXPECT_EQ(0u, std::string(e.what()).find("x: ")) << e.what();
    }
}
