#pragma once

#include <cstddef>

#include <faiss_ext/gpu/Rounding.h>

namespace faiss_ext {
namespace gpu {

/// Where arrays that share one memory begin: one behind the other, each
/// aligned.
class ArrayPlaces {
   public:
    static constexpr size_t kAlignment = 256;

    /// Of an array of `count`, in bytes from the begin of the memory.
    template <typename T>
    size_t take(size_t count) {
        const size_t place = bytes_;
        bytes_ += roundUp(count * sizeof(T), kAlignment);
        return place;
    }

    /// Of all of them.
    size_t bytes() const {
        return bytes_;
    }

   private:
    size_t bytes_ = 0;
};

} // namespace gpu
} // namespace faiss_ext
