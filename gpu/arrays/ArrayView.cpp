#include <faiss_ext/gpu/arrays/ArrayView.h>

#include <algorithm>
#include <limits>
#include <utility>

#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

namespace {

__extension__ typedef __int128 Wide;

constexpr Wide kMost = std::numeric_limits<int64_t>::max();

std::string text(const std::vector<int64_t>& values) {
    std::string out = "(";
    for (size_t i = 0; i < values.size(); ++i) {
        out += (i ? ", " : "") + std::to_string(values[i]);
    }
    return out + (values.size() == 1 ? ",)" : ")");
}

/// Elements of an array of this shape that takes at most kMost bytes.
int64_t countElements(
        const std::string& name,
        const std::vector<int64_t>& shape,
        const DataType& dtype) {
    if (shape.size() > ArrayView::kMaxRank) {
        throw InvalidArray(
                name + ": " + std::to_string(shape.size()) +
                " dimensions; at most " + std::to_string(ArrayView::kMaxRank) +
                " are taken");
    }
    bool empty = false;
    for (const int64_t extent : shape) {
        if (extent < 0) {
            throw InvalidArray(
                    name + ": shape " + text(shape) +
                    " is not one of an array");
        }
        empty |= extent == 0;
    }
    if (empty) {
        return 0;
    }
    Wide bytes = static_cast<Wide>(dtype.bytes());
    for (const int64_t extent : shape) {
        // Both factors are below 2^63, so the product fits.
        bytes *= extent;
        if (bytes > kMost) {
            throw InvalidArray(
                    name + ": shape " + text(shape) + " of " + dtype.name() +
                    " has more bytes than memory can hold");
        }
    }
    return static_cast<int64_t>(bytes / static_cast<Wide>(dtype.bytes()));
}

void checkType(const std::string& name, const DataType& dtype) {
    const int bits = dtype.bits;
    const bool whole = bits == 8 || bits == 16 || bits == 32 || bits == 64;
    if (!whole && !(bits == 128 && dtype.kind == DataType::Kind::Complex)) {
        throw InvalidArray(
                name + ": elements of " + std::to_string(bits) +
                " bits are not taken");
    }
}

} // namespace

std::string DataType::name() const {
    switch (kind) {
        case Kind::Int:
            return "int" + std::to_string(bits);
        case Kind::UInt:
            return "uint" + std::to_string(bits);
        case Kind::Float:
            return "float" + std::to_string(bits);
        case Kind::BFloat:
            return "bfloat" + std::to_string(bits);
        case Kind::Complex:
            return "complex" + std::to_string(bits);
        case Kind::Bool:
            return bits == 8 ? "bool" : "bool" + std::to_string(bits);
    }
    return "unknown";
}

ArrayView::ArrayView(const std::string& name, ArrayDescription description)
        : a_(std::move(description)) {
    checkType(name, a_.dtype);
    elements_ = countElements(name, a_.shape, a_.dtype);
    if (a_.strides.size() != a_.shape.size()) {
        throw InvalidArray(
                name + ": " + std::to_string(a_.strides.size()) +
                " strides for shape " + text(a_.shape));
    }
    if (elements_ == 0) {
        return;
    }
    if (!a_.data) {
        throw InvalidArray(
                name + ": " + std::to_string(elements_) +
                " elements at a null pointer");
    }
    const Wide item = static_cast<Wide>(a_.dtype.bytes());
    Wide low = 0;
    Wide high = item;
    for (size_t i = 0; i < a_.shape.size(); ++i) {
        if (a_.shape[i] == 1) {
            continue;
        }
        const int64_t stride = a_.strides[i];
        if (stride % static_cast<int64_t>(item) != 0) {
            throw InvalidArray(
                    name + ": strides " + text(a_.strides) +
                    " are not multiples of the item size " +
                    std::to_string(a_.dtype.bytes()));
        }
        // Both factors are within 2^63, so the product fits.
        const Wide reach = static_cast<Wide>(a_.shape[i] - 1) * stride;
        (reach < 0 ? low : high) += reach;
        if (low < -kMost || high > kMost) {
            throw InvalidArray(
                    name + ": strides " + text(a_.strides) + " of shape " +
                    text(a_.shape) + " reach further than memory does");
        }
    }
    const Wide address =
            static_cast<Wide>(reinterpret_cast<uintptr_t>(a_.data));
    if (address + low <= 0 ||
        address + high >
                static_cast<Wide>(std::numeric_limits<uintptr_t>::max()) ||
        high - low > kMost) {
        throw InvalidArray(
                name + ": strides " + text(a_.strides) + " of shape " +
                text(a_.shape) + " reach outside of the address space");
    }
    // Complex numbers are aligned like their parts.
    const Wide aligned = std::min<Wide>(item, 8);
    if (address % aligned != 0) {
        throw InvalidArray(
                name + ": elements of " + std::to_string(a_.dtype.bytes()) +
                " bytes at an address that is not a multiple of " +
                std::to_string(static_cast<int>(aligned)));
    }
    below_ = static_cast<size_t>(-low);
    span_ = static_cast<size_t>(high - low);
}

bool ArrayView::isContiguous() const noexcept {
    if (elements_ == 0) {
        return true;
    }
    int64_t expected = static_cast<int64_t>(a_.dtype.bytes());
    for (size_t i = a_.shape.size(); i-- > 0;) {
        if (a_.shape[i] != 1 && a_.strides[i] != expected) {
            return false;
        }
        // At most checkedBytes().
        expected *= a_.shape[i];
    }
    return true;
}

void* ArrayView::lowest() const noexcept {
    return reinterpret_cast<void*>(
            reinterpret_cast<uintptr_t>(a_.data) - below_);
}

std::vector<int64_t> compactStrides(
        const std::string& name,
        const std::vector<int64_t>& shape,
        const DataType& dtype) {
    checkType(name, dtype);
    const int64_t elements = countElements(name, shape, dtype);
    std::vector<int64_t> strides(shape.size(), 0);
    if (elements == 0) {
        return strides;
    }
    int64_t stride = static_cast<int64_t>(dtype.bytes());
    for (size_t i = shape.size(); i-- > 0;) {
        strides[i] = stride;
        stride *= shape[i];
    }
    return strides;
}

} // namespace gpu
} // namespace faiss_ext
