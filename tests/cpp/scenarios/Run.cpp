#include "Run.h"

#include <cuda_sim_exact.h>
#include <faiss_ext/gpu/compute/TensorCoreSelfTest.h>
#include <faiss_ext/gpu/resources/ResourcesLock.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace scenarios {

void require(bool holds, const std::string& otherwise) {
    if (!holds) {
        throw Mismatch(otherwise);
    }
}

void cuda(cudaError_t status) {
    if (status != cudaSuccess) {
        throw OwnCallFailed(cudaGetErrorString(status));
    }
}

namespace {

uint64_t faissFrom = 0;

} // namespace

FaissAtWork::FaissAtWork() {
    faissFrom =
            cuda_sim_counter("operations_executed") + cuda_sim_pending() + 1;
}

FaissAtWork::~FaissAtWork() {
    faissFrom = 0;
}

uint64_t FaissAtWork::firstOperation() {
    return faissFrom;
}

Buffer::Buffer(Memory memory, size_t bytes) : memory_(memory), bytes_(bytes) {
    void* data = nullptr;
    switch (memory) {
        case Memory::Pageable:
            data = makePages();
            break;
        case Memory::Pinned:
            cuda(cudaHostAlloc(&data, bytes, cudaHostAllocDefault));
            break;
        case Memory::Managed:
            cuda(cudaMallocManaged(&data, bytes, cudaMemAttachGlobal));
            break;
        case Memory::Device:
            cuda(cudaMalloc(&data, bytes));
            break;
        case Memory::OtherDevice:
            cuda(cudaSetDevice(1));
            cuda(cudaMalloc(&data, bytes));
            cuda(cudaSetDevice(0));
            break;
    }
    data_ = static_cast<char*>(data);
}

Buffer::~Buffer() {
    switch (memory_) {
        case Memory::Pageable:
            munmap(pages_, pageBytes_);
            break;
        case Memory::Pinned:
            cudaFreeHost(data_);
            break;
        default:
            cudaFree(data_);
    }
}

/// What it returns ends where the last page, which is out of bounds, begins;
/// but for what the largest element type needs to be aligned.
char* Buffer::makePages() {
    constexpr size_t kPage = 4096;
    const size_t used = (bytes_ + kPage - 1) / kPage * kPage;
    pageBytes_ = used + kPage;
    void* pages =
            mmap(nullptr,
                 pageBytes_,
                 PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS,
                 -1,
                 0);
    require(pages != MAP_FAILED, "no memory");
    pages_ = static_cast<char*>(pages);
    require(mprotect(pages_ + used, kPage, PROT_NONE) == 0, "no guard page");
    return pages_ + (used - bytes_) / sizeof(int64_t) * sizeof(int64_t);
}

void Buffer::forbid() {
    require(mprotect(pages_, pageBytes_, PROT_NONE) == 0, "still there");
}

void Buffer::hostWrite(const Bytes& values) {
    cuda_sim_host_access(data_, bytes_, 1);
    std::memcpy(data_, values.data(), bytes_);
}

Bytes Buffer::hostRead() const {
    cuda_sim_host_access(data_, bytes_, 0);
    return Bytes(data_, data_ + bytes_);
}

void Buffer::streamWrite(const Bytes& values, cudaStream_t stream) {
    // From pageable memory: read before the call returns, on any CUDA.
    cuda(cudaMemcpyAsync(
            data_, values.data(), bytes_, cudaMemcpyDefault, stream));
}

Bytes Buffer::streamRead(cudaStream_t stream) const {
    Buffer pinned(Memory::Pinned, bytes_);
    cuda(cudaMemcpyAsync(
            pinned.data(), data_, bytes_, cudaMemcpyDefault, stream));
    cuda(cudaStreamSynchronize(stream));
    return pinned.hostRead();
}

Run::Run(uint64_t seed) : seed_(seed), random_(seed * 2654435761u + 1) {
    cuda_sim_reset();
    cuda_sim_set_exact_faults(nullptr);
    cuda_sim_set_device_count(2);
    for (int device : {0, 1}) {
        // A run is the same whatever ran before.
        faiss_ext::gpu::rememberSelfTest(device, true);
    }
    cuda_sim_set_seed(seed);
    // Half of the runs at random, the other policies in turns.
    constexpr int kPolicies[] = {
            CUDA_SIM_RANDOM,
            CUDA_SIM_REVERSE,
            CUDA_SIM_RANDOM,
            CUDA_SIM_AS_LATE_AS_POSSIBLE,
            CUDA_SIM_RANDOM,
            CUDA_SIM_STARVE,
            CUDA_SIM_RANDOM,
            CUDA_SIM_IN_ORDER,
    };
    cuda_sim_set_policy(kPolicies[seed % 8]);
    cuda_sim_set_pageable_h2d(coin());
    cuda_sim_set_pageable_d2h(coin());
    cuda_sim_set_copy_pieces(oneOf({1, 2, 3, 7}));
    faissTemporary_ = oneOf<size_t>({0, 4096, size_t(1) << 20});
    faissPinned_ = oneOf<size_t>({0, 65536, size_t(1) << 20});
    pooled_ = coin();
}

