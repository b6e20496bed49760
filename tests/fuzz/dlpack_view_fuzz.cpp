// Fuzzes DLPackArray and ArrayView: a managed tensor made of the input's bytes.
// Whatever it says, either it is refused with InvalidArray, or the view's
// numbers agree with ones computed another way; the deleter runs once; and
// nothing is read beyond the arrays of shape and strides (their heap blocks end
// where the rank says).

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include <faiss_ext/gpu/arrays/DLPackView.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>

using namespace faiss_ext::gpu;

namespace {

__extension__ typedef __int128 Wide;

/// Takes values off the input; zeros when it is used up.
class Input {
   public:
    Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

    template <typename T>
    T take() {
        T value{};
        const size_t bytes = size_ < sizeof(T) ? size_ : sizeof(T);
        std::memcpy(&value, data_, bytes);
        data_ += bytes;
        size_ -= bytes;
        return value;
    }

    /// Mostly small numbers, or a wild one.
    int64_t takeNumber() {
        const int8_t small = take<int8_t>();
        return small == 127 ? take<int64_t>() : small;
    }

   private:
    const uint8_t* data_;
    size_t size_;
};

void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "does not hold: %s\n", what);
        std::abort();
    }
}

int deleted;

template <class Managed>
void fill(Managed& managed, const dlpack::Tensor& tensor, bool hasDeleter) {
    managed.tensor = tensor;
    managed.context = nullptr;
    managed.deleter = nullptr;
    if (hasDeleter) {
        managed.deleter = [](Managed*) { ++deleted; };
    }
}

/// The lowest and highest element address by walking every corner.
void checkReach(const ArrayView& view) {
    Wide low = 0;
    Wide high = 0;
    for (size_t i = 0; i < view.shape().size(); ++i) {
        const Wide end = Wide(view.shape()[i] - 1) * view.strides()[i];
        if (view.shape()[i] > 1) {
            low = end < 0 ? low + end : low;
            high = end > 0 ? high + end : high;
        }
    }
    const Wide at = Wide(reinterpret_cast<uintptr_t>(view.data()));
    const Wide lowest = Wide(reinterpret_cast<uintptr_t>(view.lowest()));
    require(lowest == at + low && lowest > 0, "lowest()");
    require(Wide(view.span()) == high - low + Wide(view.dtype().bytes()),
            "span()");
    require(lowest + Wide(view.span()) <= Wide(UINTPTR_MAX), "no wrap");
}

void check(const ArrayView& view) {
    bool empty = false;
    for (const int64_t extent : view.shape()) {
        require(extent >= 0, "extents");
        empty |= extent == 0;
    }
    Wide elements = empty ? 0 : 1;
    if (!empty) {
        for (const int64_t extent : view.shape()) {
            elements *= extent;
            require(elements <= INT64_MAX, "product");
        }
    }
    require(elements == view.elements(), "elements()");
    require(elements * Wide(view.dtype().bytes()) == Wide(view.checkedBytes()),
            "checkedBytes()");
    require(view.checkedBytes() <= size_t(PTRDIFF_MAX), "size");
    if (empty) {
        require(view.isContiguous() && view.span() == 0, "empty");
        return;
    }
    require(view.data() != nullptr, "pointer");
    checkReach(view);
    if (view.isContiguous()) {
        require(view.span() == view.checkedBytes() &&
                        view.lowest() == view.data(),
                "contiguous");
    }
    const auto compact = compactStrides("x", view.shape(), view.dtype());
    bool same = true;
    for (size_t i = 0; i < compact.size(); ++i) {
        same &= view.shape()[i] == 1 || compact[i] == view.strides()[i];
    }
    require(same == view.isContiguous(), "isContiguous()");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Input input(data, size);
    const uint8_t shapeOf = input.take<uint8_t>();
    const bool versioned = shapeOf & 1;
    const bool hasDeleter = shapeOf & 2;
    const bool hasStrides = shapeOf & 4;
    const bool hasShape = shapeOf & 8;

    dlpack::Tensor tensor{};
    tensor.data =
            reinterpret_cast<void*>(static_cast<uintptr_t>(input.takeNumber()));
    tensor.device.type = static_cast<int32_t>(input.takeNumber());
    tensor.device.id = static_cast<int32_t>(input.takeNumber());
    tensor.rank = static_cast<int32_t>(input.takeNumber());
    tensor.dtype.code = input.take<uint8_t>();
    tensor.dtype.bits = input.take<uint8_t>();
    tensor.dtype.lanes = static_cast<uint16_t>(input.takeNumber());
    tensor.byteOffset = static_cast<uint64_t>(input.takeNumber());
    const size_t room = tensor.rank < 0 || tensor.rank > 64 ? 0 : tensor.rank;
    std::unique_ptr<int64_t[]> shape(new int64_t[room]);
    std::unique_ptr<int64_t[]> strides(new int64_t[room]);
    for (size_t i = 0; i < room; ++i) {
        shape[i] = input.takeNumber();
        strides[i] = input.takeNumber();
    }
    tensor.shape = hasShape ? shape.get() : nullptr;
    tensor.strides = hasStrides ? strides.get() : nullptr;

    deleted = 0;
    dlpack::PlainTensor plain{};
    dlpack::VersionedTensor withVersion{};
    fill(plain, tensor, hasDeleter);
    fill(withVersion, tensor, hasDeleter);
    withVersion.version.major = static_cast<uint32_t>(input.takeNumber());
    withVersion.version.minor = static_cast<uint32_t>(input.takeNumber());
    withVersion.flags = static_cast<uint64_t>(input.takeNumber());
    {
        DLPackArray array =
                versioned ? DLPackArray(&withVersion) : DLPackArray(&plain);
        try {
            const ArrayView view = array.view("x");
            require(!versioned || withVersion.version.major == 1, "version");
            require(view.readOnly() ==
                            (versioned && (withVersion.flags & 1) != 0),
                    "readOnly()");
            check(view);
        } catch (const InvalidArray& e) {
            // FaissException puts nothing in front of a plain message.
            require(std::strncmp(e.what(), "x: ", 3) == 0, "the name");
        }
        DLPackArray moved = std::move(array);
        array.isCopy();
        require(deleted == 0, "not given back early");
    }
    require(deleted == (hasDeleter ? 1 : 0), "given back once");
    return 0;
}
