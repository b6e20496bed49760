#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/gpu/utils/DeviceUtils.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Devices.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/MemoryPlacement.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>

namespace faiss_ext {
namespace gpu {

namespace {

using faiss::gpu::AllocRequest;
using faiss::gpu::AllocType;
using faiss::gpu::MemorySpace;

/// What cudaMalloc aligns to, and Faiss rounds up to.
constexpr size_t kGranularity = 256;

/// What Faiss asks of any memory (GpuResources::allocMemory).
constexpr size_t kAlignment = 16;

/// The most that Faiss reserves for scratch (StandardGpuResources.cpp).
constexpr size_t kMostScratch = size_t(1536) << 20;

constexpr size_t kFaissDefault = std::numeric_limits<size_t>::max();

} // namespace

/// Faiss' resources with the allocations replaced. Derived from them, and not a
/// GpuResources that refers to one, so that it has whatever else the interface
/// has in this version of Faiss.
class PooledGpuResources::Impl : public faiss::gpu::StandardGpuResourcesImpl {
   public:
    explicit Impl(std::shared_ptr<DeviceAllocator> allocator)
            : allocator_(std::move(allocator)) {
        FAISS_THROW_IF_NOT_MSG(allocator_, "no DeviceAllocator given");
        // Of Faiss' own.
        StandardGpuResourcesImpl::setTempMemory(0);
    }

    /// The deleter: where a CUDA context is lost, Faiss' destructor would abort
    /// the process, so nothing is destroyed.
    static void end(Impl* impl) {
        const RelaxedCapture relaxed;
        const std::shared_ptr<Impl> owner(impl);
        if (lostByFork()) {
            keepForEver(owner);
            return;
        }
        // One of Faiss' own on each GPU.
        std::vector<cudaStream_t> streams;
        for (const auto& [device, gpu] : impl->gpus_) {
            streams.push_back(impl->getAsyncCopyStream(device));
            waitForDevice(device);
            // Of whoever used the resources without owning them.
            CodeOfOthers current;
            FAISS_EXT_CUDA_NOTHROW(cudaSetDevice(device));
            for (const auto& [memory, block] : gpu.blocks) {
                impl->giveBack(memory, block, device);
            }
        }
        impl->gpus_.clear();
        // Asked after the last CUDA call of ours.
        if (std::any_of(streams.begin(), streams.end(), contextLost)) {
            keepForEver(owner);
        }
    }

    /// Whatever asks for a GPU comes by here first.
    void initializeForDevice(int device) override {
        check(device);
        StandardGpuResourcesImpl::initializeForDevice(device);
    }

    void setDefaultStream(int device, cudaStream_t stream) override {
        check(device);
        StandardGpuResourcesImpl::setDefaultStream(device, stream);
    }

    void* allocMemory(const AllocRequest& request) override {
        initializeForDevice(request.device);
        if (request.size == 0) {
            return nullptr;
        }
        if (request.space == MemorySpace::Unified) {
            return StandardGpuResourcesImpl::allocMemory(request);
        }
        DeviceGuard current(request.device);
        Gpu& gpu = gpuOf(request.device);
        try {
            return allocate(gpu, request);
        } catch (...) {
            // The exception frees the scratch of the call, in the order of the
            // default stream: other streams may be working on it.
            orderAfterFaiss(
                    request.device, getDefaultStream(request.device), gpu);
            throw;
        }
    }

    void deallocMemory(int device, void* memory) override {
        if (!memory) {
            return;
        }
        const std::optional<Block> block = forget(device, memory);
        if (!block) {
            StandardGpuResourcesImpl::deallocMemory(device, memory);
            return;
        }
        try {
            DeviceGuard current(device);
            if (!block->scratch) {
                orderAfterFaiss(device, block->stream, gpuOf(device));
            }
            giveBack(memory, *block, device);
        } catch (const CudaError&) {
            // The context is lost: nothing uses the memory any more.
            giveBack(memory, *block, device);
        }
    }

    size_t getTempMemoryAvailable(int device) const override {
        check(device);
        std::lock_guard<std::mutex> guard(lock_);
        return scratchLeft(device);
    }

    void setScratch(size_t bytes) {
        std::lock_guard<std::mutex> guard(lock_);
        scratchBound_ = bytes;
    }

