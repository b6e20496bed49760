#include "ExchangeTable.h"

#include "PythonObjects.h"

namespace faiss_ext {

namespace {

namespace dlpack = gpu::dlpack;

constexpr const char* kCapsule = "dlpack_exchange_api";

// Made by ExchangeTable::prepare, and never given up.
PyObject* tableName;
PyObject* gradientName;

/// The value of a name in the class alone, without its bases; borrowed, nullptr
/// if there is none.
PyObject* ownAttribute(PyTypeObject* type, PyObject* name) {
#if PY_VERSION_HEX >= 0x030C0000
    const MaybeReference members(PyType_GetDict(type));
#else
    const MaybeReference members(Py_XNewRef(type->tp_dict));
#endif
    if (!members.get()) {
        return nullptr;
    }
    PyObject* found = PyDict_GetItemWithError(members.get(), name);
    if (!found && PyErr_Occurred()) {
        throw PythonError{};
    }
    return found;
}

/// Whether changes of the array are recorded, or nobody can tell. PyTorch
/// exports such a tensor here, and refuses to in `__dlpack__`.
bool recordsGradient(PyObject* array) {
    const MaybeReference found(PyObject_GetAttr(array, gradientName));
    return found.get() && found.get() != Py_False;
}

/// Whether a function of the table has succeeded: one that says so and raises
/// has not.
bool succeeded(int status) {
    const bool raised = PyErr_Occurred();
    refuseInterrupts();
    return status == 0 && !raised;
}

} // namespace

void ExchangeTable::prepare() {
    const auto interned = [](const char* text) {
        return Reference(PyUnicode_InternFromString(text)).release();
    };
    tableName = interned("__dlpack_c_exchange_api__");
    gradientName = interned("requires_grad");
}

std::optional<ExchangeTable> ExchangeTable::of(PyObject* array) {
    PyObject* capsule = ownAttribute(Py_TYPE(array), tableName);
    if (!capsule || !PyCapsule_IsValid(capsule, kCapsule)) {
        return std::nullopt;
    }
    const auto* header = static_cast<const dlpack::ExchangeHeader*>(
            PyCapsule_GetPointer(capsule, kCapsule));
    while (header && header->version.major > dlpack::kMajor) {
        header = header->previous;
    }
    if (!header || header->version.major != dlpack::kMajor) {
        return std::nullopt;
    }
    const auto* functions =
            reinterpret_cast<const dlpack::ExchangeTable*>(header);
    if (!functions->lend || !functions->currentStream) {
        return std::nullopt;
    }
    return ExchangeTable(functions);
}

std::optional<Borrowed> ExchangeTable::borrow(PyObject* array) const {
    if (recordsGradient(array)) {
        return std::nullopt;
    }
    dlpack::VersionedTensor* tensor = nullptr;
    const int status = functions_->lend(array, &tensor);
    std::optional<Borrowed> borrowed;
    if (status == 0 && tensor) {
        borrowed = takeBorrowed(tensor);
    }
    return succeeded(status) ? std::move(borrowed) : std::nullopt;
}

std::optional<cudaStream_t> ExchangeTable::currentStream(int device) const {
    void* stream = nullptr;
    if (!succeeded(functions_->currentStream(dlpack::kCuda, device, &stream))) {
        return std::nullopt;
    }
    return static_cast<cudaStream_t>(stream);
}

} // namespace faiss_ext
