#include "PythonObjects.h"

namespace faiss_ext {

namespace {

// Under the interpreter's lock: how many NoCollection there are, and whether
// the collector was on before the first of them.
int noCollections = 0;
int collecting = 0;

} // namespace

NoCollection::NoCollection() {
    if (noCollections++ == 0) {
        collecting = PyGC_Disable();
    }
}

NoCollection::~NoCollection() {
    if (--noCollections == 0 && collecting) {
        PyGC_Enable();
    }
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
