#pragma once

#include <Python.h>

#include <memory>

#include <faiss/gpu/GpuIndex.h>

#include <faiss_ext/gpu/host/PinnedBlock.h>

namespace faiss_ext {

/// Called once, when the module is imported: what is made at first use might be
/// made by two threads, since Python's own code may release the interpreter's
/// lock. False with an exception set.
bool preparePlainSearch();

/// `search` of one of our indexes where no array needs anything done to it: the
/// way of most calls, without any Python code. See PlainArray.
///
/// x: queries [n, d]. D, I: outputs [n, k], or both None. Then results for host
/// queries lie in pinned memory of the pool that `usePinnedResults` named;
/// for GPU queries `makeResults(x, n, k)` is called, which gives (D, I) or
/// None. `currentStream` is Borrower's.
/// Returns (D, I); where something is not plain, with nothing done, None or
/// what was borrowed before that showed (a dict, Borrower::borrowed); or
/// nullptr with an exception set, of the search itself. Streams are joined and
/// arrays kept as docs/architecture.md has it, and the host waits as
/// gpu::Staged has it. The interpreter's lock is held at both ends and released
/// once.
PyObject* plainSearch(
        faiss::gpu::GpuIndex* index,
        PyObject* x,
        PyObject* k,
        PyObject* D,
        PyObject* I,
        PyObject* makeResults,
        PyObject* currentStream);

/// Where results for host queries lie from now on; before, such a search is not
/// plain.
void usePinnedResults(std::shared_ptr<gpu::PinnedBlockPool> pool);

} // namespace faiss_ext
