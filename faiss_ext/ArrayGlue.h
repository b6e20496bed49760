#pragma once

#include <Python.h>

#include <memory>

#include <faiss_ext/gpu/DeviceBuffer.h>

/// What gpu/ knows of arrays, for Python objects. Every function is called with
/// the interpreter's lock held, and returns a new reference, or nullptr with an
/// exception set: faiss_ext.errors.InvalidArray where an array is refused.

namespace faiss_ext {

/// Checks a description by ArrayView.
///
/// dtypeKind: a character of NumPy's ("f", "i", "u", "b", "c"). shape, strides:
/// tuples of int; strides in bytes, or None for row-major.
/// Returns (pointer, shape, strides, dtype name, device kind, device number,
/// read-only, bytes, contiguous, lowest address, span).
PyObject* describeArray(
        const char* name,
        PyObject* pointer,
        int dtypeKind,
        int dtypeBits,
        PyObject* shape,
        PyObject* strides,
        bool readOnly);

/// Takes what a DLPack capsule lends: renames the capsule, so that no one takes
/// it twice, and answers for the deleter from then on.
///
/// Returns (owner, description as of describeArray, whether it is a copy). The
/// deleter is called when `owner` dies.
PyObject* takeDLPack(const char* name, PyObject* capsule);

/// A capsule that lends `buffer` as a row-major array, versioned or not.
PyObject* lendBuffer(
        std::shared_ptr<gpu::DeviceBuffer> buffer,
        int dtypeKind,
        int dtypeBits,
        PyObject* shape,
        bool versioned,
        bool copied);

/// A capsule that lends a copy of `buffer` in host memory; waits for the copy,
/// with the interpreter's lock released.
PyObject* lendHostCopy(
        const std::shared_ptr<gpu::DeviceBuffer>& buffer,
        int dtypeKind,
        int dtypeBits,
        PyObject* shape,
        bool versioned);

/// Where [pointer, pointer + bytes) lies, as the CUDA runtime tells:
/// ("device", number), or ("pinned" | "managed" | "pageable", -1).
PyObject* placementOfMemory(
        const char* name, PyObject* pointer, PyObject* bytes);

} // namespace faiss_ext
