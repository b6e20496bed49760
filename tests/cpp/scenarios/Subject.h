#pragma once

// An index under test beside a copy of its vectors on the CPU. Each call is
// made by a Caller, and its results are compared with the Oracle's.

#include <map>
#include <mutex>

#include "../support/Calls.h"
#include "Run.h"

namespace scenarios {

/// How an index is made. What is 0 or less is chosen by the seed.
struct Setup {
    test::TunedConfig config;
    int dims = 0;
    int vectors = -1;
    bool float16 = false;
    bool innerProduct = false;
    /// A GpuIndexFlatCosine. Faiss' kernels search it with vectors of one
    /// component other than zero, so that they round nothing.
    bool cosine = false;
    int device = 0;
    int resources = 0;
    /// The GPUs have no memory left while a call with arrays runs.
    bool full = false;
};

/// Where the arrays of a call lie, and how many rows it has (0: by the seed).
struct Places {
    Memory x = Memory::Pageable;
    Memory distances = Memory::Pageable;
    Memory labels = Memory::Pageable;
    int n = 0;
    int k = 0;
};

constexpr Places kAllPageable{};
constexpr Places kToDevice{
        Memory::Pageable, Memory::Device, Memory::Device, 0, 0};
constexpr Places kAllDevice{
        Memory::Device, Memory::Device, Memory::Device, 0, 0};
constexpr Places kAllPinned{
        Memory::Pinned, Memory::Pinned, Memory::Pinned, 0, 0};

class Subject {
   public:
    /// Makes the index and stores its first vectors. It lives until the end of
    /// the run, or until `destroy`.
    static std::shared_ptr<Subject> make(Run& run, const Setup& setup);
    virtual ~Subject() = default;

    /// Each call checks what is complete when it returns at once; what is in
    /// device memory later, in the order of the default stream of the call, by
    /// Run::settle or the end of the run.
    virtual void search(const Places& places) = 0;
    /// A search timed by its stages; the times must fit together.
    virtual void profileSearch(const Places& places) = 0;
    virtual void searchPacked(Memory x, Memory results) = 0;
    virtual void assign(Memory x, Memory labels, int n = 0, int k = 0) = 0;
    virtual void searchAndReconstruct(const Places& places, Memory recons) = 0;
    virtual void reconstructN(Memory out, int n = 0) = 0;
    virtual void reconstructBatch(Memory keys, Memory out, int n = 0) = 0;
    virtual void residuals(Memory xs, Memory keys, Memory out, int n = 0) = 0;

    virtual void add(Memory x, int n) = 0;
    virtual void clear() = 0;
    /// Takes over n new vectors from a CPU index.
    virtual void copyFrom(int n) = 0;
    virtual void destroy() = 0;

    /// The stream of the index's resources.
    virtual cudaStream_t defaultStream() = 0;
    virtual void waitForStream(cudaStream_t stream) = 0;
    virtual void makeStreamWait(cudaStream_t stream) = 0;

    /// A search whose queries come from `producer` and whose device results
    /// are read on `consumer`, without a host wait in between.
    virtual void searchBetween(
            cudaStream_t producer,
            cudaStream_t consumer,
            const Places& places) = 0;

    /// Calls `search` for pageable arrays, prepared on this thread, from
    /// `threads` threads at once, `rounds` times each.
    virtual void searchFromThreads(int threads, int rounds) = 0;
};

} // namespace scenarios
