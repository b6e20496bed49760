#pragma once

#include <Python.h>

#include <memory>

#include <faiss_ext/gpu/host/PinnedBlock.h>

#include "PythonObjects.h"

namespace faiss_ext {

/// Called once, when the module is imported. Throws PythonError.
void preparePinnedMemory();

/// A Python object that exports pinned memory by the buffer protocol, for NumPy
/// arrays to have as their base. The memory returns to its pool when the object
/// dies. `bytes` is at most the size of the block.
Reference pinnedMemory(
        std::unique_ptr<gpu::PinnedBlock> block, Py_ssize_t bytes);

/// The same with memory of `pool`; None where its capacity does not allow it.
/// nullptr with an exception set if CUDA pins no more. Releases the
/// interpreter's lock.
PyObject* pinnedMemoryOf(
        const std::shared_ptr<gpu::PinnedBlockPool>& pool, size_t bytes);

} // namespace faiss_ext