    std::map<int, std::map<std::string, std::pair<int, size_t>>> memoryInfo()
            const {
        // Managed memory is counted there.
        auto info = getMemoryInfo();
        std::lock_guard<std::mutex> guard(lock_);
        for (const auto& [device, gpu] : gpus_) {
            auto& types = info[device];
            for (const auto& entry : gpu.blocks) {
                const Block& block = entry.second;
                auto& [count, bytes] =
                        types[faiss::gpu::allocTypeToString(block.type)];
                ++count;
                bytes += block.bytes;
            }
        }
        return info;
    }

    /// That the GPU is there; asks CUDA only about new ones.
    void check(int device) const {
        if (device < 0 || device >= known_.load(std::memory_order_relaxed)) {
            checkDevice(device, "device");
            known_.store(device + 1, std::memory_order_relaxed);
        }
    }

   private:
    struct Block {
        AllocType type;
        bool scratch;
        size_t bytes;
        cudaStream_t stream;
    };

    struct Gpu {
        std::unordered_map<void*, Block> blocks;
        size_t scratch = 0;
        /// What outlives a call is allocated and given back on it.
        Stream storage;
        /// Recorded and waited for again and again.
        Event mark;
    };

    void* allocate(Gpu& gpu, const AllocRequest& request) {
        const int device = request.device;
        FAISS_THROW_IF_NOT_FMT(
                request.size <=
                        std::numeric_limits<size_t>::max() - kGranularity,
                "%zu bytes are no size of an allocation",
                request.size);
        Block block;
        block.scratch = request.space == MemorySpace::Temporary;
        block.type = request.type;
        block.bytes = roundUp(request.size, kGranularity);
        block.stream = block.scratch ? request.stream : gpu.storage.get();
        if (block.scratch && block.bytes > getTempMemoryAvailable(device)) {
            block.type = AllocType::TemporaryMemoryOverflow;
        }
        void* memory = take(block, device);
        try {
            if (block.scratch) {
                // Faiss' paged search writes scratch from its copy stream
                // without asking whether the memory is free in that order.
                gpu.mark.record(request.stream);
                gpu.mark.orderBefore(getAsyncCopyStream(device));
            } else {
                gpu.mark.record(block.stream);
                gpu.mark.orderBefore(request.stream);
                if (request.stream != getDefaultStream(device)) {
                    // Faiss does not always order such a stream before the one
                    // that uses the memory next: cudaMalloc's memory is free
                    // everywhere at once.
                    gpu.mark.wait();
                }
            }
            remember(gpu, memory, block);
        } catch (...) {
            giveBack(memory, block, device);
            throw;
        }
        return memory;
    }

    /// Memory that is what the pool was asked for.
    void* take(const Block& block, int device) {
        void* memory = ask(block, device);
        try {
            checkMemory(memory, block, device);
        } catch (...) {
            giveBack(memory, block, device);
            throw;
        }
        return memory;
    }

    void* ask(const Block& block, int device) {
        std::string problem = "it gave address 0";
        void* memory = nullptr;
        {
            // Also where the pool then found memory elsewhere, an allocation
            // that failed leaves its error behind.
            CodeOfOthers pool;
            try {
                memory =
                        allocator_->allocate(block.bytes, device, block.stream);
            } catch (const Interrupted&) {
                throw;
            } catch (const std::exception& e) {
                problem = e.what();
            }
        }
        if (!memory) {
            throwIfContextLost(block.stream);
            throw AllocationError(
                    "the pool did not give " + describe(block, device) + ": " +
                    problem);
        }
        return memory;
    }

    static void checkMemory(void* memory, const Block& block, int device) {
        std::string found;
        if (reinterpret_cast<uintptr_t>(memory) % kAlignment != 0) {
            found = "memory that is not aligned to 16 bytes";
        } else {
            const auto place = placementOf(memory, block.bytes, "memory");
            if (place.kind == MemoryKind::Managed || place.onDevice(device)) {
                return;
            }
            found = place.onHost()
                            ? "host memory"
                            : "memory of GPU " + std::to_string(place.device);
        }
        throw AllocationError(
                "the pool was asked for " + describe(block, device) +
                " and gave " + found);
    }

    static std::string describe(const Block& block, int device) {
        return std::to_string(block.bytes) + " bytes on GPU " +
               std::to_string(device) + " (" +
               faiss::gpu::allocTypeToString(block.type) + ")";
    }

    void giveBack(void* memory, const Block& block, int device) noexcept {
        CodeOfOthers pool;
        allocator_->deallocate(memory, block.bytes, device, block.stream);
    }

