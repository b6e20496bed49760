#include "PythonAllocator.h"

#include <stdexcept>
#include <string>
#include <utility>

#include <faiss_ext/gpu/cuda/Exceptions.h>

#include "PythonObjects.h"

namespace faiss_ext {

namespace {

unsigned long long asInteger(const void* pointer) {
    return static_cast<unsigned long long>(
            reinterpret_cast<uintptr_t>(pointer));
}

/// For Py_AddPendingCall: raises an exception in the main thread.
int raiseNow(void* exception) {
    auto* object = static_cast<PyObject*>(exception);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(object)), object);
    Py_DECREF(object);
    return -1;
}

/// LockedInCall, in which Python code can be called; such code runs in
/// `sleepAtEnd`. An exception on its way waits. What a signal raises ends the
/// C++ call (`interrupt`), or is raised later.
class PythonCall {
   public:
    PythonCall() : ofPython_(PyGILState_GetThisThreadState() != nullptr) {
        PyErr_Fetch(&type_, &value_, &traceback_);
        // A signal that is there already must not keep the call from being
        // made.
        if (gpu::sleepAtEnd(Py_MakePendingCalls) < 0) {
            raiseLater();
        }
    }
    ~PythonCall() {
        gpu::sleepAtEnd([this] { end(); });
    }
    PythonCall(const PythonCall&) = delete;
    PythonCall& operator=(const PythonCall&) = delete;

    /// Whether what was raised is none of the call's own errors.
    static bool wasInterrupted() {
        return !PyErr_ExceptionMatches(PyExc_Exception);
    }

    /// Takes what was raised, to raise it in the main thread once that runs
    /// Python code again.
    void raiseLater() {
        keepForLater(takeException());
    }

    /// Whether there is something to raise later.
    bool hasLater() const {
        return later_ != nullptr;
    }

    /// Throws Interrupted, and leaves what is to be raised later to the thread:
    /// it comes with the end of the C++ call that this is in the midst of. But
    /// in a thread that will run no Python code it is raised later.
    [[noreturn]] void interrupt() {
        if (ofPython_ && !type_) {
            value_ = std::exchange(later_, nullptr);
            type_ = Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value_)));
            traceback_ = PyException_GetTraceback(value_);
        }
        throw gpu::Interrupted("computation interrupted");
    }

    /// Takes what the call raised, an error of its own: "Type: text".
    std::string takeProblem() {
        PyObject* exception = takeException();
        std::string problem = Py_TYPE(exception)->tp_name;
        PyObject* text = PyObject_Str(exception);
        const char* characters = text ? PyUnicode_AsUTF8(text) : nullptr;
        if (characters && *characters) {
            problem += std::string(": ") + characters;
        }
        PyErr_Clear();
        Py_XDECREF(text);
        Py_DECREF(exception);
        return problem;
    }

   private:
    void end() {
        if (later_ && Py_AddPendingCall(raiseNow, later_) < 0) {
            PyErr_SetObject(
                    reinterpret_cast<PyObject*>(Py_TYPE(later_)), later_);
            PyErr_WriteUnraisable(nullptr);
            Py_DECREF(later_);
        }
        PyErr_Restore(type_, value_, traceback_);
    }

    static PyObject* takeException() {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (traceback) {
            PyException_SetTraceback(value, traceback);
        }
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        return value;
    }

    void keepForLater(PyObject* exception) {
        Py_XDECREF(later_);
        later_ = exception;
    }

    /// Whether Python code runs in this thread besides.
    const bool ofPython_;
    const LockedInCall locked_;
    PyObject *type_, *value_, *traceback_;
    PyObject* later_ = nullptr;
};

} // namespace

PythonAllocator::PythonAllocator(PyObject* allocate, PyObject* deallocate)
        : allocate_(Py_NewRef(allocate)), deallocate_(Py_NewRef(deallocate)) {}

PythonAllocator::~PythonAllocator() {
    const gpu::MayNotReturn mayNotReturn;
    if (interpreterIsEnding()) {
        return;
    }
    PythonCall call;
    gpu::sleepAtEnd([this] {
        Py_DECREF(allocate_);
        Py_DECREF(deallocate_);
    });
}

void* PythonAllocator::allocate(size_t bytes, int device, cudaStream_t stream) {
    // Before the question: who finds that the interpreter ends then knows of
    // this thread.
    const gpu::MayNotReturn mayNotReturn;
    if (interpreterIsEnding()) {
        throw std::runtime_error("the Python interpreter is ending");
    }
    PythonCall call;
    if (call.hasLater()) {
        call.interrupt();
    }
    return gpu::sleepAtEnd([&] {
        PyObject* given = PyObject_CallFunction(
                allocate_,
                "KiK",
                static_cast<unsigned long long>(bytes),
                device,
                asInteger(stream));
        PyObject* number = given ? PyNumber_Index(given) : nullptr;
        Py_XDECREF(given);
        void* memory = number ? PyLong_AsVoidPtr(number) : nullptr;
        Py_XDECREF(number);
        if (PyErr_Occurred()) {
            if (PythonCall::wasInterrupted()) {
                call.raiseLater();
                call.interrupt();
            }
            throw std::runtime_error(call.takeProblem());
        }
        return memory;
    });
}

void PythonAllocator::deallocate(
        void* memory, size_t bytes, int device, cudaStream_t stream) noexcept {
    const gpu::MayNotReturn mayNotReturn;
    if (interpreterIsEnding()) {
        return;
    }
    PythonCall call;
    gpu::sleepAtEnd([&] {
        PyObject* done = PyObject_CallFunction(
                deallocate_,
                "KKiK",
                asInteger(memory),
                static_cast<unsigned long long>(bytes),
                device,
                asInteger(stream));
        if (done) {
            Py_DECREF(done);
        } else if (PythonCall::wasInterrupted()) {
            call.raiseLater();
        } else {
            PyErr_WriteUnraisable(deallocate_);
        }
    });
}

} // namespace faiss_ext
