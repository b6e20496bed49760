#include <faiss_ext/gpu/call/RowArrays.h>

#include <limits>
#include <string>
#include <utility>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>

namespace faiss_ext {
namespace gpu {

namespace {

// What cudaMalloc guarantees, so all that Faiss' kernels can count on.
constexpr size_t kAlignment = 256;

/// Where the GPU has what the host has at `pinned`.
char* mapped(void* pinned) {
    void* address = nullptr;
    FAISS_EXT_CUDA_TRY(cudaHostGetDevicePointer(&address, pinned, 0));
    return static_cast<char*>(address);
}

size_t alignUp(size_t bytes) {
    return roundUp(bytes, kAlignment);
}

} // namespace

RowArrays::RowArrays(Direction direction, idx_t n, int device)
        : direction_(direction), n_(n), device_(device) {}

void RowArrays::add(const char* name, const void* data, size_t rowBytes) {
    if (!data && direction_ == Direction::ToDevice) {
        throw InvalidArray(std::string(name) + " is null");
    }
    append(name,
           static_cast<char*>(const_cast<void*>(data)),
           rowBytes,
           rowBytes,
           false);
}

void RowArrays::addBehindLast(const char* name, size_t rowBytes) {
    const Array& last = arrays_.back();
    append(name,
           last.data + n_ * last.rowBytes,
           rowBytes,
           last.rowBytes + rowBytes,
           true);
}

/// `allRowBytes`: of the arrays from the first one of the allocation on, which
/// must hold them all.
void RowArrays::append(
        const char* name,
        char* data,
        size_t rowBytes,
        size_t allRowBytes,
        bool behindLast) {
    if (static_cast<size_t>(n_) >
        std::numeric_limits<ptrdiff_t>::max() / allRowBytes) {
        throw InvalidArray(
                std::string(name) + " would have " + std::to_string(n_) +
                " rows of " + std::to_string(allRowBytes) +
                " bytes, more than memory can hold");
    }
    Array array{
            name,
            data,
            rowBytes,
            {MemoryKind::Device, device_},
            Route::Dropped,
            behindLast,
            0};
    if (data) {
        array.place = placementOf(
                data - n_ * (allRowBytes - rowBytes), n_ * allRowBytes, name);
        if (array.place.onDevice(device_)) {
            array.route = Route::InPlace;
        } else if (array.place.kind == MemoryKind::Pageable) {
            array.route = Route::ThroughPinned;
        } else {
            array.route = Route::Copied;
        }
    }
    if (array.route != Route::InPlace) {
        stagedRowBytes_ += rowBytes;
    }
    if (array.route == Route::ThroughPinned) {
        pinnedRowBytes_ += rowBytes;
    }
    if (array.place.onHost()) {
        hostRowBytes_ += rowBytes;
        anyOnHost_ = true;
    }
    arrays_.push_back(array);
}

void RowArrays::refuseOverlap(const RowArrays& other) const {
    for (const Array& a : arrays_) {
        for (const Array& b : other.arrays_) {
            if (&a == &b || !a.data || !b.data) {
                continue;
            }
            if (a.data < b.data + n_ * b.rowBytes &&
                b.data < a.data + n_ * a.rowBytes) {
                throw InvalidArray(
                        std::string(a.name) + " and " + b.name +
                        " overlap in memory");
            }
        }
    }
}

size_t RowArrays::mapHost(char* pinned) {
    mapped_ = true;
    if (pinned) {
        passage_ = mapped(pinned);
    }
    size_t rowBytes = pinnedRowBytes_;
    for (Array& array : arrays_) {
        if (array.route == Route::Copied &&
            array.place.kind == MemoryKind::Pinned) {
            array.data = mapped(array.data);
            array.route = Route::InPlace;
            rowBytes += array.rowBytes;
        }
    }
    return rowBytes;
}

/// Whether the tile's rows of `array` and of the one before it are one stretch
/// of memory, which the GPU copies: so they are if the tile is all there is.
bool RowArrays::joinsLast(const Array& array) const {
    return array.behindLast && rows_ == n_ && array.route == Route::Copied &&
           (&array - 1)->route == Route::Copied;
}

void RowArrays::layOut(idx_t rows) {
    rows_ = rows;
    packedBytes_ = 0;
    for (Array& array : arrays_) {
        if (array.route == Route::ThroughPinned) {
            array.offset = packedBytes_;
            packedBytes_ += rows * array.rowBytes;
        }
    }
    gap_ = direction_ == Direction::ToDevice &&
                           rows * stagedRowBytes_ >= tuning::kGapFromBytes
                   ? tuning::kInputGap
                   : 0;
    blockBytes_ = gap_ + (mapped_ ? 0 : packedBytes_);
    for (Array& array : arrays_) {
        if (array.route == Route::Copied || array.route == Route::Dropped) {
            array.offset =
                    joinsLast(array) ? blockBytes_ : alignUp(blockBytes_);
            blockBytes_ = array.offset + rows * array.rowBytes;
        }
    }
}

std::vector<HostCopy> RowArrays::hostCopies(idx_t first, char* pinned) const {
    std::vector<HostCopy> copies;
    for (const Array& array : arrays_) {
        if (array.route != Route::ThroughPinned) {
            continue;
        }
        char* const rows = array.data + first * array.rowBytes;
        char* const passing = pinned + array.offset;
        const size_t bytes = rows_ * array.rowBytes;
        if (direction_ == Direction::ToDevice) {
            copies.push_back(
                    {passing, rows, bytes, bytes >= tuning::kPastCachesBytes});
        } else {
            copies.push_back({rows, passing, bytes});
        }
    }
    return copies;
}

std::vector<DeviceCopy> RowArrays::deviceCopies(
        idx_t first, char* block, char* pinned) const {
    std::vector<DeviceCopy> copies;
    const MemoryPlacement gpu{MemoryKind::Device, device_};
    const auto add = [&](char* inBlock,
                         char* outside,
                         const MemoryPlacement& place,
                         size_t bytes) {
        if (direction_ == Direction::ToDevice) {
            copies.push_back({inBlock, gpu, outside, place, bytes});
        } else {
            copies.push_back({outside, place, inBlock, gpu, bytes});
        }
    };
    if (packedBytes_ > 0 && !mapped_) {
        add(block + gap_, pinned, {MemoryKind::Pinned, -1}, packedBytes_);
    }
    for (const Array& array : arrays_) {
        if (joinsLast(array)) {
            copies.back().bytes += rows_ * array.rowBytes;
        } else if (array.route == Route::Copied) {
            add(block + array.offset,
                array.data + first * array.rowBytes,
                array.place,
                rows_ * array.rowBytes);
        }
    }
    return copies;
}

std::vector<void*> RowArrays::devicePointers(
        idx_t first, char* block, idx_t within) const {
    char* passage = mapped_ ? passage_ : block + gap_;
    std::vector<void*> pointers;
    for (const Array& array : arrays_) {
        char* rows = array.route == Route::InPlace
                             ? array.data + first * array.rowBytes
                     : array.route == Route::ThroughPinned
                             ? passage + array.offset
                             : block + array.offset;
        pointers.push_back(rows + within * array.rowBytes);
    }
    return pointers;
}

} // namespace gpu
} // namespace faiss_ext
