#include <faiss_ext/gpu/call/RowArrays.h>

#include <faiss/impl/FaissAssert.h>

#include <limits>
#include <string>

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
    FAISS_THROW_IF_NOT(arrays_.size() < BlockLayout::kMostArrays);
    if (!data && direction_ == Direction::ToDevice) {
        throw InvalidArray(std::string(name) + " is null");
    }
    if (static_cast<size_t>(n_) >
        std::numeric_limits<ptrdiff_t>::max() / rowBytes) {
        throw InvalidArray(
                std::string(name) + " would have " + std::to_string(n_) +
                " rows of " + std::to_string(rowBytes) +
                " bytes, more than memory can hold");
    }
    Array array{
            name,
            static_cast<char*>(const_cast<void*>(data)),
            rowBytes,
            {MemoryKind::Device, device_},
            Route::Dropped};
    if (data) {
        array.place = placementOf(data, n_ * rowBytes, name);
        if (array.place.onDevice(device_)) {
            array.route = Route::InPlace;
        } else if (array.place.kind == MemoryKind::Pageable) {
            array.route = Route::ThroughPinned;
        } else {
            array.route = Route::Copied;
        }
    }
    if (array.route != Route::InPlace) {
        rowBytes_.staged += rowBytes;
    }
    if (array.route == Route::ThroughPinned) {
        rowBytes_.pinned += rowBytes;
    }
    if (array.place.onHost()) {
        rowBytes_.onHost += rowBytes;
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
    size_t rowBytes = rowBytes_.pinned;
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

BlockLayout RowArrays::layOut(idx_t rows) const {
    BlockLayout tile;
    tile.rows = rows;
    for (size_t i = 0; i < arrays_.size(); ++i) {
        if (arrays_[i].route == Route::ThroughPinned) {
            tile.offsets[i] = tile.packedBytes;
            tile.packedBytes += rows * arrays_[i].rowBytes;
        }
    }
    tile.blockBytes = mapped_ ? 0 : tile.packedBytes;
    for (size_t i = 0; i < arrays_.size(); ++i) {
        const Route route = arrays_[i].route;
        if (route == Route::Copied || route == Route::Dropped) {
            tile.offsets[i] = alignUp(tile.blockBytes);
            tile.blockBytes = tile.offsets[i] + rows * arrays_[i].rowBytes;
        }
    }
    return tile;
}

std::vector<HostCopy> RowArrays::hostCopies(
        const BlockLayout& tile, idx_t first, char* pinned) const {
    std::vector<HostCopy> copies;
    for (size_t i = 0; i < arrays_.size(); ++i) {
        const Array& array = arrays_[i];
        if (array.route != Route::ThroughPinned) {
            continue;
        }
        char* const rows = array.data + first * array.rowBytes;
        char* const passing = pinned + tile.offsets[i];
        const size_t bytes = tile.rows * array.rowBytes;
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
        const BlockLayout& tile, idx_t first, char* block, char* pinned) const {
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
    if (tile.packedBytes > 0 && !mapped_) {
        add(block, pinned, {MemoryKind::Pinned, -1}, tile.packedBytes);
    }
    for (size_t i = 0; i < arrays_.size(); ++i) {
        const Array& array = arrays_[i];
        if (array.route == Route::Copied) {
            add(block + tile.offsets[i],
                array.data + first * array.rowBytes,
                array.place,
                tile.rows * array.rowBytes);
        }
    }
    return copies;
}

std::array<void*, BlockLayout::kMostArrays> RowArrays::devicePointers(
        const BlockLayout& tile, idx_t first, char* block, idx_t within) const {
    std::array<void*, BlockLayout::kMostArrays> pointers{};
    for (size_t i = 0; i < arrays_.size(); ++i) {
        const Array& array = arrays_[i];
        char* rows = array.route == Route::InPlace
                             ? array.data + first * array.rowBytes
                     : array.route == Route::ThroughPinned && mapped_
                             ? passage_ + tile.offsets[i]
                             : block + tile.offsets[i];
        pointers[i] = rows + within * array.rowBytes;
    }
    return pointers;
}

} // namespace gpu
} // namespace faiss_ext
