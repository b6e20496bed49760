#pragma once

namespace faiss_ext {
namespace gpu {

/// Memory that is kept from call to call beside that of a CallRunner, which
/// frees it with its own, at its end.
class KeptMemory {
   public:
    /// Nothing in flight uses it: frees it at once. First what Faiss'
    /// resources free, and then all else.
    virtual void freeNow() noexcept = 0;

    /// Called before, where the CUDA context is lost: what Faiss would abort on
    /// when it cannot free it is not to be freed.
    virtual void keepForEver() noexcept = 0;

   protected:
    ~KeptMemory() = default;
};

} // namespace gpu
} // namespace faiss_ext
