#pragma once

#include <cstddef>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// Pinned host memory that a fork copies, as it does other memory: a private
/// mapping of this process, registered with CUDA. (Memory of cudaHostAlloc is
/// shared with children: what either writes, the GPU for the parent included,
/// the other one sees.) For memory that users get to see.
namespace pinned_pages {

/// Whether the running kernel gives the child its copy of pinned pages at the
/// fork itself. An older one shares the pages until the first write, and if the
/// parent is the first to write, it moves to a new page, while the GPU goes on
/// writing to the old one: then nothing may be pinned in this way.
FAISS_EXT_API bool areSafe();

/// The same of a kernel by its release, as uname gives it: Linux 5.9 or newer.
FAISS_EXT_API bool areSafeOn(const char* release);

/// `bytes`, a power of two and a page at least, aligned to that up to 2 MiB.
/// Throws CudaError.
char* pin(size_t bytes);

/// Does not throw.
void unpin(char* memory, size_t bytes) noexcept;

} // namespace pinned_pages

} // namespace gpu
} // namespace faiss_ext
