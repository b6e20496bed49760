#pragma once

#include <Python.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <optional>

#include "Borrower.h"

namespace faiss_ext {

/// What a matrix must be for C++ to use it as it is.
struct Wanted {
    /// Of the argument.
    const char* name;
    /// Of the elements, such as "float32"; in the words of array interfaces
    /// ("<f4") and of the buffer protocol (any of "f"); and their size.
    const char* dtype;
    const char* typestr;
    const char* formats;
    int64_t itemSize;
    /// -1: any number but zero.
    int64_t rows;
    int64_t columns;
    bool writable;
};

/// A row-major matrix that needs nothing done to it, as it says of itself: a
/// NumPy array, or memory of the index's GPU by the CUDA Array Interface,
/// version 3, or by DLPack; which of these counts, `take.py` tells. Before
/// all of these comes the table of DLPack's functions that its type may have
/// (ExchangeTable.h): the way of PyTorch's tensors, also of those in host
/// memory, without any Python code.
///
/// It is stricter than the array entry in Python (`take.py`), which takes
/// whatever is not plain, and tells what is wrong with it. So the two can only
/// differ in what they do with a plain array.
class PlainArray {
   public:
    /// Called once, when the module is imported. Throws PythonError.
    static void prepare();

    /// Nothing where `array` is not plain. With the interpreter's lock, here
    /// and at the end. Throws PythonError where an attribute raised what is no
    /// Exception.
    static std::optional<PlainArray> of(
            PyObject* array, const Wanted& wanted, Borrower& borrower);

    PlainArray(PlainArray&& other) noexcept;
    PlainArray& operator=(PlainArray&&) = delete;
    ~PlainArray();

    void* data() const {
        return data_;
    }
    int64_t rows() const {
        return rows_;
    }
    size_t bytes() const {
        return bytes_;
    }
    bool isNumpys() const {
        return buffer_.obj;
    }
    /// Whether it says it is memory of a GPU. Whether that is true, the
    /// CUDA runtime knows.
    bool onGpu() const {
        return onGpu_;
    }
    /// Whether it says it is pinned memory, of which the same holds.
    bool saysPinned() const {
        return saysPinned_;
    }
    /// The stream that our work comes after, if there is one.
    std::optional<cudaStream_t> readyAfter() const {
        return readyAfter_;
    }
    /// The stream on which the producer goes on after our work, if there is
    /// one.
    std::optional<cudaStream_t> usedNextOn() const {
        return usedNextOn_;
    }
    /// What holds the memory beside the array itself; borrowed, None if
    /// nothing.
    PyObject* owner() const {
        return borrowed_ ? borrowed_->owner.get() : Py_None;
    }
    bool overlaps(const PlainArray& other) const;

   private:
    PlainArray() = default;

    bool takeBuffer(PyObject* array, const Wanted& wanted);
    bool takeInterface(PyObject* interface, const Wanted& wanted);
    bool takeExchange(
            PyObject* array, const Wanted& wanted, const Borrower& borrower);
    bool takeBorrowed(
            PyObject* array,
            PyObject* interface,
            const Wanted& wanted,
            Borrower& borrower);
    bool useBorrowed(const Wanted& wanted, int device);
    bool measure(int64_t rows, int64_t columns, const Wanted& wanted);

    void* data_ = nullptr;
    int64_t rows_ = 0;
    size_t bytes_ = 0;
    bool onGpu_ = false;
    bool saysPinned_ = false;
    std::optional<cudaStream_t> readyAfter_;
    std::optional<cudaStream_t> usedNextOn_;
    /// From DLPack.
    std::optional<Borrowed> borrowed_;
    /// Of a NumPy array, which is not resized meanwhile.
    Py_buffer buffer_{};
};

/// NumPy's class of arrays, from `prepare` on.
extern PyTypeObject* numpyArray;

} // namespace faiss_ext
