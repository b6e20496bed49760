#include "PlainSearch.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/index/StagedIndex.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

#include "InFlight.h"
#include "PinnedMemory.h"
#include "PlainArray.h"
#include "PythonInterrupts.h"
#include "PythonObjects.h"

namespace faiss_ext {

namespace {

using gpu::idx_t;

/// As in _index/search.py: more than any selection gives.
constexpr int64_t kTooMany = 1 << 20;

PyObject* numpyType(const char* name) {
    const Reference numpy(PyImport_ImportModule("numpy"));
    return Reference(PyObject_CallMethod(numpy.get(), "dtype", "s", name))
            .release();
}

/// Never destroyed: at the end of the process CUDA may be gone before.
auto& pinnedResults = *new std::shared_ptr<gpu::PinnedBlockPool>;

// NumPy's own objects, held for ever.
PyObject* float32 = nullptr;
PyObject* int64 = nullptr;

/// What happened while the interpreter's lock was released.
class Outcome {
   public:
    /// Runs `body`, which returns whether all was plain.
    template <typename Body>
    void of(const Body& body) {
        try {
            plain_ = gpu::sleepAtEnd(body);
        } catch (const std::bad_alloc&) {
            noMemory_ = true;
        } catch (const std::exception& e) {
            problem_ = e.what();
        } catch (...) {
            problem_ = "unknown exception";
        }
    }

    /// With the lock: whether all was plain; throws PythonError for what was
    /// thrown.
    bool wasPlain() const {
        if (noMemory_) {
            raise(PyExc_MemoryError, "std::bad_alloc");
            throw PythonError{};
        }
        if (problem_) {
            raise(PyExc_RuntimeError, problem_->c_str());
            throw PythonError{};
        }
        return plain_;
    }

   private:
    bool plain_ = false;
    bool noMemory_ = false;
    std::optional<std::string> problem_;
};

/// Whether an array lies where it says, on that GPU or on the host; NumPy's do.
bool isPlaced(const PlainArray& array, int device) {
    if (array.isNumpys()) {
        return true;
    }
    try {
        const auto placement =
                gpu::placementOf(array.data(), array.bytes(), "array");
        if (array.saysPinned() && placement.kind == gpu::MemoryKind::Pageable) {
            return false;
        }
        return array.onGpu() ? placement.onDevice(device) : placement.onHost();
    } catch (const faiss::FaissException&) {
        // Who looks closer finds it again.
        return false;
    }
}

/// The search of one call with all its arrays, of which some may be on the GPU.
class ArraySearch {
   public:
    ArraySearch(
            faiss::gpu::GpuIndex* index,
            const PlainArray& x,
            idx_t k,
            const PlainArray& D,
            const PlainArray& I)
            : index_(index), x_(x), D_(D), I_(I), k_(k) {}

    bool anyOnGpu() const {
        return x_.onGpu() || D_.onGpu() || I_.onGpu();
    }

    /// Returns false where an array lies elsewhere than it says, or on another
    /// GPU, or overlaps another one; then nothing was done. Takes over `owners`
    /// if it sets it to nullptr. Without the interpreter's lock.
    bool run(PyObject*& owners) const {
        if (!arePlaced() || D_.overlaps(I_) || D_.overlaps(x_) ||
            I_.overlaps(x_)) {
            return false;
        }
        if (!anyOnGpu()) {
            search();
            return true;
        }
        const int device = index_->getDevice();
        const gpu::DeviceGuard current(device);
        const cudaStream_t stream = defaultStream(device);
        refuseCaptures(stream);
        for (cudaStream_t other : others(&PlainArray::readyAfter, stream)) {
            InFlight::ofProcess().order(other, stream, device);
        }
        const auto handOn = [&] {
            InFlight::ofProcess().keep(
                    stream,
                    device,
                    owners,
                    others(&PlainArray::usedNextOn, stream));
            owners = nullptr;
        };
        try {
            search();
        } catch (...) {
            // Something may have been enqueued. What fails now fails for the
            // same reason, which is told already.
            try {
                handOn();
            } catch (const std::exception&) {
            }
            throw;
        }
        handOn();
        return true;
    }

