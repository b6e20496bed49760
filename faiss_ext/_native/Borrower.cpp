#include "Borrower.h"

#include <mutex>

#include <faiss_ext/gpu/arrays/DLPackAbi.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

namespace faiss_ext {

namespace {

// Made by Borrower::prepare, and never given up.
PyObject* deviceMethod;
PyObject* exportMethod;
PyObject* streamKeyword;
PyObject* allKeywords;
PyObject* highestVersion;

/// An int of any class, or -1.
long asInt(PyObject* number) {
    const Py_ssize_t value = PyNumber_AsSsize_t(number, nullptr);
    if (value == -1) {
        refuseInterrupts();
    }
    return static_cast<long>(value);
}

bool isOnDevice(PyObject* array, int device) {
    const MaybeReference found(PyObject_CallMethodNoArgs(array, deviceMethod));
    return found.get() && PyTuple_Check(found.get()) &&
           PyTuple_GET_SIZE(found.get()) == 2 &&
           asInt(PyTuple_GET_ITEM(found.get(), 0)) == gpu::dlpack::kCuda &&
           asInt(PyTuple_GET_ITEM(found.get(), 1)) == device;
}

/// What was raised. Throws PythonError if that is no Exception.
PyObject* takeException() {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        throw PythonError{};
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/// The capsule, by the newest signature, then by the oldest; or the exception
/// that the exporter raised. Its GPU is current meanwhile: PyTorch refuses to
/// export a tensor of another one.
Reference exported(
        PyObject* array, cudaStream_t stream, int device, bool writable) {
    // CUDA's handle of the legacy default stream is 0, the protocol's 1.
    const auto handle = reinterpret_cast<uintptr_t>(stream);
    const Reference number(PyLong_FromUnsignedLongLong(handle ? handle : 1));
    const gpu::DeviceGuard current(device);
    const Reference target(
            Py_BuildValue("(ii)", int{gpu::dlpack::kCuda}, device));
    PyObject* arguments[] = {
            array,
            number.get(),
            highestVersion,
            target.get(),
            writable ? Py_False : Py_None};
    PyObject* capsule =
            PyObject_VectorcallMethod(exportMethod, arguments, 1, allKeywords);
    if (!capsule && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        capsule = PyObject_VectorcallMethod(
                exportMethod, arguments, 1, streamKeyword);
    }
    return Reference(capsule ? capsule : takeException());
}

} // namespace

void Borrower::prepare() {
    const auto made = [](PyObject* object) {
        return Reference(object).release();
    };
    deviceMethod = made(PyUnicode_InternFromString("__dlpack_device__"));
    exportMethod = made(PyUnicode_InternFromString("__dlpack__"));
    streamKeyword = made(Py_BuildValue("(s)", "stream"));
    allKeywords = made(Py_BuildValue(
            "(ssss)", "stream", "max_version", "dl_device", "copy"));
    highestVersion = made(
            Py_BuildValue("(II)", gpu::dlpack::kMajor, gpu::dlpack::kMinor));
}

std::optional<Borrowed> Borrower::borrow(
        const char* name, PyObject* array, bool writable) {
    if (!isOnDevice(array, device())) {
        return std::nullopt;
    }
    // An exporter orders our stream after its own, and so takes it into a
    // capture.
    usedNextOn_ = askStream(array);
    if (usedNextOn_) {
        const gpu::DeviceGuard current(device());
        gpu::refuseCapture(*usedNextOn_, name);
    }
    const Reference capsule = exported(array, stream(), device(), writable);
    if (PyExceptionInstance_Check(capsule.get())) {
        note(name, array, capsule.get());
        return std::nullopt;
    }
    try {
        Borrowed borrowed = takeBorrowed(name, capsule.get());
        note(name, array, borrowed.owner.get());
        return borrowed;
    } catch (const gpu::InvalidArray&) {
        return std::nullopt;
    }
}

void Borrower::note(const char* name, PyObject* array, PyObject* outcome) {
    if (!borrowed_) {
        borrowed_.emplace(PyDict_New());
    }
    const Reference pair(PyTuple_Pack(2, array, outcome));
    if (PyDict_SetItemString(borrowed_->get(), name, pair.get()) < 0) {
        throw PythonError{};
    }
}

std::optional<cudaStream_t> Borrower::askStream(PyObject* array) const {
    const Reference number(
            PyObject_CallFunction(currentStream_, "Oi", array, device()));
    void* handle = PyLong_AsVoidPtr(number.get());
    if (!handle) {
        refuseInterrupts();
        return std::nullopt;
    }
    return static_cast<cudaStream_t>(handle);
}

cudaStream_t Borrower::stream() {
    if (!stream_) {
        const auto resources = index_->getResources();
        const auto lock = gpu::lockOf(resources.get());
        const auto ask = [&] {
            stream_ = resources->getDefaultStream(device());
        };
        if (std::unique_lock<gpu::ResourcesLock> guard(*lock, std::try_to_lock);
            guard) {
            ask();
        } else {
            const Unlocked unlocked;
            const auto held = gpu::lockUnlessInterrupted(*lock);
            ask();
        }
    }
    return *stream_;
}

} // namespace faiss_ext
