#include "ArrayGlue.h"

#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/arrays/ArrayView.h>
#include <faiss_ext/gpu/arrays/DLPackExport.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>

namespace faiss_ext {

namespace {

constexpr const char* kOwnerName = "faiss_ext.dlpack_array";

int64_t toInt64(const std::string& name, PyObject* number, const char* what) {
    const long long value = PyLong_AsLongLong(number);
    if (value == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            throw PythonError{};
        }
        PyErr_Clear();
        throw gpu::InvalidArray(
                name + ": " + what + " does not fit into 64 bits");
    }
    return value;
}

std::vector<int64_t> toInt64s(
        const std::string& name, PyObject* tuple, const char* what) {
    if (!PyTuple_Check(tuple)) {
        throw gpu::InvalidArray(name + ": " + what + " must be a tuple");
    }
    std::vector<int64_t> values;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
        values.push_back(toInt64(name, PyTuple_GET_ITEM(tuple, i), what));
    }
    return values;
}

void* toPointer(const std::string& name, PyObject* number) {
    const unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (value == static_cast<unsigned long long>(-1) && PyErr_Occurred()) {
        PyErr_Clear();
        throw gpu::InvalidArray(name + ": the data pointer must be an address");
    }
    return reinterpret_cast<void*>(static_cast<uintptr_t>(value));
}

PyObject* fromInt64s(const std::vector<int64_t>& values) {
    Reference tuple(PyTuple_New(static_cast<Py_ssize_t>(values.size())));
    for (size_t i = 0; i < values.size(); ++i) {
        Reference value(PyLong_FromLongLong(values[i]));
        PyTuple_SET_ITEM(
                tuple.get(), static_cast<Py_ssize_t>(i), value.release());
    }
    return tuple.release();
}

gpu::DataType typeOf(const std::string& name, int kind, int bits) {
    using Kind = gpu::DataType::Kind;
    switch (kind) {
        case 'f':
            return {Kind::Float, bits};
        case 'i':
            return {Kind::Int, bits};
        case 'u':
            return {Kind::UInt, bits};
        case 'b':
            return {Kind::Bool, bits};
        case 'c':
            return {Kind::Complex, bits};
        default:
            throw gpu::InvalidArray(
                    name + ": elements of NumPy's kind '" +
                    static_cast<char>(kind) + "'; numbers are needed");
    }
}

const char* kindName(gpu::DeviceKind kind) {
    switch (kind) {
        case gpu::DeviceKind::Host:
            return "host";
        case gpu::DeviceKind::Cuda:
            return "device";
        case gpu::DeviceKind::CudaPinned:
            return "pinned";
        case gpu::DeviceKind::CudaManaged:
            return "managed";
    }
    return "unknown";
}

PyObject* describe(const gpu::ArrayView& view) {
    Reference shape(fromInt64s(view.shape()));
    Reference strides(fromInt64s(view.strides()));
    const auto address = [](const void* pointer) {
        return static_cast<unsigned long long>(
                reinterpret_cast<uintptr_t>(pointer));
    };
    return Py_BuildValue(
            "(KOOssiNNNKK)",
            view.elements() ? address(view.data()) : 0ULL,
            shape.get(),
            strides.get(),
            view.dtype().name().c_str(),
            kindName(view.kind()),
            view.device(),
            PyBool_FromLong(view.readOnly()),
            PyLong_FromSize_t(view.checkedBytes()),
            PyBool_FromLong(view.isContiguous()),
            view.elements() ? address(view.lowest()) : 0ULL,
            static_cast<unsigned long long>(view.span()));
}

/// Gives an array back to its lender, whose deleter may be Python code: what
/// exception is on its way is kept out of its sight.
void giveBack(PyObject* owner) {
    auto* array = static_cast<gpu::DLPackArray*>(
            PyCapsule_GetPointer(owner, kOwnerName));
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    delete array;
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(owner);
    }
    PyErr_Restore(type, value, traceback);
}

/// Throws PythonError or std::bad_alloc; then the array has been given back.
Borrowed hold(gpu::DLPackArray lent) {
    auto array = std::make_unique<gpu::DLPackArray>(std::move(lent));
    Reference owner(PyCapsule_New(array.get(), kOwnerName, giveBack));
    return {std::move(owner), array.release()};
}

/// What keeps a lent buffer. Its end takes the resources' lock, and a thread
/// that holds this may be waiting for the interpreter's (PythonAllocator), so
/// that one is released first, if this thread has it.
std::shared_ptr<void> keep(std::shared_ptr<gpu::DeviceBuffer> buffer) {
    void* data = buffer->data();
    return std::shared_ptr<void>(
            data, [buffer = std::move(buffer)](void*) mutable {
                if (Py_IsInitialized() && PyGILState_Check()) {
                    Unlocked unlocked;
                    buffer.reset();
                }
            });
}

template <class Managed>
void dropUntaken(PyObject* capsule, const char* name) {
    // A taker renames the capsule, and calls the deleter itself.
    if (PyCapsule_IsValid(capsule, name)) {
        auto* managed =
                static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
        managed->deleter(managed);
    }
}

