#pragma once

#include <Python.h>

#include <cstddef>

#include <faiss_ext/gpu/resources/DeviceAllocator.h>

namespace faiss_ext {

/// A pool that is two Python callables:
///   allocate(nbytes, device, stream) -> address
///   deallocate(address, nbytes, device, stream)
/// all int, with the meaning that gpu::DeviceAllocator gives them. They are
/// called with the interpreter's lock, on whatever thread needs memory, while
/// the resources' lock is held: no thread may wait for that one while it holds
/// the interpreter's.
///
/// What `allocate` raises becomes an exception with its text; what `deallocate`
/// raises is reported as an unraisable exception. A signal that has arrived
/// when memory is asked for ends the call that asks (gpu::Interrupted); one
/// that comes while it is given back is raised later, in the main thread. Once
/// the interpreter is ending, memory is not given back: it ends with the
/// process.
class PythonAllocator : public gpu::DeviceAllocator {
   public:
    /// With the interpreter's lock held; both are callable.
    PythonAllocator(PyObject* allocate, PyObject* deallocate);
    ~PythonAllocator() override;

    void* allocate(size_t bytes, int device, cudaStream_t stream) override;
    void deallocate(
            void* memory,
            size_t bytes,
            int device,
            cudaStream_t stream) noexcept override;

   private:
    PyObject* allocate_;
    PyObject* deallocate_;
};

} // namespace faiss_ext
