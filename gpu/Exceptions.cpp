#include <faiss_ext/gpu/Exceptions.h>

namespace faiss_ext {
namespace gpu {

CudaError::CudaError(cudaError_t code, const std::string& doing)
        : faiss::FaissException(
                  doing + ": " + cudaGetErrorString(code) + " (" +
                  cudaGetErrorName(code) + ")"),
          code_(code) {}

// Out of line, so that the type information of each class has one home and an
// exception is caught by its type across library boundaries.
AllocationError::~AllocationError() = default;
InvalidArray::~InvalidArray() = default;
InvalidDevice::~InvalidDevice() = default;
Unsupported::~Unsupported() = default;

} // namespace gpu
} // namespace faiss_ext
