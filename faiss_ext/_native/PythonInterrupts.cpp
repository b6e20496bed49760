#include "PythonInterrupts.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <faiss/impl/AuxIndexStructures.h>

#include <cstring>
#include <memory>
#include <typeinfo>

#include <faiss_ext/gpu/threads/Interrupts.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

#include "PythonObjects.h"

namespace faiss_ext {

namespace {

/// The thread that handles signals, as `threading` knows it.
unsigned long mainThread = 0;

/// Whether this thread may be the one that handles signals. In a forked child
/// that is the one that forked.
bool mayBeMainThread() {
    return PyThread_get_thread_ident() == mainThread ||
           syscall(SYS_gettid) == getpid();
}

class PythonInterrupts : public faiss::InterruptCallback {
   public:
    bool want_interrupt() override {
        if (!mayBeMainThread()) {
            return interpreterIsEnding();
        }
        const gpu::Question question;
        if (!question.outermost() || interpreterIsEnding()) {
            return false;
        }
        const gpu::MayNotReturn mayNotReturn;
        const LockedInCall locked;
        return gpu::sleepAtEnd(PyErr_CheckSignals) != 0;
    }
};

/// Leaks the callback before, which another thread may be asking.
void exchange() {
    std::unique_ptr<faiss::InterruptCallback> callback(new PythonInterrupts);
    faiss::InterruptCallback::instance.swap(callback);
    callback.release();
}

PyObject* reset(PyObject*, PyObject*) {
    exchange();
    Py_RETURN_NONE;
}

PyMethodDef resetMethod{
        "reset", reset, METH_NOARGS, "Lets signals end the calls of Faiss."};

} // namespace

void installInterrupts() {
    const Reference threading(PyImport_ImportModule("threading"));
    const Reference main(
            PyObject_CallMethod(threading.get(), "main_thread", nullptr));
    const Reference ident(PyObject_GetAttrString(main.get(), "ident"));
    mainThread = PyLong_AsUnsignedLong(ident.get());
    if (PyErr_Occurred()) {
        throw PythonError{};
    }
    const auto* now = faiss::InterruptCallback::instance.get();
    if (now && std::strstr(typeid(*now).name(), "PythonInterruptCallback")) {
        exchange();
    }
    const Reference faissModule(PyImport_ImportModule("faiss"));
    const MaybeReference theirs(PyObject_GetAttrString(
            faissModule.get(), "PythonInterruptCallback"));
    if (theirs.get()) {
        const Reference method(PyCFunction_New(&resetMethod, nullptr));
        if (PyObject_SetAttrString(theirs.get(), "reset", method.get()) < 0) {
            throw PythonError{};
        }
    }
}

} // namespace faiss_ext
