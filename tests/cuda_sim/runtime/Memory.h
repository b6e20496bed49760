// The memory of the simulated machine. A device address is reserved and never
// accessible: the bytes lie at a fixed distance from it, in a second mapping
// that only the simulator touches.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace cuda_sim {

enum class MemoryKind {
    Device,
    Managed,
    Pinned,     // cudaHostAlloc, cudaMallocHost
    Registered, // cudaHostRegister
};

const char* toString(MemoryKind kind);

struct Allocation {
    uintptr_t begin = 0;
    size_t bytes = 0;
    MemoryKind kind = MemoryKind::Device;
    int device = 0;
    uint64_t sequence = 0; // of the call that made it
    const void* caller = nullptr;
    bool fromPool = false;     // cudaMallocAsync
    bool freeEnqueued = false; // cudaFreeAsync was called
    bool countsAsLeak = true;  // made since the last reset
    std::string freedBy;       // once freed

    // Device: one bit for each granule whose poison has been written.
    std::vector<uint64_t> written;
    bool anyWritten = false;

    // Host kinds: what was mapped, with its guard pages.
    uintptr_t mapBegin = 0;
    size_t mapBytes = 0;
    // Pinned: which chunks of it are shared with forked children by now.
    std::vector<bool> shared;

    uintptr_t end() const {
        return begin + bytes;
    }
    bool onDevice() const {
        return kind == MemoryKind::Device;
    }
};

/// Fills with the poison pattern: a NaN as float and as half, and an
/// implausible label. It depends on the address only, so that a piece of a
/// poisoned range is poison too.
void fillPoison(void* ptr, size_t bytes);
/// `address` is where the bytes lie for the program, if that differs.
bool isPoison(const void* ptr, size_t bytes, uintptr_t address);

class Memory {
   public:
    Memory();

    /// nullptr when there is no room.
    Allocation* allocateDevice(size_t bytes, int device);
    Allocation* allocateHost(size_t bytes, MemoryKind kind);
    Allocation* registerHost(void* ptr, size_t bytes);
    void release(Allocation* allocation, const std::string& freedBy);
    /// Before a fork: pinned memory becomes what parent and child share, but
    /// for chunks of 4 MiB that nothing has been written to.
    void sharePinned();

    /// The live allocation that holds this address.
    Allocation* find(const void* ptr);
    /// Whether some live allocation lies in these bytes.
    bool overlaps(const void* ptr, size_t bytes);
    /// The freed allocation that held this address, if remembered.
    const Allocation* findFreed(const void* ptr) const;
    /// The live allocation nearest below the address.
    const Allocation* findBelow(const void* ptr) const;

    /// Where the simulator can touch these bytes. Writes poison first into
    /// what nothing has written yet.
    void* view(Allocation* allocation, uintptr_t address, size_t bytes);

    /// Takes no lock: a signal handler asks it.
    static bool isDeviceAddress(uintptr_t address);

    const std::map<uintptr_t, std::unique_ptr<Allocation>>& live() const {
        return live_;
    }

    /// Starts device addresses over, where no device memory lives.
    void recycle();

   private:
    struct Region {
        uintptr_t begin;
        uintptr_t next;
        uintptr_t end;
        intptr_t distance; // from an address to its bytes
        size_t live = 0;
    };

    Region* regionOf(uintptr_t address);
    Region* addRegion(size_t bytes);

    std::map<uintptr_t, std::unique_ptr<Allocation>> live_; // by begin
    std::deque<Allocation> freedDevice_;                    // oldest first
    std::deque<Allocation> freedHost_;
    std::vector<std::unique_ptr<Region>> regions_;
};

} // namespace cuda_sim
