#include "PythonObjects.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace faiss_ext {

namespace {

/// Threads in a scope of Unlocked, without those that sleep there. (In a forked
/// process they were its parent's.)
std::atomic<int> unlocked{0};
const uint32_t forksAtImport = gpu::forksBefore();
thread_local int unlockedHere = 0;

// Under the interpreter's lock: how many NoCollection there are, and whether
// the collector was on before the first of them.
int noCollections = 0;
int collecting = 0;

} // namespace

void sleepForEver() noexcept {
    if (unlockedHere > 0) {
        --unlocked;
    }
    gpu::sleepForEver();
}

Unlocked::Unlocked() : state_(PyEval_SaveThread()) {
    if (unlockedHere++ == 0) {
        ++unlocked;
    }
}

Unlocked::~Unlocked() {
    if (--unlockedHere == 0) {
        --unlocked;
    }
    sleepAtEnd([&] { PyEval_RestoreThread(state_); });
}

void waitForUnlocked() noexcept {
    using Clock = std::chrono::steady_clock;
    const auto latest = Clock::now() + std::chrono::seconds(10);
    while (unlocked > 0 && gpu::forksBefore() == forksAtImport &&
           Clock::now() < latest) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

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
