#include <faiss_ext/gpu/arrays/DLPackView.h>

#include <limits>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

namespace {

DataType typeOf(const std::string& name, const dlpack::ElementType& type) {
    if (type.lanes != 1) {
        throw InvalidArray(
                name + ": elements of " + std::to_string(type.lanes) +
                " lanes; plain numbers are needed");
    }
    DataType::Kind kind;
    switch (type.code) {
        case dlpack::kInt:
            kind = DataType::Kind::Int;
            break;
        case dlpack::kUInt:
            kind = DataType::Kind::UInt;
            break;
        case dlpack::kFloat:
            kind = DataType::Kind::Float;
            break;
        case dlpack::kBFloat:
            kind = DataType::Kind::BFloat;
            break;
        case dlpack::kComplex:
            kind = DataType::Kind::Complex;
            break;
        case dlpack::kBool:
            kind = DataType::Kind::Bool;
            break;
        default:
            throw InvalidArray(
                    name + ": DLPack type code " + std::to_string(type.code) +
                    "; numbers are needed");
    }
    return {kind, type.bits};
}

DeviceKind kindOf(const std::string& name, const dlpack::Device& device) {
    switch (device.type) {
        case dlpack::kCpu:
            return DeviceKind::Host;
        case dlpack::kCuda:
            return DeviceKind::Cuda;
        case dlpack::kCudaHost:
            return DeviceKind::CudaPinned;
        case dlpack::kCudaManaged:
            return DeviceKind::CudaManaged;
        default:
            throw InvalidArray(
                    name + ": on DLPack device type " +
                    std::to_string(device.type) +
                    "; the host (1) and CUDA (2, 3, 13) are taken");
    }
}

/// DLPack's strides count elements.
std::vector<int64_t> stridesOf(
        const std::string& name,
        const dlpack::Tensor& tensor,
        const std::vector<int64_t>& shape,
        const DataType& dtype) {
    if (!tensor.strides) {
        return compactStrides(name, shape, dtype);
    }
    const int64_t item = static_cast<int64_t>(dtype.bytes());
    std::vector<int64_t> strides(shape.size());
    for (size_t i = 0; i < shape.size(); ++i) {
        if (__builtin_mul_overflow(tensor.strides[i], item, &strides[i])) {
            // That of an extent of 1 is never taken, and means nothing.
            if (shape[i] > 1) {
                throw InvalidArray(
                        name + ": a stride of " +
                        std::to_string(tensor.strides[i]) +
                        " elements reaches outside of the address space");
            }
            strides[i] = 0;
        }
    }
    return strides;
}

/// A null pointer stays null: an empty array may have one, whatever its offset.
void* firstElement(const std::string& name, const dlpack::Tensor& tensor) {
    if (!tensor.data) {
        return nullptr;
    }
    const auto base = reinterpret_cast<uintptr_t>(tensor.data);
    if (tensor.byteOffset > std::numeric_limits<uintptr_t>::max() - base) {
        throw InvalidArray(
                name + ": a byte offset of " +
                std::to_string(tensor.byteOffset) +
                " leads outside of the address space");
    }
    return reinterpret_cast<void*>(
            base + static_cast<uintptr_t>(tensor.byteOffset));
}

ArrayView viewOf(
        const std::string& name, const dlpack::Tensor& tensor, bool readOnly) {
    // Before anything that counts on it is read.
    if (tensor.rank < 0 || tensor.rank > ArrayView::kMaxRank) {
        throw InvalidArray(
                name + ": " + std::to_string(tensor.rank) +
                " dimensions; 0 to " + std::to_string(ArrayView::kMaxRank) +
                " are taken");
    }
    if (tensor.rank > 0 && !tensor.shape) {
        throw InvalidArray(name + ": an array without a shape");
    }
    const DataType dtype = typeOf(name, tensor.dtype);
    std::vector<int64_t> shape;
    if (tensor.rank > 0) {
        shape.assign(tensor.shape, tensor.shape + tensor.rank);
    }
    std::vector<int64_t> strides = stridesOf(name, tensor, shape, dtype);
    return ArrayView(
            name,
            {firstElement(name, tensor),
             dtype,
             std::move(shape),
             std::move(strides),
             kindOf(name, tensor.device),
             tensor.device.id,
             readOnly});
}

} // namespace

DLPackArray::DLPackArray(dlpack::PlainTensor* tensor) noexcept
        : plain_(tensor) {}

DLPackArray::DLPackArray(dlpack::VersionedTensor* tensor) noexcept
        : versioned_(tensor) {}

DLPackArray::~DLPackArray() {
    giveBack();
}

DLPackArray::DLPackArray(DLPackArray&& other) noexcept
        : plain_(std::exchange(other.plain_, nullptr)),
          versioned_(std::exchange(other.versioned_, nullptr)) {}

DLPackArray& DLPackArray::operator=(DLPackArray&& other) noexcept {
    if (this != &other) {
        giveBack();
        plain_ = std::exchange(other.plain_, nullptr);
        versioned_ = std::exchange(other.versioned_, nullptr);
    }
    return *this;
}

void DLPackArray::giveBack() noexcept {
    // Forgotten first: a deleter that comes back here finds nothing.
    auto* plain = std::exchange(plain_, nullptr);
    auto* versioned = std::exchange(versioned_, nullptr);
    sleepAtEnd([&] {
        if (plain && plain->deleter) {
            plain->deleter(plain);
        }
        if (versioned && versioned->deleter) {
            versioned->deleter(versioned);
        }
    });
}

ArrayView DLPackArray::view(const std::string& name) const {
    if (plain_) {
        return viewOf(name, plain_->tensor, false);
    }
    if (!versioned_) {
        throw InvalidArray(name + ": the array was given back");
    }
    if (versioned_->version.major != dlpack::kMajor) {
        throw InvalidArray(
                name + ": DLPack version " +
                std::to_string(versioned_->version.major) + "." +
                std::to_string(versioned_->version.minor) +
                "; version 1 is needed");
    }
    return viewOf(
            name,
            versioned_->tensor,
            (versioned_->flags & dlpack::kReadOnly) != 0);
}

bool DLPackArray::isCopy() const noexcept {
    return versioned_ && versioned_->version.major == dlpack::kMajor &&
           (versioned_->flags & dlpack::kCopied) != 0;
}

} // namespace gpu
} // namespace faiss_ext
