#include <faiss_ext/gpu/host/PinnedPages.h>

#include <sys/mman.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {
namespace pinned_pages {

namespace {

constexpr size_t kHugePage = size_t(2) << 20;

} // namespace

bool areSafeOn(const char* release) {
    // Linux 70e806e4e645, "mm: Do early cow for pinned pages during fork() for
    // ptes", and d042035eaf5f, the same for huge pages, both first in 5.9.
    // They go by pin_user_pages, which NVIDIA's driver calls where there is one
    // (5.6). gVisor, which has learnt it later, says that it is Linux 4.4.
    int major = 0;
    int minor = 0;
    return std::sscanf(release, "%d.%d", &major, &minor) == 2 &&
           (major > 5 || (major == 5 && minor >= 9));
}

bool areSafe() {
    static const bool safe = [] {
        utsname kernel{};
        return uname(&kernel) == 0 && areSafeOn(kernel.release);
    }();
    return safe;
}

char* pin(size_t bytes) {
    // Aligned by mapping more than is needed, so that huge pages fit.
    const size_t alignment = std::min(bytes, kHugePage);
    void* const mapped =
            mmap(nullptr,
                 bytes + alignment,
                 PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS,
                 -1,
                 0);
    if (mapped == MAP_FAILED) {
        throw CudaError(cudaErrorMemoryAllocation, "mmap");
    }
    const auto begin = reinterpret_cast<uintptr_t>(mapped);
    const uintptr_t aligned = (begin + alignment - 1) / alignment * alignment;
    const auto unmap = [](uintptr_t from, uintptr_t to) {
        if (from < to) {
            munmap(reinterpret_cast<void*>(from), to - from);
        }
    };
    unmap(begin, aligned);
    unmap(aligned + bytes, begin + bytes + alignment);
    char* const memory = reinterpret_cast<char*>(aligned);
    if (bytes >= kHugePage) {
        // A wish: pinned in fewer steps where it is granted.
        madvise(memory, bytes, MADV_HUGEPAGE);
    }
    try {
        FAISS_EXT_CUDA_TRY(
                cudaHostRegister(memory, bytes, cudaHostRegisterDefault));
    } catch (const CudaError&) {
        munmap(memory, bytes);
        throw;
    }
    return memory;
}

void unpin(char* memory, size_t bytes) noexcept {
    FAISS_EXT_CUDA_NOTHROW(cudaHostUnregister(memory));
    munmap(memory, bytes);
}

} // namespace pinned_pages
} // namespace gpu
} // namespace faiss_ext
