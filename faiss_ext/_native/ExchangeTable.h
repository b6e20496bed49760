#pragma once

#include <Python.h>
#include <cuda_runtime_api.h>

#include <optional>

#include <faiss_ext/gpu/arrays/DLPackAbi.h>

#include "ArrayGlue.h"

namespace faiss_ext {

/// The C functions that the type of an array may have, by DLPack 1.3: what
/// `__dlpack__` does, without Python code. With the interpreter's lock.
///
/// They order nothing: our work must be put behind what `currentStream` holds,
/// and that stream behind our work.
class ExchangeTable {
   public:
    /// Called once, when the module is imported. Throws PythonError.
    static void prepare();

    /// The table in the class of `array`, of a version that is known here;
    /// nothing where there is none. One that the class has from a base does not
    /// count: the class may have a `__dlpack__` of its own. Nothing is kept, as
    /// this is one look into a dict, which costs as much as one into a cache of
    /// ours would.
    static std::optional<ExchangeTable> of(PyObject* array);

    /// The array; nothing where the library fails, or may export what
    /// `__dlpack__` refuses: a tensor that records gradients. Throws
    /// PythonError where what it raised is no Exception.
    std::optional<Borrowed> borrow(PyObject* array) const;

    /// The stream of GPU `device` on which the library works now, in this
    /// thread, 0 for the legacy default stream; nothing where it fails. Throws
    /// as `borrow`.
    std::optional<cudaStream_t> currentStream(int device) const;

   private:
    explicit ExchangeTable(const gpu::dlpack::ExchangeTable* functions)
            : functions_(functions) {}

    const gpu::dlpack::ExchangeTable* functions_;
};

} // namespace faiss_ext
