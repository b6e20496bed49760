#pragma once

#include <Python.h>

#include <new>
#include <optional>
#include <utility>

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

/// What C++ that works on Python objects needs again and again. All of it is
/// for threads that hold the interpreter's lock.

namespace faiss_ext {

/// Thrown where a Python exception is set already.
struct PythonError {};

/// Once the interpreter ends: no thread gets its lock but the one that ends it.
inline bool interpreterIsEnding() {
#if PY_VERSION_HEX >= 0x030d0000
    return !Py_IsInitialized() || Py_IsFinalizing();
#else
    return !Py_IsInitialized() || _Py_IsFinalizing();
#endif
}

/// At the begin of a destructor that needs the interpreter's lock, which a
/// thread that is being unwound (gpu::sleepAtEnd) has not: then it sleeps.
inline void sleepIfUnwound() {
    if (interpreterIsEnding() && !PyGILState_Check()) {
        gpu::sleepForEver();
    }
}

/// Py_XDECREF, for destructors.
inline void giveUp(PyObject* object) noexcept {
    if (object) {
        sleepIfUnwound();
        gpu::sleepAtEnd([&] { Py_DECREF(object); });
    }
}

/// A reference that is given up at the end of its life.
class Reference {
   public:
    /// Takes over a new reference. Throws PythonError for nullptr.
    explicit Reference(PyObject* object) : object_(object) {
        if (!object) {
            throw PythonError{};
        }
    }
    ~Reference() {
        giveUp(object_);
    }
    Reference(Reference&& other) noexcept : object_(other.release()) {}
    Reference& operator=(Reference&& other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }

    PyObject* get() const {
        return object_;
    }
    PyObject* release() {
        return std::exchange(object_, nullptr);
    }

   private:
    PyObject* object_;
};

/// Clears an exception that is one of the program's errors; throws PythonError
/// for others, such as an interrupt. Nothing if there is none.
inline void refuseInterrupts() {
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            throw PythonError{};
        }
        PyErr_Clear();
    }
}

/// A reference to what may not be there: nullptr stands for an exception, which
/// refuseInterrupts sees to.
class MaybeReference {
   public:
    explicit MaybeReference(PyObject* object) : object_(object) {
        if (!object) {
            refuseInterrupts();
        }
    }
    ~MaybeReference() {
        giveUp(object_);
    }
    MaybeReference(const MaybeReference&) = delete;
    MaybeReference& operator=(const MaybeReference&) = delete;

    PyObject* get() const {
        return object_;
    }

   private:
    PyObject* object_;
};

/// The interpreter's lock released for one scope. No lock of others is held at
/// its end, where the thread may have to sleep for ever.
class Unlocked {
   public:
    Unlocked();
    ~Unlocked();
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

   private:
    std::optional<gpu::AtWork> atWork_;
    PyThreadState* const state_;
};

/// The interpreter's lock for one scope in the midst of a C++ call, which may
/// hold locks; within gpu::MayNotReturn, since the thread sleeps where the
/// interpreter ends meanwhile. The garbage collector does not run while any
/// thread is in such a scope: what it destroys may need the lock of other
/// resources, whose holder may be waiting for ours.
class LockedInCall {
   public:
    LockedInCall();
    ~LockedInCall();
    LockedInCall(const LockedInCall&) = delete;
    LockedInCall& operator=(const LockedInCall&) = delete;

   private:
    const gpu::Away away_;
    const PyGILState_STATE state_;
};

/// Sets faiss_ext.errors.InvalidArray.
void raiseInvalidArray(const char* message);

/// Sets the exception that a C++ one becomes, unless there is one already: what
/// Faiss' callback for interrupts has left (KeyboardInterrupt, or whatever a
/// signal's handler raised) says more than what C++ threw for it.
void raise(PyObject* type, const char* message);

/// Runs `body`, which returns a new reference; C++ exceptions become Python's,
/// and the result nullptr.
template <typename Body>
PyObject* guarded(const Body& body) {
    try {
        return gpu::sleepAtEnd(body);
    } catch (const PythonError&) {
    } catch (const gpu::InvalidArray& e) {
        raiseInvalidArray(e.what());
    } catch (const std::bad_alloc&) {
        raise(PyExc_MemoryError, "std::bad_alloc");
    } catch (const std::exception& e) {
        raise(PyExc_RuntimeError, e.what());
    }
    return nullptr;
}

} // namespace faiss_ext
