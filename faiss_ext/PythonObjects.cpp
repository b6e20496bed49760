#include "PythonObjects.h"

namespace faiss_ext {

void raiseInvalidArray(const char* message) {
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