    /// Lets `stream` go on after what all streams of Faiss hold now; where no
    /// event can say so, the host waits for the GPU.
    void orderAfterFaiss(int device, cudaStream_t stream, Gpu& gpu) noexcept {
        try {
            auto streams = getAlternateStreams(device);
            streams.push_back(getAsyncCopyStream(device));
            streams.push_back(getDefaultStream(device));
            for (cudaStream_t earlier : streams) {
                if (earlier != stream) {
                    gpu.mark.record(earlier);
                    gpu.mark.orderBefore(stream);
                }
            }
        } catch (const std::exception&) {
            waitForDevice(device);
        }
    }

    /// The state of a GPU, which is current.
    Gpu& gpuOf(int device) {
        std::lock_guard<std::mutex> guard(lock_);
        return gpus_[device];
    }

    void remember(Gpu& gpu, void* memory, const Block& block) {
        std::lock_guard<std::mutex> guard(lock_);
        gpu.blocks.emplace(memory, block);
        gpu.scratch += block.scratch ? block.bytes : 0;
    }

    std::optional<Block> forget(int device, void* memory) {
        std::lock_guard<std::mutex> guard(lock_);
        auto gpu = gpus_.find(device);
        if (gpu == gpus_.end()) {
            return std::nullopt;
        }
        auto found = gpu->second.blocks.find(memory);
        if (found == gpu->second.blocks.end()) {
            return std::nullopt;
        }
        const Block block = found->second;
        gpu->second.blocks.erase(found);
        gpu->second.scratch -= block.scratch ? block.bytes : 0;
        return block;
    }

    size_t scratchLeft(int device) const {
        const size_t bound =
                scratchBound_ != kFaissDefault
                        ? scratchBound_
                        : std::min(
                                  kMostScratch,
                                  faiss::gpu::getDeviceProperties(device)
                                                  .totalGlobalMem /
                                          8);
        const auto gpu = gpus_.find(device);
        const size_t used = gpu == gpus_.end() ? 0 : gpu->second.scratch;
        return bound - std::min(bound, used);
    }

    const std::shared_ptr<DeviceAllocator> allocator_;
    /// GPUs below it are there.
    mutable std::atomic<int> known_{0};

    /// Of what follows; never held while the allocator is called, which may end
    /// the life of other users of these resources.
    mutable std::mutex lock_;
    std::unordered_map<int, Gpu> gpus_;
    size_t scratchBound_ = kFaissDefault;
};

DeviceAllocator::~DeviceAllocator() = default;

PooledGpuResources::PooledGpuResources(
        std::shared_ptr<DeviceAllocator> allocator)
        : impl_(new Impl(std::move(allocator)), Impl::end) {}

PooledGpuResources::~PooledGpuResources() = default;

std::shared_ptr<faiss::gpu::GpuResources> PooledGpuResources::getResources() {
    return impl_;
}

bool PooledGpuResources::made(const faiss::gpu::GpuResources* resources) {
    return dynamic_cast<const Impl*>(resources) != nullptr;
}

void PooledGpuResources::setTempMemory(size_t bytes) {
    impl_->setScratch(bytes);
}

void PooledGpuResources::noTempMemory() {
    impl_->setScratch(0);
}

size_t PooledGpuResources::getTempMemoryAvailable(int device) const {
    return impl_->getTempMemoryAvailable(device);
}

void PooledGpuResources::setPinnedMemory(size_t bytes) {
    impl_->setPinnedMemory(bytes);
}

void PooledGpuResources::setDefaultStream(int device, cudaStream_t stream) {
    impl_->setDefaultStream(device, stream);
}

void PooledGpuResources::revertDefaultStream(int device) {
    impl_->check(device);
    impl_->revertDefaultStream(device);
}

void PooledGpuResources::setDefaultNullStreamAllDevices() {
    impl_->setDefaultNullStreamAllDevices();
}

cudaStream_t PooledGpuResources::getDefaultStream(int device) {
    // The first question makes Faiss allocate.
    const RelaxedCapture relaxed;
    return impl_->getDefaultStream(device);
}

void PooledGpuResources::syncDefaultStreamCurrentDevice() {
    const RelaxedCapture relaxed;
    impl_->syncDefaultStreamCurrentDevice();
}

std::map<int, std::map<std::string, std::pair<int, size_t>>>
PooledGpuResources::getMemoryInfo() const {
    return impl_->memoryInfo();
}

} // namespace gpu
} // namespace faiss_ext
