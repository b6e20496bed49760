// Arrays that are lent through DLPack, and arrays that we lend.

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include <faiss_ext/gpu/arrays/DLPackExport.h>
#include <faiss_ext/gpu/arrays/DLPackView.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>

using namespace faiss_ext::gpu;

namespace {

/// A managed tensor of [3, 8] float32, which counts how often it is given back.
template <class Managed>
struct Loan {
    int64_t shape[2] = {3, 8};
    int64_t strides[2] = {8, 1};
    float values[24] = {};
    int givenBack = 0;
    Managed managed{};

    Loan() {
        managed.tensor = {
                values,
                {dlpack::kCpu, 0},
                2,
                {dlpack::kFloat, 32, 1},
                shape,
                strides,
                0};
        managed.context = this;
        managed.deleter = [](Managed* self) {
            ++static_cast<Loan*>(self->context)->givenBack;
        };
    }
};

struct VersionedLoan : Loan<dlpack::VersionedTensor> {
    explicit VersionedLoan(uint32_t major = 1, uint64_t flags = 0) {
        managed.version = {major, 0};
        managed.flags = flags;
    }
};

using PlainLoan = Loan<dlpack::PlainTensor>;

} // namespace

TEST(DLPackArray, strides_are_elements_there_and_bytes_here) {
    PlainLoan loan;
    DLPackArray array(&loan.managed);
    const ArrayView view = array.view("x");
    EXPECT_EQ((std::vector<int64_t>{32, 4}), view.strides());
    EXPECT_EQ(loan.values, view.data());
    EXPECT_FALSE(view.readOnly());
    EXPECT_EQ("float32", view.dtype().name());
}

TEST(DLPackArray, no_strides_mean_compact) {
    PlainLoan loan;
    loan.managed.tensor.strides = nullptr;
    EXPECT_TRUE(DLPackArray(&loan.managed).view("x").isContiguous());
}

TEST(DLPackArray, is_given_back_once) {
    VersionedLoan loan;
    {
        DLPackArray array(&loan.managed);
        DLPackArray moved(std::move(array));
        DLPackArray assigned(std::move(moved));
        assigned = std::move(assigned);
        EXPECT_EQ(0, loan.givenBack);
    }
    EXPECT_EQ(1, loan.givenBack);
}

TEST(DLPackArray, move_assignment_gives_back_what_it_had) {
    PlainLoan first;
    PlainLoan second;
    DLPackArray array(&first.managed);
    array = DLPackArray(&second.managed);
    EXPECT_EQ(1, first.givenBack);
    EXPECT_EQ(0, second.givenBack);
}

TEST(DLPackArray, a_refused_one_is_given_back_too) {
    PlainLoan loan;
    loan.shape[0] = -3;
    {
        DLPackArray array(&loan.managed);
        EXPECT_THROW(array.view("x"), InvalidArray);
    }
    EXPECT_EQ(1, loan.givenBack);
}

TEST(DLPackArray, of_another_major_version_only_the_version_is_read) {
    // A block that ends behind the deleter: a sanitizer sees any read beyond.
    constexpr size_t kHead = offsetof(dlpack::VersionedTensor, flags);
    static int givenBack;
    givenBack = 0;
    const auto block = std::make_unique<char[]>(kHead);
    auto* managed = reinterpret_cast<dlpack::VersionedTensor*>(block.get());
    managed->version = {2, 0};
    managed->deleter = [](dlpack::VersionedTensor*) { ++givenBack; };
    {
        DLPackArray array(managed);
        EXPECT_FALSE(array.isCopy());
        EXPECT_THROW(array.view("x"), InvalidArray);
    }
    EXPECT_EQ(1, givenBack);
}

TEST(DLPackArray, flags_are_those_of_the_versioned_kind) {
    VersionedLoan loan(1, dlpack::kReadOnly | dlpack::kCopied);
    DLPackArray array(&loan.managed);
    EXPECT_TRUE(array.view("x").readOnly());
    EXPECT_TRUE(array.isCopy());
}

TEST(DLPackArray, a_missing_deleter_is_not_called) {
    PlainLoan loan;
    loan.managed.deleter = nullptr;
    DLPackArray array(&loan.managed);
}

TEST(DLPackExport, what_is_lent_reads_back_and_frees_its_owner) {
    const auto values = std::make_shared<std::vector<float>>(24);
    const ExportedArray lent{
            values,
            values->data(),
            {DataType::Kind::Float, 32},
            {3, 8},
            {dlpack::kCpu, 0},
            true};
    {
        DLPackArray array(exportVersioned(lent));
        const ArrayView view = array.view("x");
        EXPECT_TRUE(view.isContiguous());
        EXPECT_EQ((std::vector<int64_t>{3, 8}), view.shape());
        EXPECT_TRUE(array.isCopy());
        DLPackArray plain(exportPlain(lent));
        EXPECT_EQ(values->data(), plain.view("x").data());
        EXPECT_EQ(4, values.use_count());
    }
    EXPECT_EQ(2, values.use_count());
}
