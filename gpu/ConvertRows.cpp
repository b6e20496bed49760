#include <faiss_ext/gpu/ConvertRows.h>

#include <faiss_ext/gpu/CudaCheck.h>
#include <faiss_ext/gpu/Exceptions.h>

namespace faiss_ext {
namespace gpu {

bool convertsToFloat32(const DataType& dtype) {
    switch (dtype.kind) {
        case DataType::Kind::Float:
            return dtype.bits == 16 || dtype.bits == 32;
        case DataType::Kind::BFloat:
            return dtype.bits == 16;
        case DataType::Kind::Int:
        case DataType::Kind::UInt:
            return dtype.bits == 8;
        default:
            return false;
    }
}

void toFloat32(
        const StridedRows& source, float* destination, cudaStream_t stream) {
    if (!convertsToFloat32(source.dtype)) {
        throw InvalidArray(
                source.dtype.name() + " is not converted to float32");
    }
    if (source.rows > 0 && source.columns > 0) {
        FAISS_EXT_CUDA_TRY(launchToFloat32(source, destination, stream));
    }
}

} // namespace gpu
} // namespace faiss_ext
