#pragma once

#include <string>

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/arrays/ArrayView.h>
#include <faiss_ext/gpu/arrays/DLPackAbi.h>

namespace faiss_ext {
namespace gpu {

/// An array that another library lends through DLPack. From construction on
/// this object answers for it: the lender's deleter is called once, at the end
/// of this object's life, whatever is found wrong with the array. Move-only.
///
/// The deleter is the lender's code; where that needs the interpreter's lock,
/// the thread that destroys this object must hold it.
class FAISS_EXT_API DLPackArray {
   public:
    /// Takes over `tensor`, not null. Reads nothing of it yet.
    explicit DLPackArray(dlpack::PlainTensor* tensor) noexcept;
    explicit DLPackArray(dlpack::VersionedTensor* tensor) noexcept;

    /// Calls the deleter, if there is one.
    ~DLPackArray();

    DLPackArray(DLPackArray&& other) noexcept;
    /// Gives back what this object had.
    DLPackArray& operator=(DLPackArray&& other) noexcept;

    /// Describes the array; valid as long as this object. Throws InvalidArray,
    /// whose text begins with `name`, for another major version (of which
    /// nothing but the version is read), for memory that is neither the host's
    /// nor CUDA's, for vector elements and unknown types, and for what
    /// ArrayView refuses. An array without a flag for it counts as writable.
    ArrayView view(const std::string& name) const;

    /// Whether the lender says that this is a copy made for the occasion.
    /// False if nothing is said.
    bool isCopy() const noexcept;

   private:
    void giveBack() noexcept;

    // One of the two, or none after a move.
    dlpack::PlainTensor* plain_ = nullptr;
    dlpack::VersionedTensor* versioned_ = nullptr;
};

} // namespace gpu
} // namespace faiss_ext
