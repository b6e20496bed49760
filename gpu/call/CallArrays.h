#pragma once

#include <cstddef>

namespace faiss_ext {
namespace gpu {

/// A row-major array that a call reads, [n, rowBytes]; host or device memory.
struct InputRows {
    const char* name;
    const void* data;
    size_t rowBytes;
};

/// A row-major array that a call writes and never reads, [n, rowBytes]; host or
/// device memory. data == nullptr: computed because the computation must put it
/// somewhere, then dropped.
struct OutputRows {
    const char* name;
    void* data;
    size_t rowBytes;
};

} // namespace gpu
} // namespace faiss_ext
