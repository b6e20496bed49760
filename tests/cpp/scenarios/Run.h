#pragma once

// One run of a scenario: what it draws from its seed, the memory that it uses,
// and what must hold when it ends.

#include <cuda_runtime_api.h>
#include <cuda_sim.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/impl/FaissException.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../support/CachingPool.h"

namespace scenarios {

/// A wrong result or a broken promise. Not an exception of Faiss, so that a
/// fault sweep tells the two apart.
class Mismatch : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

void require(bool holds, const std::string& otherwise);

/// A CUDA call of the scenario itself failed, which only an injected fault can
/// make it do.
class OwnCallFailed : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

void cuda(cudaError_t status);

enum class Memory { Pageable, Pinned, Managed, Device, OtherDevice };

inline bool onHost(Memory memory) {
    return memory != Memory::Device && memory != Memory::OtherDevice;
}

using Bytes = std::vector<char>;

template <typename T>
Bytes bytesOf(const std::vector<T>& values) {
    const auto* begin = reinterpret_cast<const char*>(values.data());
    return Bytes(begin, begin + values.size() * sizeof(T));
}

template <typename T>
std::vector<T> valuesOf(const Bytes& bytes) {
    const auto* begin = reinterpret_cast<const T*>(bytes.data());
    return std::vector<T>(begin, begin + bytes.size() / sizeof(T));
}

/// Owns memory of one kind. Nobody may use it any more when it is destroyed:
/// the destructor waits for nothing. Behind pageable memory comes a page that
/// nobody may touch.
class Buffer {
   public:
    Buffer(Memory memory, size_t bytes);
    ~Buffer();
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    char* data() const {
        return data_;
    }
    size_t size() const {
        return bytes_;
    }
    Memory memory() const {
        return memory_;
    }

    /// Host memory: the host writes it or reads it now, and the simulator is
    /// told so.
    void hostWrite(const Bytes& values);
    Bytes hostRead() const;

    /// Pageable memory: whoever touches it from now on dies.
    void forbid();

    /// Writes in the order of `stream`. The host does not wait.
    void streamWrite(const Bytes& values, cudaStream_t stream);
    /// Reads in the order of `stream`, and waits for it.
    Bytes streamRead(cudaStream_t stream) const;

   private:
    char* makePages();

    const Memory memory_;
    const size_t bytes_;
    char* data_ = nullptr;
    /// Of pageable memory, which has them for itself.
    char* pages_ = nullptr;
    size_t pageBytes_ = 0;
};

class Run;

/// While Faiss' own code changes an index: the number of the first operation
/// that it may enqueue. If one of these loses the device, Faiss aborts the
/// process, whoever called it. Otherwise 0.
class FaissAtWork {
   public:
    FaissAtWork();
    ~FaissAtWork();
    static uint64_t firstOperation();
};

/// Something that a run must still find right: called once, at its end or
/// before.
using Check = std::function<void()>;

class Run {
   public:
    explicit Run(uint64_t seed);
    /// Frees all it owns without a check: the way out after a failure.
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    uint64_t seed() const {
        return seed_;
    }

    /// A number from low to high, both included.
    int pick(int low, int high);
    bool coin() {
        return pick(0, 1) == 1;
    }
    template <typename T>
    T oneOf(std::initializer_list<T> values) {
        return values.begin()[pick(0, static_cast<int>(values.size()) - 1)];
    }
    Memory hostMemory();
    Memory anyMemory();

    /// n vectors of d small integers: every distance is exact.
    std::vector<float> vectors(size_t n, size_t d);

    /// Memory that lives until the end of the run.
    std::shared_ptr<Buffer> buffer(Memory memory, size_t bytes);
    std::shared_ptr<Buffer> buffer(Memory memory, const Bytes& values);

    /// The same for memory made elsewhere.
    void keepBuffer(std::shared_ptr<Buffer> made) {
        buffers_.push_back(made);
    }

    /// The resources object number `i`, made by the first that asks: Faiss'
    /// own, or one whose memory comes from a pool, by the seed.
    std::shared_ptr<faiss::gpu::StandardGpuResourcesImpl> resources(int i = 0);
    /// Those made from now on take memory from a pool, whatever the seed.
    void usePool() {
        pooled_ = true;
    }
    bool usesPool() const {
        return pooled_;
    }
    /// Those made from now on hold temporary memory of their own.
    void useNoPool() {
        pooled_ = false;
    }
    /// Faiss' own pinned buffer of the resources made from now on. By default
    /// the seed chooses among none, one too small for results, and enough.
    void setFaissPinned(size_t bytes) {
        faissPinned_ = bytes;
    }

    /// The same for Faiss' temporary memory; then they are Faiss' own, which
    /// set it aside, unless usePool is called later.
    void setFaissTemporary(size_t bytes) {
        faissTemporary_ = bytes;
        pooled_ = false;
    }

    /// The kernels of the exact engine make mistakes that its searches survive,
    /// some or none, by the seed, until the run ends.
    void makeExactMistakes();

    /// Called when the first resources object is there: what Faiss does when a
    /// device is lost while that is made is not ours.
    void whenReady(std::function<void()> call) {
        whenReady_ = std::move(call);
    }

    /// A stream that does not join the default stream; lives until the end.
    cudaStream_t stream();

    /// What owns an index, so that it goes before the buffers it uses.
    void keep(std::shared_ptr<void> owner) {
        owners_.push_back(owner);
    }
    /// To be checked before the run ends.
    void later(Check check) {
        checks_.push_back(std::move(check));
    }
    /// Checks what was left for later.
    void settle();
    /// After an exception: to be asked whether the index still answers, and
    /// whether what the call was given is left alone.
    void afterFault(Check check) {
        afterFault_.push_back(std::move(check));
    }
    /// Whether a fault is injected. Then what was started may not be finished.
    bool faulty() const {
        return faulty_;
    }
    /// Faults are counted in calls: these are the same under all seeds.
    void setFaulty() {
        faulty_ = true;
        pooled_ = false;
    }
    void answersAfterFault();

    /// Everything is right, freed, and nothing is left on the GPU.
    void end();
    /// Frees everything, indexes first.
    void tearDown();
    /// After that: whether the pool has got back what it lent.
    bool poolIsWhole() const {
        return poolIsWhole_;
    }
    /// The device is lost. Faiss' resources abort the process when they are
    /// destroyed then; those that an index is on must be kept by that index,
    /// the others are kept here.
    void tearDownAfterLoss();

   private:
    std::shared_ptr<faiss::gpu::StandardGpuResourcesImpl> makeResources();

    const uint64_t seed_;
    std::mt19937_64 random_;
    bool faulty_ = false;
    bool pooled_;
    size_t faissPinned_;
    size_t faissTemporary_;
    std::function<void()> whenReady_ = [] {};
    /// Made with the first resources that use it.
    std::shared_ptr<test::CachingPool> pool_;
    bool poolIsWhole_ = true;
    std::vector<std::shared_ptr<faiss::gpu::StandardGpuResourcesImpl>>
            resources_;
    std::vector<std::shared_ptr<Buffer>> buffers_;
    std::vector<std::shared_ptr<void>> owners_;
    std::vector<cudaStream_t> streams_;
    std::vector<Check> checks_;
    std::vector<Check> afterFault_;
};

} // namespace scenarios