PyObject* exportArray(gpu::ExportedArray array, bool versioned) {
    namespace dlpack = gpu::dlpack;
    void* managed;
    void (*deleter)(void*);
    PyObject* capsule;
    if (versioned) {
        auto* tensor = gpu::exportVersioned(std::move(array));
        managed = tensor;
        deleter = [](void* p) {
            auto* lent = static_cast<dlpack::VersionedTensor*>(p);
            lent->deleter(lent);
        };
        capsule = PyCapsule_New(tensor, "dltensor_versioned", [](PyObject* c) {
            dropUntaken<dlpack::VersionedTensor>(c, "dltensor_versioned");
        });
    } else {
        auto* tensor = gpu::exportPlain(std::move(array));
        managed = tensor;
        deleter = [](void* p) {
            auto* lent = static_cast<dlpack::PlainTensor*>(p);
            lent->deleter(lent);
        };
        capsule = PyCapsule_New(tensor, "dltensor", [](PyObject* c) {
            dropUntaken<dlpack::PlainTensor>(c, "dltensor");
        });
    }
    if (!capsule) {
        deleter(managed);
    }
    return capsule;
}

} // namespace

PyObject* describeArray(
        const char* name,
        PyObject* pointer,
        int dtypeKind,
        int dtypeBits,
        PyObject* shape,
        PyObject* strides,
        bool readOnly) {
    return guarded([&] {
        const gpu::DataType dtype = typeOf(name, dtypeKind, dtypeBits);
        const auto extents = toInt64s(name, shape, "shape");
        const auto steps = strides == Py_None
                                   ? gpu::compactStrides(name, extents, dtype)
                                   : toInt64s(name, strides, "strides");
        return describe(gpu::ArrayView(
                name,
                {toPointer(name, pointer),
                 dtype,
                 extents,
                 steps,
                 gpu::DeviceKind::Cuda,
                 -1,
                 readOnly}));
    });
}

Borrowed takeBorrowed(gpu::dlpack::VersionedTensor* tensor) {
    return hold(gpu::DLPackArray(tensor));
}

Borrowed takeBorrowed(const char* name, PyObject* capsule) {
    namespace dlpack = gpu::dlpack;
    const bool versioned = PyCapsule_IsValid(capsule, "dltensor_versioned");
    if (!versioned && !PyCapsule_IsValid(capsule, "dltensor")) {
        const char* found = PyCapsule_CheckExact(capsule)
                                    ? PyCapsule_GetName(capsule)
                                    : Py_TYPE(capsule)->tp_name;
        throw gpu::InvalidArray(
                std::string(name) + ": __dlpack__ gave '" +
                (found ? found : "") +
                "'; a capsule 'dltensor' or 'dltensor_versioned' that no "
                "one has taken is needed");
    }
    void* managed = PyCapsule_GetPointer(
            capsule, versioned ? "dltensor_versioned" : "dltensor");
    if (PyCapsule_SetName(
                capsule,
                versioned ? "used_dltensor_versioned" : "used_dltensor")) {
        throw PythonError{};
    }
    return versioned ? hold(gpu::DLPackArray(
                               static_cast<dlpack::VersionedTensor*>(managed)))
                     : hold(gpu::DLPackArray(
                               static_cast<dlpack::PlainTensor*>(managed)));
}

PyObject* takeDLPack(const char* name, PyObject* capsule) {
    return guarded([&] { return takeBorrowed(name, capsule).owner.release(); });
}

PyObject* describeBorrowed(const char* name, PyObject* owner) {
    return guarded([&] {
        const auto* array = static_cast<const gpu::DLPackArray*>(
                PyCapsule_GetPointer(owner, kOwnerName));
        if (!array) {
            throw PythonError{};
        }
        Reference description(describe(array->view(name)));
        return Py_BuildValue(
                "(ON)", description.get(), PyBool_FromLong(array->isCopy()));
    });
}

PyObject* exportBuffer(
        std::shared_ptr<gpu::DeviceBuffer> buffer,
        int dtypeKind,
        int dtypeBits,
        PyObject* shape,
        bool versioned,
        bool copied) {
    return guarded([&] {
        void* data = buffer->data();
        const int device = buffer->device();
        buffer->share();
        return exportArray(
                {keep(std::move(buffer)),
                 data,
                 typeOf("array", dtypeKind, dtypeBits),
                 toInt64s("array", shape, "shape"),
                 {gpu::dlpack::kCuda, device},
                 copied},
                versioned);
    });
}

PyObject* exportHostCopy(
        const std::shared_ptr<gpu::DeviceBuffer>& buffer,
        int dtypeKind,
        int dtypeBits,
        PyObject* shape,
        bool versioned) {
    return guarded([&] {
        gpu::ExportedArray array{
                nullptr,
                nullptr,
                typeOf("array", dtypeKind, dtypeBits),
                toInt64s("array", shape, "shape"),
                {gpu::dlpack::kCpu, 0},
                true};
        {
            Unlocked unlocked;
            // Aligned for whatever borrows it.
            constexpr size_t kAlignment = 256;
            const size_t bytes =
                    buffer->bytes() / kAlignment * kAlignment + kAlignment;
            void* memory = std::aligned_alloc(kAlignment, bytes);
            if (!memory) {
                throw std::bad_alloc();
            }
            array.owner = std::shared_ptr<void>(memory, std::free);
            array.data = memory;
            buffer->copyToHost(memory);
        }
        return exportArray(std::move(array), versioned);
    });
}

PyObject* placementOfMemory(
        const char* name, PyObject* pointer, PyObject* bytes) {
    return guarded([&] {
        const gpu::MemoryPlacement place = gpu::placementOf(
                toPointer(name, pointer),
                static_cast<size_t>(toInt64(name, bytes, "size")),
                name);
        switch (place.kind) {
            case gpu::MemoryKind::Device:
                return Py_BuildValue("(si)", "device", place.device);
            case gpu::MemoryKind::Pinned:
                return Py_BuildValue("(si)", "pinned", -1);
            case gpu::MemoryKind::Managed:
                return Py_BuildValue("(si)", "managed", -1);
            default:
                return Py_BuildValue("(si)", "pageable", -1);
        }
    });
}

} // namespace faiss_ext
