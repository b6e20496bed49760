#include "PinnedMemory.h"

namespace faiss_ext {

namespace {

struct PinnedMemory {
    PyObject_HEAD gpu::PinnedBlock* block;
    Py_ssize_t bytes;
};

int exportBuffer(PyObject* self, Py_buffer* view, int flags) {
    auto* memory = reinterpret_cast<PinnedMemory*>(self);
    constexpr int kWritable = 0;
    return PyBuffer_FillInfo(
            view, self, memory->block->data(), memory->bytes, kWritable, flags);
}

/// The interpreter's lock need not be released: the block goes back to its pool
/// without a call of CUDA's.
void destroy(PyObject* self) {
    delete reinterpret_cast<PinnedMemory*>(self)->block;
    Py_TYPE(self)->tp_free(self);
}

PyBufferProcs bufferProtocol{exportBuffer, nullptr};
PyTypeObject type{PyVarObject_HEAD_INIT(nullptr, 0)};

} // namespace

void preparePinnedMemory() {
    type.tp_name = "faiss_ext.PinnedMemory";
    type.tp_doc = "Memory of the pinned pool.";
    type.tp_basicsize = sizeof(PinnedMemory);
    type.tp_flags = Py_TPFLAGS_DEFAULT;
    type.tp_as_buffer = &bufferProtocol;
    type.tp_dealloc = destroy;
    if (PyType_Ready(&type) < 0) {
        throw PythonError{};
    }
}

Reference pinnedMemory(
        std::unique_ptr<gpu::PinnedBlock> block, Py_ssize_t bytes) {
    Reference made(type.tp_alloc(&type, 0));
    auto* memory = reinterpret_cast<PinnedMemory*>(made.get());
    memory->block = block.release();
    memory->bytes = bytes;
    return made;
}

PyObject* pinnedMemoryOf(
        const std::shared_ptr<gpu::PinnedBlockPool>& pool, size_t bytes) {
    return guarded([&] {
        std::unique_ptr<gpu::PinnedBlock> block;
        {
            const Unlocked unlocked;
            block = gpu::PinnedBlock::tryMake(pool, bytes);
        }
        return block ? pinnedMemory(
                               std::move(block), static_cast<Py_ssize_t>(bytes))
                               .release()
                     : Py_NewRef(Py_None);
    });
}

} // namespace faiss_ext
