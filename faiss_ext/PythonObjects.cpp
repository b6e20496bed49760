#include "PythonObjects.h"

namespace faiss_ext {

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
