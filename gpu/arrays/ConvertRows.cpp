#include <faiss_ext/gpu/arrays/ConvertRows.h>

#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

namespace {

bool is(const DataType& type, DataType::Kind kind, int bits) {
    return type.kind == kind && type.bits == bits;
}

} // namespace

bool canConvert(const DataType& from, const DataType& to) {
    using Kind = DataType::Kind;
    if (is(to, Kind::Float, 32)) {
        switch (from.kind) {
            case Kind::Float:
                return from.bits >= 16 && from.bits <= 64;
            case Kind::BFloat:
                return from.bits == 16;
            default:
                return from.kind == Kind::Int || from.kind == Kind::UInt;
        }
    }
    if (is(to, Kind::Int, 64)) {
        return is(from, Kind::Int, 64) || is(from, Kind::Int, 32);
    }
    return (is(to, Kind::Float, 16) && is(from, Kind::Float, 32)) ||
           (is(to, Kind::Int, 32) && is(from, Kind::Int, 64));
}

void convertRows(
        const StridedRows& source,
        const DataType& to,
        void* destination,
        cudaStream_t stream) {
    if (!canConvert(source.dtype, to)) {
        throw InvalidArray(
                source.dtype.name() + " is not converted to " + to.name());
    }
    if (source.rows > 0 && source.columns > 0) {
        FAISS_EXT_CUDA_TRY(launchConvertRows(source, to, destination, stream));
    }
}

} // namespace gpu
} // namespace faiss_ext
