// Rules of forks: which memory is shared with a child, and what a child may
// call. (A child of a process that has used CUDA ends by _exit.)

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "conformance.h"

using namespace conformance;

namespace {

constexpr size_t kBytes = 1 << 16;

/// The exit status of a child that returns `work()`.
int inChild(const std::function<int()>& work) {
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(work());
    }
    int status = -1;
    EXPECT_EQ(child, waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// The GPU fills host memory with a byte.
void fill(char* host, int byte) {
    void* device = nullptr;
    CHECK_CUDA(cudaMalloc(&device, kBytes));
    CHECK_CUDA(cudaMemset(device, byte, kBytes));
    CHECK_CUDA(cudaMemcpy(host, device, kBytes, cudaMemcpyDefault));
    CHECK_CUDA(cudaFree(device));
}

/// What the child sees of a later copy, and the parent of the child's write.
struct Seen {
    int byChild;
    char byParent;
};

Seen afterCopyAndWrite(char* memory) {
    fill(memory, 1);
    int copied[2];
    EXPECT_EQ(0, pipe(copied));
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        char token;
        if (read(copied[0], &token, 1) != 1) {
            _exit(99);
        }
        const int seen = memory[kBytes / 2];
        memory[0] = 77;
        _exit(seen);
    }
    fill(memory, 2);
    EXPECT_EQ(2, memory[kBytes / 2]);
    EXPECT_EQ(1, write(copied[1], "x", 1));
    int status = -1;
    EXPECT_EQ(child, waitpid(child, &status, 0));
    close(copied[0]);
    close(copied[1]);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, memory[0]};
}

TEST(Fork, memory_of_cudaHostAlloc_is_shared_with_the_child) {
    void* memory = nullptr;
    CHECK_CUDA(cudaHostAlloc(&memory, kBytes, cudaHostAllocDefault));
    const Seen seen = afterCopyAndWrite(static_cast<char*>(memory));
    EXPECT_EQ(2, seen.byChild);
    EXPECT_EQ(77, seen.byParent);
    CHECK_CUDA(cudaFreeHost(memory));
}

TEST(Fork, registered_private_memory_is_not) {
    void* memory =
            mmap(nullptr,
                 kBytes,
                 PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS,
                 -1,
                 0);
    ASSERT_NE(MAP_FAILED, memory);
    CHECK_CUDA(cudaHostRegister(memory, kBytes, cudaHostRegisterDefault));
    const Seen seen = afterCopyAndWrite(static_cast<char*>(memory));
    EXPECT_EQ(1, seen.byChild);
    EXPECT_EQ(2, seen.byParent);
    CHECK_CUDA(cudaHostUnregister(memory));
    munmap(memory, kBytes);
}

TEST(Fork, a_child_cannot_call_cuda) {
    void* memory = nullptr;
    CHECK_CUDA(cudaMalloc(&memory, kBytes));
    EXPECT_EQ(cudaErrorInitializationError, inChild([&] {
                  void* more = nullptr;
                  return static_cast<int>(cudaMalloc(&more, kBytes));
              }));
    EXPECT_EQ(cudaErrorInitializationError, inChild([&] {
                  return static_cast<int>(cudaDeviceSynchronize());
              }));
    CHECK_CUDA(cudaFree(memory));
}

} // namespace
