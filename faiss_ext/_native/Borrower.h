#pragma once

#include <Python.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <optional>

#include <faiss/gpu/GpuIndex.h>

#include "ArrayGlue.h"
#include "PythonObjects.h"

namespace faiss_ext {

/// Takes arrays for one call on an index through DLPack's methods, as
/// `dlpack.py` does. With the interpreter's lock.
class Borrower {
   public:
    /// Called once, when the module is imported. Throws PythonError.
    static void prepare();

    /// `currentStream(array, device)` tells the handle of the stream on which
    /// an array's library goes on (dlpack.py).
    Borrower(faiss::gpu::GpuIndex* index, PyObject* currentStream)
            : index_(index), currentStream_(currentStream) {}

    int device() const {
        return index_->getDevice();
    }

    /// Asks an array for its memory on the GPU of the index; nothing where it
    /// has none there, or something is not as it should be. Throws PythonError
    /// where the array raised what is no Exception, and Unsupported where its
    /// library's stream is being captured.
    std::optional<Borrowed> borrow(
            const char* name, PyObject* array, bool writable);

    /// The stream on which the library of the array borrowed last goes on;
    /// nothing if it is none.
    std::optional<cudaStream_t> usedNextOn() const {
        return usedNextOn_;
    }

    /// All that was borrowed, so that nobody asks for it twice: a dict of
    /// owners by name, or None. Borrowed.
    PyObject* borrowed() const {
        return borrowed_ ? borrowed_->get() : Py_None;
    }

   private:
    /// The default stream of the index, which an exporter puts its work before.
    /// Waits for the resources' lock if it must, with the interpreter's
    /// released: whoever has the former may be waiting for the latter.
    cudaStream_t stream();
    std::optional<cudaStream_t> askStream(PyObject* array) const;
    void note(const char* name, PyObject* array, PyObject* outcome);

    faiss::gpu::GpuIndex* const index_;
    PyObject* const currentStream_;
    std::optional<cudaStream_t> stream_;
    std::optional<cudaStream_t> usedNextOn_;
    std::optional<Reference> borrowed_;
};

} // namespace faiss_ext