   private:
    void search() const {
        index_->search(
                x_.rows(),
                static_cast<const float*>(x_.data()),
                k_,
                static_cast<float*>(D_.data()),
                static_cast<idx_t*>(I_.data()));
    }

    bool arePlaced() const {
        const int device = index_->getDevice();
        return isPlaced(x_, device) && isPlaced(D_, device) &&
               isPlaced(I_, device);
    }

    /// The lock is not kept for the search: who holds it joins no other
    /// thread's.
    cudaStream_t defaultStream(int device) const {
        const auto resources = index_->getResources();
        const auto lock = gpu::lockOf(resources.get());
        const auto guard = gpu::lockUnlessInterrupted(*lock);
        return resources->getDefaultStream(device);
    }

    /// Before anything is enqueued: what waits for a stream in a capture is
    /// taken into it, and a stream in a capture that waits for others ends it.
    void refuseCaptures(cudaStream_t ours) const {
        gpu::refuseCapture(ours, "the index");
        const std::pair<const char*, const PlainArray*> arrays[] = {
                {"x", &x_}, {"D", &D_}, {"I", &I_}};
        std::optional<cudaStream_t> asked = ours;
        for (const auto& [name, array] : arrays) {
            for (const auto& stream :
                 {array->readyAfter(), array->usedNextOn()}) {
                // Mostly the same one.
                if (stream && stream != asked) {
                    gpu::refuseCapture(*stream, name);
                    asked = stream;
                }
            }
        }
    }

    using Streams = std::vector<cudaStream_t>;

    /// Streams of the arrays, each once, without the one we work on.
    Streams others(
            std::optional<cudaStream_t> (PlainArray::*which)() const,
            cudaStream_t ours) const {
        Streams found;
        for (const PlainArray* array : {&x_, &D_, &I_}) {
            const auto stream = (array->*which)();
            if (stream && *stream != ours &&
                std::find(found.begin(), found.end(), *stream) == found.end()) {
                found.push_back(*stream);
            }
        }
        return found;
    }

