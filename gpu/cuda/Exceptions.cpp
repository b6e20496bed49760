#include <faiss_ext/gpu/cuda/Exceptions.h>

#include <faiss_ext/gpu/faiss/FaissVersion.h>
#include <faiss_ext/gpu/threads/ProcessLife.h>

namespace faiss_ext {
namespace gpu {

CudaError::CudaError(cudaError_t code, const std::string& doing)
        : faiss::FaissException(
                  doing + ": " + cudaGetErrorString(code) + " (" +
                  cudaGetErrorName(code) + ")" +
                  (code == cudaErrorInitializationError ? adviceAfterFork()
                                                        : "")),
          code_(code) {}

// Out of line, so that the type information of each class has one home and an
// exception is caught by its type across library boundaries.
OutOfMemory::~OutOfMemory() = default;
AllocationError::~AllocationError() = default;
Interrupted::~Interrupted() = default;
InvalidArray::~InvalidArray() = default;
InvalidDevice::~InvalidDevice() = default;
Unsupported::~Unsupported() = default;

bool isOutOfMemory(const faiss::FaissException& e) noexcept {
    if (dynamic_cast<const OutOfMemory*>(&e)) {
        return true;
    }
    if (const auto* error = dynamic_cast<const CudaError*>(&e)) {
        return error->code() == cudaErrorMemoryAllocation;
    }
    return saysOutOfMemory(e.what());
}

} // namespace gpu
} // namespace faiss_ext
