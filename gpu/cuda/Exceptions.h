#pragma once

#include <cuda_runtime_api.h>
#include <faiss/impl/FaissException.h>

#include <string>

#include <faiss_ext/gpu/Export.h>

namespace faiss_ext {
namespace gpu {

/// A CUDA call failed, now or in work that was enqueued earlier. The index
/// still answers correctly afterwards when the error is one that CUDA can
/// recover from (such as cudaErrorMemoryAllocation); after an error that ends
/// the CUDA context, every later call throws CudaError too.
class FAISS_EXT_API CudaError : public faiss::FaissException {
   public:
    CudaError(cudaError_t code, const std::string& doing);

    /// The code that CUDA gave.
    cudaError_t code() const noexcept {
        return code_;
    }

   private:
    cudaError_t code_;
};

/// There is not enough memory. A search begins anew with fewer rows at once
/// where it meets this, and nothing else makes it do so.
class FAISS_EXT_API OutOfMemory : public faiss::FaissException {
   public:
    using faiss::FaissException::FaissException;
    ~OutOfMemory() override;
};

/// The pool that a PooledGpuResources takes memory from gave none, or none that
/// can be used; with the pool's own text.
class FAISS_EXT_API AllocationError : public OutOfMemory {
   public:
    using OutOfMemory::OutOfMemory;
    ~AllocationError() override;
};

/// Whether `e` says that memory ran out, of the GPU or pinned: an OutOfMemory,
/// a CudaError with cudaErrorMemoryAllocation, or what Faiss throws, which has
/// no type of its own for it (FaissVersion.h).
FAISS_EXT_API bool isOutOfMemory(const faiss::FaissException& e) noexcept;

/// Faiss' InterruptCallback has asked to end the call. (What Faiss' own code
/// throws for it is a plain faiss::FaissException, "interrupted".) Nothing is
/// in flight any more that touches the caller's arrays; the index answers as
/// before. In Python the exception that the callback has left, such as
/// KeyboardInterrupt, takes its place.
class FAISS_EXT_API Interrupted : public faiss::FaissException {
   public:
    using faiss::FaissException::FaissException;
    ~Interrupted() override;
};

/// An argument is no array that this call can take: a null or foreign pointer,
/// a device array shorter than it must be, arrays that overlap. Nothing was
/// read, written or enqueued.
class FAISS_EXT_API InvalidArray : public faiss::FaissException {
   public:
    using faiss::FaissException::FaissException;
    ~InvalidArray() override;
};

/// An argument names a GPU that is not there, or no GPU at all, or resources
/// that do not go with the GPUs named. Nothing was done.
class FAISS_EXT_API InvalidDevice : public faiss::FaissException {
   public:
    using faiss::FaissException::FaissException;
    ~InvalidDevice() override;
};

/// The call asks for something that this index cannot answer (such as a search
/// among selected ids), and that must not be answered with something else.
class FAISS_EXT_API Unsupported : public faiss::FaissException {
   public:
    using faiss::FaissException::FaissException;
    ~Unsupported() override;
};

} // namespace gpu
} // namespace faiss_ext