    faiss::gpu::GpuIndex* const index_;
    const PlainArray& x_;
    const PlainArray& D_;
    const PlainArray& I_;
    const idx_t k_;
};

/// After the interpreter, before CUDA: daemon threads may still be in a search.
void endCalls() {
    gpu::stopCalls();
    gpu::waitForCalls();
    // What comes behind a search calls CUDA, too, without a lock of ours.
    gpu::waitForThreads();
}

PyObject* notPlain() {
    return Py_NewRef(Py_None);
}

/// The same where something may have been borrowed.
PyObject* notPlain(const Borrower& borrower) {
    return Py_NewRef(borrower.borrowed());
}

PyObject* pairOf(PyObject* D, PyObject* I) {
    return Reference(PyTuple_Pack(2, D, I)).release();
}

PyObject* searchInto(
        faiss::gpu::GpuIndex* index,
        PyObject* x,
        const PlainArray& queries,
        int64_t k,
        PyObject* D,
        PyObject* I,
        Borrower& borrower) {
    const int64_t n = queries.rows();
    const auto distances = PlainArray::of(
            D, {"D", "float32", "<f4", "f", 4, n, k, true}, borrower);
    if (!distances) {
        return notPlain(borrower);
    }
    const auto labels = PlainArray::of(
            I, {"I", "int64", "<i8", "lq", 8, n, k, true}, borrower);
    if (!labels) {
        return notPlain(borrower);
    }
    const ArraySearch search(index, queries, k, *distances, *labels);
    const bool keeps = search.anyOnGpu();
    PyObject* owners = keeps ? Reference(PyTuple_Pack(
                                                 6,
                                                 x,
                                                 D,
                                                 I,
                                                 queries.owner(),
                                                 distances->owner(),
                                                 labels->owner()))
                                       .release()
                             : nullptr;
    InFlight::Done done;
    Outcome outcome;
    {
        Unlocked unlocked;
        outcome.of([&] {
            if (keeps) {
                done = InFlight::ofProcess().takeDone();
            }
            return search.run(owners);
        });
    }
    Py_XDECREF(owners);
    InFlight::giveUp(done);
    return outcome.wasPlain() ? pairOf(D, I) : notPlain(borrower);
}

/// A NumPy array [n, k] in `memory`, from `offset` on.
Reference arrayIn(
        PyObject* memory,
        int64_t n,
        int64_t k,
        PyObject* dtype,
        int64_t offset) {
    const Reference shape(Py_BuildValue("(LL)", n, k));
    const Reference start(PyLong_FromLongLong(offset));
    PyObject* arguments[] = {shape.get(), dtype, memory, start.get()};
    return Reference(PyObject_Vectorcall(
            reinterpret_cast<PyObject*>(numpyArray), arguments, 4, nullptr));
}

/// Into one block of pinned memory, labels first.
PyObject* searchPacked(
        faiss::gpu::GpuIndex* index, const PlainArray& queries, int64_t k) {
    const int64_t n = queries.rows();
    int64_t bytes;
    if (!pinnedResults || __builtin_mul_overflow(n, k * 12, &bytes)) {
        return notPlain();
    }
    std::unique_ptr<gpu::PinnedBlock> block;
    Outcome outcome;
    {
        Unlocked unlocked;
        outcome.of([&] {
            if (!isPlaced(queries, index->getDevice())) {
                return false;
            }
            try {
                block = gpu::PinnedBlock::tryMake(pinnedResults, bytes);
            } catch (const gpu::CudaError&) {
                // Ordinary memory does, too.
            }
            if (!block) {
                return false;
            }
            auto* const labels = static_cast<int64_t*>(block->data());
            index->search(
                    n,
                    static_cast<const float*>(queries.data()),
                    k,
                    reinterpret_cast<float*>(labels + n * k),
                    labels);
            return true;
        });
    }
    if (!outcome.wasPlain()) {
        return notPlain();
    }
    const Reference memory = pinnedMemory(std::move(block), bytes);
    const Reference D = arrayIn(memory.get(), n, k, float32, n * k * 8);
    const Reference I = arrayIn(memory.get(), n, k, int64, 0);
    return pairOf(D.get(), I.get());
}

} // namespace

bool preparePlainSearch() {
    const auto prepare = [] {
        PlainArray::prepare();
        Borrower::prepare();
        preparePinnedMemory();
        float32 = numpyType("float32");
        int64 = numpyType("int64");
        installInterrupts();
        // Python takes 32 of them.
        if (Py_AtExit(endCalls) != 0 && std::atexit(endCalls) != 0) {
            throw std::bad_alloc();
        }
        return Py_None;
    };
    return guarded(prepare) != nullptr;
}

PyObject* plainSearch(
        faiss::gpu::GpuIndex* index,
        PyObject* x,
        PyObject* k,
        PyObject* D,
        PyObject* I,
        PyObject* makeResults,
        PyObject* currentStream) {
    return guarded([&]() -> PyObject* {
        if (!PyLong_CheckExact(k) || !dynamic_cast<gpu::StagedIndex*>(index)) {
            return notPlain();
        }
        int overflow = 0;
        const int64_t count = PyLong_AsLongLongAndOverflow(k, &overflow);
        if (overflow || count < 1 || count >= kTooMany) {
            return notPlain();
        }
        Borrower borrower(index, currentStream);
        const auto queries = PlainArray::of(
                x,
                {"x", "float32", "<f4", "f", 4, -1, index->d, false},
                borrower);
        if (!queries) {
            return notPlain(borrower);
        }
        if (D != Py_None || I != Py_None) {
            return searchInto(index, x, *queries, count, D, I, borrower);
        }
        if (!queries->onGpu()) {
            return searchPacked(index, *queries, count);
        }
        const Reference made(PyObject_CallFunction(
                makeResults,
                "OLL",
                x,
                static_cast<long long>(queries->rows()),
                static_cast<long long>(count)));
        if (!PyTuple_Check(made.get()) || PyTuple_GET_SIZE(made.get()) != 2) {
            return notPlain(borrower);
        }
        return searchInto(
                index,
                x,
                *queries,
                count,
                PyTuple_GET_ITEM(made.get(), 0),
                PyTuple_GET_ITEM(made.get(), 1),
                borrower);
    });
}

void usePinnedResults(std::shared_ptr<gpu::PinnedBlockPool> pool) {
    pinnedResults = std::move(pool);
}

} // namespace faiss_ext