Run::~Run() {
    tearDown();
    cuda_sim_set_exact_faults(nullptr);
}

void Run::makeExactMistakes() {
    cuda_sim_exact_faults faults{};
    faults.extra_survivors = oneOf({0, 0, 3});
    faults.overflow = oneOf({0, 0, 1, 2});
    faults.small_cuts = oneOf({0, 0, 1});
    faults.small_guesses = oneOf({0, 0, 1});
    faults.score_error = oneOf({0.0, 3.9});
    faults.small_guesses = oneOf({0, 0, 1});
    cuda_sim_set_exact_faults(&faults);
}

int Run::pick(int low, int high) {
    // Not std::uniform_int_distribution, which differs between libraries: a
    // seed means the same run everywhere.
    return low + static_cast<int>(random_() % (high - low + 1));
}

Memory Run::hostMemory() {
    return oneOf({Memory::Pageable, Memory::Pinned, Memory::Managed});
}

Memory Run::anyMemory() {
    return oneOf(
            {Memory::Pageable,
             Memory::Pinned,
             Memory::Managed,
             Memory::Device});
}

std::vector<float> Run::vectors(size_t n, size_t d) {
    std::vector<float> values(n * d);
    for (float& value : values) {
        value = static_cast<float>(pick(-7, 7));
    }
    return values;
}

std::shared_ptr<Buffer> Run::buffer(Memory memory, size_t bytes) {
    buffers_.push_back(std::make_shared<Buffer>(memory, bytes));
    return buffers_.back();
}

std::shared_ptr<Buffer> Run::buffer(Memory memory, const Bytes& values) {
    auto made = buffer(memory, values.size());
    if (onHost(memory)) {
        made->hostWrite(values);
    } else {
        made->streamWrite(values, cudaStreamPerThread);
        cuda(cudaStreamSynchronize(cudaStreamPerThread));
    }
    return made;
}

std::shared_ptr<faiss::gpu::StandardGpuResourcesImpl> Run::resources(int i) {
    while (resources_.size() <= static_cast<size_t>(i)) {
        auto made = makeResources();
        resources_.push_back(made);
        if (i == 0) {
            cuda_sim_starve_stream(
                    coin() ? made->getDefaultStream(0)
                           : made->getAsyncCopyStream(0));
            whenReady_();
        }
    }
    return resources_[i];
}

std::shared_ptr<faiss::gpu::StandardGpuResourcesImpl> Run::makeResources() {
    using faiss::gpu::StandardGpuResourcesImpl;
    std::shared_ptr<StandardGpuResourcesImpl> made;
    if (pooled_) {
        if (!pool_) {
            pool_ = std::make_shared<test::CachingPool>();
        }
        faiss_ext::gpu::PooledGpuResources pooled(pool_);
        pooled.setTempMemory(faissTemporary_);
        made = std::dynamic_pointer_cast<StandardGpuResourcesImpl>(
                pooled.getResources());
    } else {
        made = std::make_shared<StandardGpuResourcesImpl>();
        made->setTempMemory(faissTemporary_);
    }
    made->setPinnedMemory(faissPinned_);
    return made;
}

cudaStream_t Run::stream() {
    cudaStream_t made = nullptr;
    cuda(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    streams_.push_back(made);
    return made;
}

void Run::settle() {
    for (size_t i = 0; i < checks_.size(); ++i) {
        checks_[i]();
    }
    checks_.clear();
}

void Run::answersAfterFault() {
    for (size_t i = 0; i < afterFault_.size(); ++i) {
        afterFault_[i]();
    }
}

void Run::end() {
    settle();
    tearDown();
    require(poolIsWhole_, "the pool did not get back what it lent");
    require(cuda_sim_pending() == 0, "work is left on the GPU");
    cuda_sim_report_leaks();
    std::string reports;
    for (size_t i = 0; i < cuda_sim_check(); ++i) {
        reports += std::string("\n  ") + cuda_sim_report(i);
    }
    require(reports.empty(), "the simulator reports:" + reports);
}

void Run::tearDownAfterLoss() {
    const auto keepThoseOfNobody = [this] {
        for (auto& resources : resources_) {
            if (resources.use_count() == 1) {
                faiss_ext::gpu::keepForEver(resources);
            }
        }
    };
    keepThoseOfNobody();
    if (pooled_) {
        // An index gives its vectors back to the pool, in the order of its
        // streams, when it has made sure for the last time that the device is
        // there.
        owners_.clear();
        keepThoseOfNobody();
    }
    tearDown();
}

void Run::tearDown() {
    checks_.clear();
    afterFault_.clear();
    // Indexes first: their destructors must not need anybody's help.
    owners_.clear();
    for (int device : {1, 0}) {
        cudaSetDevice(device);
        cudaDeviceSynchronize();
    }
    buffers_.clear();
    for (cudaStream_t stream : streams_) {
        cudaStreamDestroy(stream);
    }
    streams_.clear();
    resources_.clear();
    poolIsWhole_ = !pool_ ||
                   (pool_->inUse().empty() && pool_->wronglyGivenBack() == 0);
    pool_.reset();
}

} // namespace scenarios
