#include "Memory.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace cuda_sim {

namespace {

constexpr size_t kPage = 4096;
// cudaMalloc aligns to 256; more would hide misaligned use.
constexpr size_t kAlign = 256;
// Between two device allocations; an overrun lands in nobody's memory.
constexpr size_t kGuard = 64 * 1024;
// Device memory gets its poison in units of this, when first touched.
constexpr size_t kGranule = 64 * 1024;
constexpr size_t kRegionBytes = size_t(256) << 30;
constexpr size_t kPoisonChunk = size_t(4) << 20;
constexpr size_t kMaxFreedDevice = 4096;
constexpr size_t kMaxFreedHost = 256;
constexpr uint32_t kPoisonWord = 0x7fde7dad;

// Read by a signal handler, hence lock-free.
constexpr size_t kMaxRegions = 512;
struct {
    std::atomic<uintptr_t> begin[kMaxRegions];
    std::atomic<uintptr_t> end[kMaxRegions];
    std::atomic<size_t> count;
} deviceRegions;

size_t roundUp(size_t value, size_t unit) {
    return (value + unit - 1) / unit * unit;
}

// Not through libc: a sanitizer would keep shadow for these huge mappings.
void* rawMap(size_t bytes, int protection) {
    long result =
            syscall(SYS_mmap,
                    nullptr,
                    bytes,
                    protection,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1,
                    0L);
    return result == -1 ? nullptr : reinterpret_cast<void*>(result);
}

// A file of poison, for mapping it copy-on-write over large host memory.
int poisonFile() {
    static int file = [] {
        int fd = memfd_create("cuda_sim_poison", MFD_CLOEXEC);
        if (fd >= 0 && ftruncate(fd, kPoisonChunk) == 0) {
            void* chunk =
                    mmap(nullptr,
                         kPoisonChunk,
                         PROT_READ | PROT_WRITE,
                         MAP_SHARED,
                         fd,
                         0);
            if (chunk != MAP_FAILED) {
                fillPoison(chunk, kPoisonChunk);
                munmap(chunk, kPoisonChunk);
            }
        }
        return fd;
    }();
    return file;
}

} // namespace

const char* toString(MemoryKind kind) {
    switch (kind) {
        case MemoryKind::Device:
            return "device memory";
        case MemoryKind::Managed:
            return "managed memory";
        case MemoryKind::Pinned:
            return "pinned memory";
        case MemoryKind::Registered:
            return "registered host memory";
    }
    return "?";
}

static unsigned char poisonByte(uintptr_t address) {
    return static_cast<unsigned char>(kPoisonWord >> (8 * (address & 3)));
}

void fillPoison(void* ptr, size_t bytes) {
    auto* p = static_cast<unsigned char*>(ptr);
    auto* end = p + bytes;
    while (p < end && (reinterpret_cast<uintptr_t>(p) & 3)) {
        *p = poisonByte(reinterpret_cast<uintptr_t>(p));
        ++p;
    }
    if (size_t words = (end - p) / 4) {
        uint32_t word = kPoisonWord;
        memcpy(p, &word, 4);
        // Doubles what is done each time: memcpy is the fastest writer.
        for (size_t done = 4; done < words * 4;) {
            size_t step = std::min(done, words * 4 - done);
            memcpy(p + done, p, step);
            done += step;
        }
        p += words * 4;
    }
    for (; p < end; ++p) {
        *p = poisonByte(reinterpret_cast<uintptr_t>(p));
    }
}

bool isPoison(const void* ptr, size_t bytes, uintptr_t address) {
    auto* p = static_cast<const unsigned char*>(ptr);
    for (size_t i = 0; i < bytes; ++i) {
        if (p[i] != poisonByte(address + i)) {
            return false;
        }
    }
    return true;
}

Memory::Memory() = default;

Memory::Region* Memory::addRegion(size_t bytes) {
    if (regions_.size() == kMaxRegions) {
        return nullptr;
    }
    bytes = std::max(roundUp(bytes + 2 * kGuard, kGranule), kRegionBytes);
    void* addresses = rawMap(bytes, PROT_NONE);
    void* contents = rawMap(bytes, PROT_READ | PROT_WRITE);
    if (!addresses || !contents) {
        return nullptr;
    }
    auto begin = reinterpret_cast<uintptr_t>(addresses);
    regions_.emplace_back(new Region{
            begin,
            begin + kGuard,
            begin + bytes,
            static_cast<intptr_t>(
                    reinterpret_cast<uintptr_t>(contents) - begin),
            0});
    size_t i = regions_.size() - 1;
    deviceRegions.begin[i] = begin;
    deviceRegions.end[i] = begin + bytes;
    deviceRegions.count = i + 1;
    return regions_.back().get();
}

