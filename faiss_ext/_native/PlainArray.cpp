#include "PlainArray.h"

#include <cstring>
#include <utility>

#include <faiss_ext/gpu/cuda/CudaCheck.h>

#include "ExchangeTable.h"
#include "PythonObjects.h"

namespace faiss_ext {

namespace {

/// Whether `number` is an int of at least `least`; of those no larger than the
/// largest int64_t, which is what extents, strides and addresses are.
bool isInt(PyObject* number, int64_t least, int64_t* value) {
    if (!number || !PyLong_CheckExact(number)) {
        return false;
    }
    int overflow = 0;
    *value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return !overflow && *value >= least;
}

/// Whether `pair` is a tuple of two such ints.
bool areInts(PyObject* pair, int64_t least, int64_t* first, int64_t* second) {
    return pair && PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2 &&
           isInt(PyTuple_GET_ITEM(pair, 0), least, first) &&
           isInt(PyTuple_GET_ITEM(pair, 1), least, second);
}

/// The names that this reads. Made once, and never given up.
struct Names {
    PyObject* interface;
    PyObject* hostInterface;
    PyObject* dlpack;
    PyObject* version;
    PyObject* mask;
    PyObject* typestr;
    PyObject* shape;
    PyObject* strides;
    PyObject* data;
    PyObject* stream;
    PyObject* isNegated;
} names;

PyObject* interned(const char* text) {
    return Reference(PyUnicode_InternFromString(text)).release();
}

/// The value of a key, borrowed; nullptr where it is missing or None.
PyObject* entry(PyObject* interface, PyObject* key) {
    PyObject* found = PyDict_GetItemWithError(interface, key);
    if (!found && PyErr_Occurred()) {
        throw PythonError{};
    }
    return found == Py_None ? nullptr : found;
}

/// The GPU that calls of this thread mean; -1 if CUDA does not tell.
int currentDevice() {
    int device = -1;
    FAISS_EXT_CUDA_NOTHROW(cudaGetDevice(&device));
    return device;
}

/// Whether an interface says so, or what nobody can tell.
bool isReadOnly(PyObject* interface) {
    PyObject* data = PyDict_CheckExact(interface) ? entry(interface, names.data)
                                                  : nullptr;
    return !data || !PyTuple_CheckExact(data) || PyTuple_GET_SIZE(data) != 2 ||
           PyTuple_GET_ITEM(data, 1) != Py_False;
}

/// Whether a protocol for the host might call it read-only: a capsule without a
/// version does not tell.
bool mayBeImmutable(PyObject* array) {
    return PyObject_CheckBuffer(array) ||
           PyObject_HasAttr(array, names.hostInterface);
}

/// Whether what DLPack exports may be the negatives of the numbers, as
/// `is_negated` in dlpack.py has it.
bool mayBeNegated(PyObject* array) {
    const MaybeReference method(PyObject_GetAttr(array, names.isNegated));
    if (!method.get()) {
        return false;
    }
    const MaybeReference answer(PyObject_CallNoArgs(method.get()));
    return answer.get() != Py_False;
}

} // namespace

PyTypeObject* numpyArray = nullptr;

void PlainArray::prepare() {
    const Reference numpy(PyImport_ImportModule("numpy"));
    Reference type(PyObject_GetAttrString(numpy.get(), "ndarray"));
    numpyArray = reinterpret_cast<PyTypeObject*>(type.release());
    names = {
            interned("__cuda_array_interface__"),
            interned("__array_interface__"),
            interned("__dlpack__"),
            interned("version"),
            interned("mask"),
            interned("typestr"),
            interned("shape"),
            interned("strides"),
            interned("data"),
            interned("stream"),
            interned("is_neg")};
    ExchangeTable::prepare();
}

std::optional<PlainArray> PlainArray::of(
        PyObject* array, const Wanted& wanted, Borrower& borrower) {
    PlainArray made;
    if (Py_TYPE(array) == numpyArray) {
        return made.takeBuffer(array, wanted) ? std::optional(std::move(made))
                                              : std::nullopt;
    }
    if (PyObject_TypeCheck(array, numpyArray)) {
        // A class derived from it may mean something else, such as a mask.
        return std::nullopt;
    }
    PlainArray exchanged;
    if (exchanged.takeExchange(array, wanted, borrower)) {
        return exchanged;
    }
    const MaybeReference interface(PyObject_GetAttr(array, names.interface));
    const bool hasStream = interface.get() &&
                           PyDict_CheckExact(interface.get()) &&
                           entry(interface.get(), names.stream);
    // Without a stream, DLPack is what makes the order right.
    if (hasStream && currentDevice() != borrower.device()) {
        // A library with a current stream for each GPU names another one.
        return std::nullopt;
    }
    const bool isPlain =
            !hasStream && PyObject_HasAttr(array, names.dlpack)
                    ? made.takeBorrowed(
                              array, interface.get(), wanted, borrower)
                    : made.takeInterface(interface.get(), wanted);
    return isPlain ? std::optional(std::move(made)) : std::nullopt;
}

PlainArray::PlainArray(PlainArray&& other) noexcept
        : data_(other.data_),
          rows_(other.rows_),
          bytes_(other.bytes_),
          onGpu_(other.onGpu_),
          saysPinned_(other.saysPinned_),
          readyAfter_(other.readyAfter_),
          usedNextOn_(other.usedNextOn_),
          borrowed_(std::move(other.borrowed_)),
          buffer_(std::exchange(other.buffer_, Py_buffer{})) {}

PlainArray::~PlainArray() {
    PyBuffer_Release(&buffer_);
}

bool PlainArray::overlaps(const PlainArray& other) const {
    const auto begin = reinterpret_cast<uintptr_t>(data_);
    const auto otherBegin = reinterpret_cast<uintptr_t>(other.data_);
    return begin < otherBegin + other.bytes_ && otherBegin < begin + bytes_;
}

bool PlainArray::takeBuffer(PyObject* array, const Wanted& wanted) {
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT |
                      (wanted.writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array, &buffer_, flags) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            throw PythonError{};
        }
        PyErr_Clear();
        return false;
    }
    data_ = buffer_.buf;
    // A native type has one letter.
    return buffer_.ndim == 2 && buffer_.format[0] &&
           std::strchr(wanted.formats, buffer_.format[0]) &&
           !buffer_.format[1] && buffer_.itemsize == wanted.itemSize &&
           measure(buffer_.shape[0], buffer_.shape[1], wanted);
}

