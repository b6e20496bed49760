// Vectors that float16 cannot hold are found out.

#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <limits>
#include <vector>

#include "support/GpuTest.h"

namespace {

using namespace faiss_ext::gpu;

constexpr int kDims = 3;

template <class Index>
class Float16RangeTest : public test::GpuTest {
   protected:
    static faiss::gpu::GpuIndexFlatConfig config(bool float16) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.useFloat16 = float16;
        return config;
    }

    /// Vectors of ones, and one component `value` in vector 5 of 9.
    static bool beyond(float value, bool float16, idx_t i0, idx_t n) {
        std::vector<float> base(9 * kDims, 1.0f);
        base[5 * kDims + 1] = value;
        Index index(&resources(), kDims, config(float16));
        index.add(4, base.data());
        index.add(5, base.data() + 4 * kDims);
        return index.beyondFloat16(i0, n);
    }
};

using FlatIndexes = ::testing::Types<GpuIndexFlatL2, GpuIndexFlatIP>;
TYPED_TEST_SUITE(Float16RangeTest, FlatIndexes);

TYPED_TEST(Float16RangeTest, infinity_in_float16_is_found) {
    for (float value : {65520.0f, -65520.0f, 1e30f}) {
        EXPECT_TRUE(this->beyond(value, true, 0, 9)) << value;
        EXPECT_TRUE(this->beyond(value, true, 5, 1)) << value;
        EXPECT_FALSE(this->beyond(value, false, 0, 9)) << value;
    }
}

TYPED_TEST(Float16RangeTest, other_vectors_do_not_count) {
    EXPECT_FALSE(this->beyond(1e30f, true, 0, 5));
    EXPECT_FALSE(this->beyond(1e30f, true, 6, 3));
    EXPECT_FALSE(this->beyond(1e30f, true, 5, 0));
}

TYPED_TEST(Float16RangeTest, what_fits_is_no_matter) {
    for (float value :
         {0.0f, -255.8f, 1e-9f, std::numeric_limits<float>::quiet_NaN()}) {
        EXPECT_FALSE(this->beyond(value, true, 0, 9)) << value;
    }
}

/// Faiss' L2 norms are sums of squares in float16; inner products have none.
TYPED_TEST(Float16RangeTest, squares_count_for_l2_alone) {
    const bool squared = std::is_same_v<TypeParam, GpuIndexFlatL2>;
    for (float value : {256.0f, -300.0f, 65504.0f}) {
        EXPECT_EQ(this->beyond(value, true, 0, 9), squared) << value;
    }
}

TYPED_TEST(Float16RangeTest, bounds_are_checked) {
    EXPECT_THROW(this->beyond(1, true, 8, 2), faiss::FaissException);
    EXPECT_THROW(this->beyond(1, true, -1, 2), faiss::FaissException);
    EXPECT_THROW(this->beyond(1, true, 0, -1), faiss::FaissException);
}

} // namespace
