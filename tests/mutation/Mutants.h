#pragma once

// What the sources of a tree with mutants call (find_mutants.py): statements
// that are left out where their number is chosen by the environment.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

namespace faiss_ext_mutants {

/// $FAISS_EXT_MUTANT, or 0: none. Set before main, so that asking orders no
/// thread after another.
inline const int chosen = [] {
    const char* number = std::getenv("FAISS_EXT_MUTANT");
    return number ? std::atoi(number) : 0;
}();

/// The file $FAISS_EXT_MUTANTS_REACHED, a byte for each mutant, where the byte
/// of each one that the program comes by is set, by its child processes, too.
inline char* const reached = []() -> char* {
    const char* path = std::getenv("FAISS_EXT_MUTANTS_REACHED");
    const int file = path ? open(path, O_RDWR) : -1;
    if (file < 0) {
        return nullptr;
    }
    const off_t size = lseek(file, 0, SEEK_END);
    void* bytes =
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return bytes == MAP_FAILED ? nullptr : static_cast<char*>(bytes);
}();

#ifdef __CUDACC__
// Of functions for both sides, those of the host alone are made mutants.
__host__ __device__
#endif
        inline bool
        removed(int number) {
#ifdef __CUDA_ARCH__
    return number < 0;
#else
    if (reached) {
        __atomic_store_n(reached + number, 1, __ATOMIC_RELAXED);
    }
    return number == chosen;
#endif
}

/// A guard that is not made.
template <typename Guard>
class Unless {
   public:
    template <typename... Args>
    explicit Unless(int number, Args&&... args) {
        if (!removed(number)) {
            guard_.emplace(std::forward<Args>(args)...);
        }
    }

   private:
    std::optional<Guard> guard_;
};

template <typename Mutex>
std::unique_lock<Mutex> lockUnless(int number, Mutex& mutex) {
    std::unique_lock<Mutex> lock(mutex, std::defer_lock);
    if (!removed(number)) {
        lock.lock();
    }
    return lock;
}

/// A lock that is handed to others, and holds nothing.
template <typename Mutex>
class Unless<std::unique_lock<Mutex>> : public std::unique_lock<Mutex> {
   public:
    Unless(int number, Mutex& mutex)
            : std::unique_lock<Mutex>(lockUnless(number, mutex)) {}
};

/// The same pointer, which keeps nothing alive.
template <typename T>
std::shared_ptr<T> notHeld(int number, std::shared_ptr<T> owner) {
    return removed(number)
                   ? std::shared_ptr<T>(std::shared_ptr<void>(), owner.get())
                   : owner;
}

} // namespace faiss_ext_mutants
