#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/arrays/ArrayView.h>
#include <faiss_ext/gpu/arrays/DLPackAbi.h>

namespace faiss_ext {
namespace gpu {

/// A row-major array of ours to be exported through DLPack.
struct ExportedArray {
    /// What keeps the memory; held until the borrower calls the deleter.
    std::shared_ptr<void> owner;
    void* data;
    DataType dtype;
    std::vector<int64_t> shape;
    /// dlpack::kCuda or dlpack::kCpu.
    dlpack::Device device;
    /// Whether it is a copy made for the borrower.
    bool copied;
};

/// Describes `array` to a borrower, who calls the deleter once. The deleter
/// needs no interpreter, takes any thread and may come after its end. Throws
/// InvalidArray if the shape does not fit into memory.
FAISS_EXT_API dlpack::PlainTensor* exportPlain(ExportedArray array);

/// The same as version 1.0 of DLPack has it.
FAISS_EXT_API dlpack::VersionedTensor* exportVersioned(ExportedArray array);

} // namespace gpu
} // namespace faiss_ext
