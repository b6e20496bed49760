#include <faiss_ext/gpu/arrays/DLPackExport.h>

#include <utility>

#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

namespace {

uint8_t codeOf(DataType::Kind kind) {
    switch (kind) {
        case DataType::Kind::Int:
            return dlpack::kInt;
        case DataType::Kind::UInt:
            return dlpack::kUInt;
        case DataType::Kind::Float:
            return dlpack::kFloat;
        case DataType::Kind::BFloat:
            return dlpack::kBFloat;
        case DataType::Kind::Complex:
            return dlpack::kComplex;
        case DataType::Kind::Bool:
            return dlpack::kBool;
    }
    throw InvalidArray("an array of no type");
}

/// What the borrower gets, and what it stands on, in one piece.
template <class Managed>
struct Export {
    Managed managed{};
    ExportedArray array;
    /// In elements.
    std::vector<int64_t> strides;

    explicit Export(ExportedArray exported) : array(std::move(exported)) {
        strides = compactStrides("exported array", array.shape, array.dtype);
        for (int64_t& stride : strides) {
            stride /= static_cast<int64_t>(array.dtype.bytes());
        }
        managed.tensor = {
                array.data,
                array.device,
                static_cast<int32_t>(array.shape.size()),
                {codeOf(array.dtype.kind),
                 static_cast<uint8_t>(array.dtype.bits),
                 1},
                array.shape.data(),
                strides.data(),
                0};
        managed.context = this;
        managed.deleter = [](Managed* self) {
            delete static_cast<Export*>(self->context);
        };
    }
};

} // namespace

dlpack::PlainTensor* exportPlain(ExportedArray array) {
    return &(new Export<dlpack::PlainTensor>(std::move(array)))->managed;
}

dlpack::VersionedTensor* exportVersioned(ExportedArray array) {
    auto* exported = new Export<dlpack::VersionedTensor>(std::move(array));
    exported->managed.version = {dlpack::kMajor, dlpack::kMinor};
    exported->managed.flags = exported->array.copied ? dlpack::kCopied : 0;
    return &exported->managed;
}

} // namespace gpu
} // namespace faiss_ext