bool PlainArray::takeInterface(PyObject* found, const Wanted& wanted) {
    int64_t version, rows, columns, address, number;
    if (!found || !PyDict_CheckExact(found) ||
        !isInt(entry(found, names.version), 3, &version) || version != 3 ||
        entry(found, names.mask)) {
        return false;
    }
    PyObject* typestr = entry(found, names.typestr);
    if (!typestr || !PyUnicode_CheckExact(typestr) ||
        PyUnicode_CompareWithASCIIString(typestr, wanted.typestr) != 0 ||
        !areInts(entry(found, names.shape), 1, &rows, &columns)) {
        return false;
    }
    PyObject* data = entry(found, names.data);
    if (!data || !PyTuple_CheckExact(data) || PyTuple_GET_SIZE(data) != 2 ||
        !isInt(PyTuple_GET_ITEM(data, 0), 1, &address) ||
        !PyBool_Check(PyTuple_GET_ITEM(data, 1)) ||
        (wanted.writable && PyTuple_GET_ITEM(data, 1) == Py_True)) {
        return false;
    }
    data_ = reinterpret_cast<void*>(address);
    if (!measure(rows, columns, wanted)) {
        return false;
    }
    if (PyObject* strides = entry(found, names.strides)) {
        int64_t row, column;
        if (!areInts(strides, 1, &row, &column) ||
            row != columns * wanted.itemSize || column != wanted.itemSize) {
            return false;
        }
    }
    if (PyObject* stream = entry(found, names.stream)) {
        if (!isInt(stream, 1, &number)) {
            return false;
        }
        readyAfter_ = usedNextOn_ = reinterpret_cast<cudaStream_t>(number);
    }
    onGpu_ = true;
    return true;
}

bool PlainArray::takeExchange(
        PyObject* array, const Wanted& wanted, const Borrower& borrower) {
    const auto table = ExchangeTable::of(array);
    if (!table || (wanted.writable && mayBeImmutable(array)) ||
        mayBeNegated(array)) {
        return false;
    }
    borrowed_ = table->borrow(array);
    if (!borrowed_ || !useBorrowed(wanted, borrower.device())) {
        return false;
    }
    if (!onGpu_) {
        return true;
    }
    readyAfter_ = usedNextOn_ = table->currentStream(borrower.device());
    return usedNextOn_.has_value();
}

bool PlainArray::takeBorrowed(
        PyObject* array,
        PyObject* interface,
        const Wanted& wanted,
        Borrower& borrower) {
    if ((wanted.writable &&
         ((interface && isReadOnly(interface)) || mayBeImmutable(array))) ||
        mayBeNegated(array)) {
        return false;
    }
    borrowed_ = borrower.borrow(wanted.name, array, wanted.writable);
    if (!borrowed_ || !useBorrowed(wanted, borrower.device()) || !onGpu_) {
        return false;
    }
    usedNextOn_ = borrower.usedNextOn();
    return usedNextOn_.has_value();
}

/// Whether what was borrowed is plain, on that GPU or on the host.
bool PlainArray::useBorrowed(const Wanted& wanted, int device) {
    try {
        const gpu::ArrayView view = borrowed_->array->view(wanted.name);
        onGpu_ = view.kind() == gpu::DeviceKind::Cuda;
        saysPinned_ = view.kind() == gpu::DeviceKind::CudaPinned;
        if (view.kind() == gpu::DeviceKind::CudaManaged ||
            (onGpu_ && view.device() != device) || view.shape().size() != 2 ||
            view.dtype().name() != wanted.dtype || !view.isContiguous() ||
            (wanted.writable &&
             (view.readOnly() || borrowed_->array->isCopy()))) {
            return false;
        }
        data_ = view.data();
        return measure(view.shape()[0], view.shape()[1], wanted);
    } catch (const gpu::InvalidArray&) {
        return false;
    }
}

/// Whether it has the wanted shape and lies at addresses that exist.
bool PlainArray::measure(int64_t rows, int64_t columns, const Wanted& wanted) {
    const auto address = reinterpret_cast<intptr_t>(data_);
    int64_t bytes;
    intptr_t end;
    if (rows < 1 || columns != wanted.columns ||
        (wanted.rows >= 0 && rows != wanted.rows) ||
        __builtin_mul_overflow(rows, columns * wanted.itemSize, &bytes) ||
        __builtin_add_overflow(address, bytes, &end) ||
        address % wanted.itemSize != 0) {
        return false;
    }
    rows_ = rows;
    bytes_ = static_cast<size_t>(bytes);
    return true;
}

} // namespace faiss_ext
