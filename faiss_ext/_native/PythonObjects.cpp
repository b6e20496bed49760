#include "PythonObjects.h"

namespace faiss_ext {

namespace {

// Under the interpreter's lock: how many LockedInCall there are, and whether
// the collector was on before the first of them.
int lockedInCalls = 0;
int collecting = 0;

} // namespace

Unlocked::Unlocked() : state_(PyEval_SaveThread()) {
    atWork_.emplace();
}

Unlocked::~Unlocked() {
    atWork_.reset();
    gpu::sleepAtEnd([&] { PyEval_RestoreThread(state_); });
}

LockedInCall::LockedInCall() : state_(gpu::sleepAtEnd(PyGILState_Ensure)) {
    if (lockedInCalls++ == 0) {
        collecting = PyGC_Disable();
    }
}

LockedInCall::~LockedInCall() {
    sleepIfUnwound();
    if (--lockedInCalls == 0 && collecting) {
        PyGC_Enable();
    }
    gpu::sleepAtEnd([this] { PyGILState_Release(state_); });
}

void raise(PyObject* type, const char* message) {
    if (!PyErr_Occurred()) {
        PyErr_SetString(type, message);
    }
}

void raiseInvalidArray(const char* message) {
    if (PyErr_Occurred()) {
        return;
    }
    PyObject* errors = PyImport_ImportModule("faiss_ext.errors");
    PyObject* type =
            errors ? PyObject_GetAttrString(errors, "InvalidArray") : nullptr;
    if (type) {
        PyErr_SetString(type, message);
    }
    Py_XDECREF(type);
    Py_XDECREF(errors);
}

} // namespace faiss_ext
