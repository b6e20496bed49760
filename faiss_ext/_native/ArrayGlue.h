#pragma once

#include <Python.h>

#include <memory>

#include <faiss_ext/gpu/arrays/DLPackView.h>
#include <faiss_ext/gpu/resources/DeviceBuffer.h>

#include "PythonObjects.h"

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

/// An array that was borrowed through DLPack, and what answers for its deleter,
/// which is called when `owner` dies.
struct Borrowed {
    Reference owner;
    /// Lives as long as the owner.
    const gpu::DLPackArray* array;
};

/// Answers for `tensor`, not null, from now on. Throws PythonError or
/// std::bad_alloc; then it has been given back.
Borrowed takeBorrowed(gpu::dlpack::VersionedTensor* tensor);

/// Takes the array of a DLPack capsule, as takeDLPack. Throws InvalidArray,
/// then nothing was taken; PythonError or std::bad_alloc.
Borrowed takeBorrowed(const char* name, PyObject* capsule);

/// Takes the array of a DLPack capsule: renames the capsule, so that no one
/// takes it twice, and answers for the deleter from then on, which is called
/// when the owner dies. Returns the owner.
PyObject* takeDLPack(const char* name, PyObject* capsule);

/// Describes what an owner holds. Returns (description as of describeArray,
/// whether it is a copy).
PyObject* describeBorrowed(const char* name, PyObject* owner);

/// A capsule of `buffer` as a row-major array, versioned or not.
PyObject* exportBuffer(
        std::shared_ptr<gpu::DeviceBuffer> buffer,
        int dtypeKind,
        int dtypeBits,
        PyObject* shape,
        bool versioned,
        bool copied);

/// A capsule of a copy of `buffer` in host memory; waits for the copy,
/// with the interpreter's lock released.
PyObject* exportHostCopy(
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
