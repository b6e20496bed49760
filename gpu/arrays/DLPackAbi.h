#pragma once

#include <cstddef>
#include <cstdint>

/// The binary interface of DLPack 1.x, as its specification lays it out: what a
/// library hands over when it lends an array, and the functions that it may
/// offer for that. Layout only; the values are another library's and may be
/// anything. DLPackView.h reads them.

namespace faiss_ext {
namespace gpu {
namespace dlpack {

/// Where the memory is: values of Device::type.
constexpr int32_t kCpu = 1;
constexpr int32_t kCuda = 2;
constexpr int32_t kCudaHost = 3;
constexpr int32_t kCudaManaged = 13;

/// What the bits mean: values of ElementType::code.
constexpr uint8_t kInt = 0;
constexpr uint8_t kUInt = 1;
constexpr uint8_t kFloat = 2;
constexpr uint8_t kBFloat = 4;
constexpr uint8_t kComplex = 5;
constexpr uint8_t kBool = 6;

/// Bits of VersionedTensor::flags.
constexpr uint64_t kReadOnly = 1;
constexpr uint64_t kCopied = 2;

/// The version that is read and written here. Another minor version has the
/// same layout; another major one may only be given to its deleter.
constexpr uint32_t kMajor = 1;
constexpr uint32_t kMinor = 0;

struct Device {
    int32_t type;
    int32_t id;
};

struct ElementType {
    uint8_t code;
    uint8_t bits;
    /// Numbers in a vector element; 1 for plain arrays.
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t rank;
    ElementType dtype;
    int64_t* shape;
    /// In elements; nullptr: row-major without gaps.
    int64_t* strides;
    /// From data to the first element.
    uint64_t byteOffset;
};

/// Before version 1.0.
struct PlainTensor {
    Tensor tensor;
    void* context;
    void (*deleter)(PlainTensor* self);
};

struct Version {
    uint32_t major;
    uint32_t minor;
};

/// From version 1.0 on. The members up to `deleter` are the same in every
/// version to come.
struct VersionedTensor {
    Version version;
    void* context;
    void (*deleter)(VersionedTensor* self);
    uint64_t flags;
    Tensor tensor;
};

/// What every version of ExchangeTable begins with.
struct ExchangeHeader {
    Version version;
    /// The table of an older version, or nullptr.
    const ExchangeHeader* previous;
};

/// From version 1.3 on: C functions by which a library lends its arrays without
/// a method call. A type offers them as `__dlpack_c_exchange_api__`, a capsule
/// named "dlpack_exchange_api", for the life of the process. Objects are those
/// of the library's language. Each returns 0, or else has failed, with an
/// exception of that language; none throws, and none orders any stream.
struct ExchangeTable {
    ExchangeHeader header;
    /// A new array of the shape, type and device of `like`.
    int (*allocate)(
            Tensor* like,
            VersionedTensor** made,
            void* context,
            void (*fail)(void* context, const char* kind, const char* text));
    /// As `__dlpack__`: the tensor is the caller's, who answers for its
    /// deleter.
    int (*lend)(void* object, VersionedTensor** lent);
    /// The reverse.
    int (*take)(VersionedTensor* tensor, void** object);
    /// Describes the array for as long as nobody changes it. May be nullptr.
    int (*describe)(void* object, Tensor* described);
    /// The stream, of a device of Device::type and number, on which the library
    /// works now, in the calling thread.
    int (*currentStream)(int32_t type, int32_t number, void** stream);
};

static_assert(sizeof(Device) == 8 && sizeof(ElementType) == 4, "packed");
static_assert(
        sizeof(void*) != 8 ||
                (sizeof(Tensor) == 48 && offsetof(Tensor, rank) == 16 &&
                 offsetof(Tensor, dtype) == 20 &&
                 offsetof(Tensor, shape) == 24 &&
                 offsetof(Tensor, byteOffset) == 40),
        "the layout of DLPack's tensor");
static_assert(
        sizeof(void*) != 8 ||
                (sizeof(PlainTensor) == 64 && sizeof(VersionedTensor) == 80 &&
                 offsetof(VersionedTensor, tensor) == 32),
        "the layout of DLPack's owners");
static_assert(
        sizeof(void*) != 8 || (sizeof(ExchangeTable) == 56 &&
                               offsetof(ExchangeTable, allocate) == 16 &&
                               offsetof(ExchangeTable, lend) == 24 &&
                               offsetof(ExchangeTable, currentStream) == 48),
        "the layout of DLPack's table of functions");

} // namespace dlpack
} // namespace gpu
} // namespace faiss_ext
