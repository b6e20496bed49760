#pragma once

#include <cstdint>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// A named range on the calling thread for one scope, in the domain
/// "faiss_ext" of NVIDIA's tools (Nsight Systems): so that a user who profiles
/// a whole program sees which copies and kernels are those of a search, and of
/// which tile.
///
/// NVTX is a library of headers alone, and without a tool attached a range is
/// the test of two pointers; so ranges are always there, in every build (where
/// the CUDA toolkit has its headers: else this does nothing). They are used in
/// one source file only, so that programs that include ours need no NVTX, and
/// link nothing for it.
class FAISS_EXT_API NvtxRange {
   public:
    /// `number` is shown with the name, such as that of a tile; -1: none. The
    /// name must be there until this returns.
    NvtxRange(const char* name, int64_t number) noexcept;
    ~NvtxRange();

    NvtxRange(const NvtxRange&) = delete;
    NvtxRange& operator=(const NvtxRange&) = delete;
};

} // namespace gpu
} // namespace faiss_ext