Memory::Region* Memory::regionOf(uintptr_t address) {
    for (auto& region : regions_) {
        if (region->begin <= address && address < region->end) {
            return region.get();
        }
    }
    return nullptr;
}

bool Memory::isDeviceAddress(uintptr_t address) {
    for (size_t i = 0; i < deviceRegions.count; ++i) {
        if (deviceRegions.begin[i] <= address &&
            address < deviceRegions.end[i]) {
            return true;
        }
    }
    return false;
}

Allocation* Memory::allocateDevice(size_t bytes, int device) {
    // An address is given out once, until all of its region is free again:
    // that is what makes a use after free visible.
    Region* region = nullptr;
    size_t need = roundUp(bytes, kAlign) + kGuard;
    for (auto& candidate : regions_) {
        if (candidate->end - candidate->next >= need) {
            region = candidate.get();
            break;
        }
    }
    for (size_t i = 0; !region && i < regions_.size(); ++i) {
        auto& candidate = *regions_[i];
        if (candidate.live == 0 &&
            candidate.end - candidate.begin >= need + kGuard) {
            candidate.next = candidate.begin + kGuard;
            region = &candidate;
        }
    }
    if (!region && !(region = addRegion(bytes))) {
        return nullptr;
    }

    std::unique_ptr<Allocation> allocation(new Allocation);
    allocation->begin = region->next;
    allocation->bytes = bytes;
    allocation->kind = MemoryKind::Device;
    allocation->device = device;
    region->next = roundUp(region->next + need, kAlign);
    ++region->live;
    auto* result = allocation.get();
    live_[result->begin] = std::move(allocation);
    return result;
}

Allocation* Memory::allocateHost(size_t bytes, MemoryKind kind) {
    size_t body = roundUp(bytes, kPage);
    size_t mapBytes = body + 2 * kPage;
    void* map =
            mmap(nullptr,
                 mapBytes,
                 PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1,
                 0);
    if (map == MAP_FAILED) {
        return nullptr;
    }
    char* begin = static_cast<char*>(map) + kPage;
    if (body >= kPoisonChunk && poisonFile() >= 0) {
        // So that 256 MiB cost a few system calls, and no page.
        for (size_t at = 0; at < body; at += kPoisonChunk) {
            mmap(begin + at,
                 std::min(kPoisonChunk, body - at),
                 PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                 poisonFile(),
                 0);
        }
    } else {
        mprotect(begin, body, PROT_READ | PROT_WRITE);
        fillPoison(begin, body);
    }

    std::unique_ptr<Allocation> allocation(new Allocation);
    allocation->begin = reinterpret_cast<uintptr_t>(begin);
    allocation->bytes = bytes;
    allocation->kind = kind;
    allocation->mapBegin = reinterpret_cast<uintptr_t>(map);
    allocation->mapBytes = mapBytes;
    auto* result = allocation.get();
    live_[result->begin] = std::move(allocation);
    return result;
}

void Memory::sharePinned() {
    const std::vector<uint32_t> poison(kPoisonChunk / 4, kPoisonWord);
    for (auto& entry : live_) {
        auto& allocation = *entry.second;
        if (allocation.kind != MemoryKind::Pinned) {
            continue;
        }
        size_t body = allocation.mapBytes - 2 * kPage;
        allocation.shared.resize((body + kPoisonChunk - 1) / kPoisonChunk);
        for (size_t i = 0; i < allocation.shared.size(); ++i) {
            auto* chunk = reinterpret_cast<char*>(allocation.begin) +
                          i * kPoisonChunk;
            size_t bytes = std::min(kPoisonChunk, body - i * kPoisonChunk);
            if (allocation.shared[i] ||
                (bytes == kPoisonChunk &&
                 !memcmp(chunk, poison.data(), bytes))) {
                continue;
            }
            void* copy =
                    mmap(nullptr,
                         bytes,
                         PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS,
                         -1,
                         0);
            if (copy == MAP_FAILED) {
                continue;
            }
            memcpy(copy, chunk, bytes);
            mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, chunk);
            allocation.shared[i] = true;
        }
    }
}

