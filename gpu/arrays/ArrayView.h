#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Type of the elements of an array.
struct DataType {
    enum class Kind { Int, UInt, Float, BFloat, Complex, Bool };

    Kind kind;
    /// Of one element: 8, 16, 32, 64, or 128 for complex numbers.
    int bits;

    size_t bytes() const {
        return static_cast<size_t>(bits) / 8;
    }

    /// Such as "float32", "bfloat16" or "bool".
    FAISS_EXT_API std::string name() const;
};

/// Where an array says that its elements lie.
enum class DeviceKind {
    /// Host memory that CUDA need not know.
    Host,
    /// Memory of one GPU.
    Cuda,
    /// Page-locked host memory.
    CudaPinned,
    /// cudaMallocManaged.
    CudaManaged,
};

/// What an array says of itself, before anyone believes it.
struct ArrayDescription {
    /// First element: index 0 in every dimension.
    void* data;
    DataType dtype;
    std::vector<int64_t> shape;
    /// In bytes, one for each dimension; may be negative or zero.
    std::vector<int64_t> strides;
    DeviceKind kind;
    /// The GPU's number; means nothing for DeviceKind::Host.
    int device;
    bool readOnly;
};

/// An array that someone else owns: a description whose numbers fit together.
/// Every size here is computed in 128 bits, so that none is a wrapped one. The
/// memory is not touched, and whether it is there is not known: placementOf
/// asks the CUDA runtime.
///
/// Invariant: all elements lie at addresses that exist, none at null, each
/// aligned to its size.
class FAISS_EXT_API ArrayView {
   public:
    /// Most dimensions an array may have.
    static constexpr int kMaxRank = 64;

    /// Throws InvalidArray, whose text begins with `name`, unless the shape has
    /// at most kMaxRank extents, none negative; strides are as many, and
    /// multiples of the item size; the item size is one that exists; and the
    /// elements fit into the address space.
    ArrayView(const std::string& name, ArrayDescription description);

    /// Address of the first element.
    void* data() const noexcept {
        return a_.data;
    }
    const DataType& dtype() const noexcept {
        return a_.dtype;
    }
    const std::vector<int64_t>& shape() const noexcept {
        return a_.shape;
    }
    /// In bytes.
    const std::vector<int64_t>& strides() const noexcept {
        return a_.strides;
    }
    DeviceKind kind() const noexcept {
        return a_.kind;
    }
    int device() const noexcept {
        return a_.device;
    }
    bool readOnly() const noexcept {
        return a_.readOnly;
    }

    /// Number of elements.
    int64_t elements() const noexcept {
        return elements_;
    }

    /// elements() times the item size; fits a ptrdiff_t.
    size_t checkedBytes() const noexcept {
        return static_cast<size_t>(elements_) * a_.dtype.bytes();
    }

    /// Whether the elements lie in row-major order without gaps. The stride of
    /// an extent of 1, and of an empty array, says nothing.
    bool isContiguous() const noexcept;

    /// The lowest address that an element has; data() unless strides are
    /// negative.
    void* lowest() const noexcept;

    /// Bytes from lowest() to the end of the highest element; 0 if empty.
    size_t span() const noexcept {
        return span_;
    }

   private:
    ArrayDescription a_;
    int64_t elements_ = 0;
    /// Bytes from the lowest element to data().
    size_t below_ = 0;
    size_t span_ = 0;
};

/// The strides, in bytes, of a row-major array without gaps. Throws
/// InvalidArray, whose text begins with `name`, if an extent is negative or
/// the array does not fit into the address space.
FAISS_EXT_API std::vector<int64_t> compactStrides(
        const std::string& name,
        const std::vector<int64_t>& shape,
        const DataType& dtype);

} // namespace gpu
} // namespace faiss_ext