Allocation* Memory::registerHost(void* ptr, size_t bytes) {
    std::unique_ptr<Allocation> allocation(new Allocation);
    allocation->begin = reinterpret_cast<uintptr_t>(ptr);
    allocation->bytes = bytes;
    allocation->kind = MemoryKind::Registered;
    auto* result = allocation.get();
    live_[result->begin] = std::move(allocation);
    return result;
}

void Memory::release(Allocation* allocation, const std::string& freedBy) {
    auto it = live_.find(allocation->begin);
    if (allocation->onDevice()) {
        auto* region = regionOf(allocation->begin);
        --region->live;
        if (allocation->anyWritten) {
            uintptr_t first = allocation->begin + region->distance;
            uintptr_t last = first + allocation->bytes;
            first = first / kPage * kPage;
            last = roundUp(last, kPage);
            // The guards keep neighbours out of these pages.
            madvise(reinterpret_cast<void*>(first),
                    last - first,
                    MADV_DONTNEED);
        }
        allocation->written.clear();
    } else if (allocation->mapBytes) {
        // Kept unreachable, not given back, so that a later touch faults.
        mmap(reinterpret_cast<void*>(allocation->mapBegin),
             allocation->mapBytes,
             PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
             -1,
             0);
    }
    allocation->freedBy = freedBy;
    if (allocation->kind != MemoryKind::Registered) {
        auto& freed = allocation->onDevice() ? freedDevice_ : freedHost_;
        size_t limit = allocation->onDevice() ? kMaxFreedDevice : kMaxFreedHost;
        freed.push_back(std::move(*allocation));
        if (freed.size() > limit) {
            auto& oldest = freed.front();
            if (oldest.mapBytes) {
                munmap(reinterpret_cast<void*>(oldest.mapBegin),
                       oldest.mapBytes);
            }
            freed.pop_front();
        }
    }
    live_.erase(it);
}

Allocation* Memory::find(const void* ptr) {
    auto address = reinterpret_cast<uintptr_t>(ptr);
    auto it = live_.upper_bound(address);
    if (it == live_.begin()) {
        return nullptr;
    }
    --it;
    return address < it->second->end() ? it->second.get() : nullptr;
}

bool Memory::overlaps(const void* ptr, size_t bytes) {
    auto begin = reinterpret_cast<uintptr_t>(ptr);
    auto it = live_.lower_bound(begin);
    return find(ptr) || (it != live_.end() && it->first < begin + bytes);
}

const Allocation* Memory::findFreed(const void* ptr) const {
    auto address = reinterpret_cast<uintptr_t>(ptr);
    auto& freed = isDeviceAddress(address) ? freedDevice_ : freedHost_;
    for (auto it = freed.rbegin(); it != freed.rend(); ++it) {
        if (it->begin <= address && address < it->end()) {
            return &*it;
        }
    }
    return nullptr;
}

const Allocation* Memory::findBelow(const void* ptr) const {
    auto it = live_.upper_bound(reinterpret_cast<uintptr_t>(ptr));
    return it == live_.begin() ? nullptr : std::prev(it)->second.get();
}

void* Memory::view(Allocation* allocation, uintptr_t address, size_t bytes) {
    if (!allocation->onDevice()) {
        return reinterpret_cast<void*>(address);
    }
    auto* region = regionOf(address);
    if (bytes) {
        auto& written = allocation->written;
        if (written.empty()) {
            written.resize(allocation->bytes / kGranule / 64 + 1);
            allocation->anyWritten = true;
        }
        size_t first = (address - allocation->begin) / kGranule;
        size_t last = (address + bytes - 1 - allocation->begin) / kGranule;
        for (size_t i = first; i <= last; ++i) {
            if (!(written[i / 64] >> (i % 64) & 1)) {
                written[i / 64] |= uint64_t(1) << (i % 64);
                uintptr_t begin = allocation->begin + i * kGranule;
                uintptr_t end = std::min(begin + kGranule, allocation->end());
                fillPoison(
                        reinterpret_cast<void*>(begin + region->distance),
                        end - begin);
            }
        }
    }
    return reinterpret_cast<void*>(address + region->distance);
}

void Memory::recycle() {
    for (auto& region : regions_) {
        if (region->live) {
            return;
        }
    }
    for (auto& region : regions_) {
        region->next = region->begin + kGuard;
    }
    freedDevice_.clear();
}

} // namespace cuda_sim
