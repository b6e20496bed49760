// PooledGpuResources: all device memory comes from the pool, and is given back
// in the order of its stream.

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>
#include <faiss_ext/gpu/resources/DeviceBuffer.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <faiss/gpu/GpuDistance.h>
#include <faiss/gpu/GpuIndexFlat.h>

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <thread>

#include "support/PooledTest.h"

namespace {

using faiss_ext::gpu::DeviceBuffer;
using namespace test;

using PooledResources = PooledTest;

TEST_F(PooledResources, all_device_memory_comes_from_the_pool_and_returns) {
    const auto before = counts();
    {
        auto index = makeIndex();
        expectAnswers(*index);
        index->add(base_.size() / kDims, base_.data());
        index->reset();
        index->add(base_.size() / kDims, base_.data());
        expectAnswers(*index);
        EXPECT_GE(pool_->bytesInUse(), base_.size() * sizeof(float));
        EXPECT_EQ(told(), pool_->bytesInUse());
    }
    EXPECT_EQ(pool_->bytesInUse(), 0u);
    EXPECT_EQ(told(), 0u);
    // The pool's own: one for each size that it had not cached.
    EXPECT_LE(
            counts().allocs_device - before.allocs_device,
            static_cast<uint64_t>(pool_->requests()));
    EXPECT_EQ(counts().allocs_managed, before.allocs_managed);
}

TEST_F(PooledResources, without_use_nothing_is_held) {
    pooled_->getDefaultStream(0);
    EXPECT_EQ(pool_->requests(), 0);
    EXPECT_EQ(cuda_sim_counter("live_device"), 0u);
}

TEST_F(PooledResources, serve_stock_indexes_and_brute_force_too) {
    faiss::gpu::GpuIndexFlatL2 index(pooled_.get(), kDims);
    index.add(base_.size() / kDims, base_.data());
    expectAnswers(index);
    const int requests = pool_->requests();
    Neighbours found{
            std::vector<float>(kResults), std::vector<int64_t>(kResults)};
    faiss::gpu::GpuDistanceParams params;
    params.k = kNearest;
    params.dims = kDims;
    params.vectors = base_.data();
    params.numVectors = base_.size() / kDims;
    params.queries = queries_.data();
    params.numQueries = kQueries;
    params.outDistances = found.distances.data();
    params.outIndices = found.labels.data();
    faiss::gpu::bfKnn(pooled_.get(), params);
    check(cudaDeviceSynchronize());
    expectNeighbours(found, oracle_, base_, queries_, kDims, kNearest);
    EXPECT_GT(pool_->requests(), requests);
}

TEST_F(PooledResources, paged_searches_of_stock_indexes_write_free_memory) {
    // Faiss writes the pages from its copy stream, into memory that its default
    // stream has just given back.
    faiss::gpu::GpuIndexFlatL2 index(pooled_.get(), kDims);
    index.setMinPagingSize(256);
    index.add(base_.size() / kDims, base_.data());
    const size_t page = (1 << 16) / 2;
    void* former[2];
    for (void*& memory : former) {
        memory = allocate(MemorySpace::Temporary, page, defaultStream());
        check(cudaMemsetAsync(memory, 1, page, defaultStream()));
    }
    giveBack(former[1]);
    giveBack(former[0]);
    expectAnswers(index);
}

TEST_F(PooledResources, scratch_belongs_to_the_stream_of_the_work) {
    cudaStream_t users;
    check(cudaStreamCreateWithFlags(&users, cudaStreamNonBlocking));
    for (cudaStream_t stream : {defaultStream(), users}) {
        pooled_->setDefaultStream(0, stream);
        void* scratch = allocate(MemorySpace::Temporary, 1000, stream);
        EXPECT_EQ(pool_->inUse()[scratch].stream, stream);
        EXPECT_EQ(pool_->inUse()[scratch].bytes, 1024u);
        giveBack(scratch);
        void* stored = allocate(MemorySpace::Device, 1000, stream);
        EXPECT_NE(pool_->inUse()[stored].stream, stream);
        giveBack(stored);
    }
    pooled_->revertDefaultStream(0);
    check(cudaStreamDestroy(users));
}

TEST_F(PooledResources, stored_vectors_outlive_the_users_stream) {
    cudaStream_t users;
    check(cudaStreamCreateWithFlags(&users, cudaStreamNonBlocking));
    pooled_->setDefaultStream(0, users);
    auto index = makeIndex();
    expectAnswers(*index);
    pooled_->revertDefaultStream(0);
    check(cudaStreamSynchronize(users));
    check(cudaStreamDestroy(users));
    expectAnswers(*index);
    index.reset();
    expectAnswers(*makeIndex());
}

TEST_F(PooledResources, memory_in_use_on_any_stream_of_faiss_is_not_lent) {
    auto resources = pooled_->getResources();
    auto streams = resources->getAlternateStreams(0);
    streams.push_back(resources->getAsyncCopyStream(0));
    streams.push_back(defaultStream());
    for (cudaStream_t stream : streams) {
        void* memory = allocate(MemorySpace::Device, 4096, defaultStream());
        check(cudaDeviceSynchronize());
        cuda_sim_hold_stream(stream);
        check(cudaMemsetAsync(memory, 1, 4096, stream));
        const auto waits = hostWaits();
        giveBack(memory);
        void* again = allocate(MemorySpace::Device, 4096, defaultStream());
        EXPECT_EQ(again, memory);
        check(cudaMemsetAsync(again, 2, 4096, defaultStream()));
        EXPECT_EQ(hostWaits(), waits) << "the host need not wait";
        cuda_sim_release_stream(stream);
        giveBack(again);
        check(cudaDeviceSynchronize());
    }
}

TEST_F(PooledResources, memory_asked_for_on_a_foreign_stream_is_free_at_once) {
    void* memory = allocate(MemorySpace::Device, 4096, defaultStream());
    check(cudaMemsetAsync(memory, 1, 4096, defaultStream()));
    giveBack(memory);
    // As Faiss' scalar quantizer does, and then uses it on the default stream.
    void* again = allocate(MemorySpace::Device, 4096, nullptr);
    EXPECT_EQ(again, memory);
    check(cudaMemsetAsync(
            again, 2, 4096, pooled_->getResources()->getAsyncCopyStream(0)));
    giveBack(again);
}

TEST_F(PooledResources, lent_buffers_wait_for_streams_that_nobody_knows) {
    cudaStream_t readers;
    check(cudaStreamCreateWithFlags(&readers, cudaStreamNonBlocking));
    Array<char> copy(Memory::Device, 4096);
    auto buffer =
            std::make_unique<DeviceBuffer>(pooled_->getResources(), 0, 4096);
    buffer->share();
    check(cudaMemsetAsync(buffer->data(), 1, 4096, buffer->stream()));
    faiss_ext::gpu::Event written;
    written.record(buffer->stream());
    written.orderBefore(readers);
    check(cudaMemcpyAsync(
            copy.data(), buffer->data(), 4096, cudaMemcpyDefault, readers));
    buffer.reset();
    void* again = allocate(MemorySpace::Device, 4096, defaultStream());
    check(cudaMemsetAsync(again, 2, 4096, defaultStream()));
    giveBack(again);
    EXPECT_EQ(copy.get(), std::vector<char>(4096, 1));
    check(cudaStreamDestroy(readers));
}

TEST_F(PooledResources, the_bound_is_what_faiss_is_told) {
    pooled_->setTempMemory(1 << 20);
    EXPECT_EQ(pooled_->getTempMemoryAvailable(0), size_t(1) << 20);
    void* small = allocate(MemorySpace::Temporary, 1000, defaultStream());
    EXPECT_EQ(pooled_->getTempMemoryAvailable(0), (1 << 20) - 1024);
    void* large = allocate(MemorySpace::Temporary, 1 << 21, defaultStream());
    EXPECT_EQ(pooled_->getTempMemoryAvailable(0), 0u);
    const auto info = pooled_->getMemoryInfo().at(0);
    EXPECT_EQ(info.at("Other"), std::make_pair(1, size_t(1024)));
    EXPECT_EQ(
            info.at("TemporaryMemoryOverflow"),
            std::make_pair(1, size_t(1) << 21));
    giveBack(large);
    giveBack(small);
    EXPECT_EQ(pooled_->getTempMemoryAvailable(0), size_t(1) << 20);
    pooled_->noTempMemory();
    EXPECT_EQ(pooled_->getTempMemoryAvailable(0), 0u);
    expectAnswers(*makeIndex());
}

TEST_F(PooledResources, managed_memory_stays_faiss_own) {
    void* managed = allocate(MemorySpace::Unified, 1000, defaultStream());
    EXPECT_EQ(pool_->requests(), 0);
    EXPECT_EQ(told(), 1024u);
    giveBack(managed);
    EXPECT_EQ(told(), 0u);
}

TEST_F(PooledResources, nothing_is_asked_for_no_bytes) {
    EXPECT_EQ(allocate(MemorySpace::Device, 0, defaultStream()), nullptr);
    giveBack(nullptr);
    EXPECT_EQ(pool_->requests(), 0);
}

TEST_F(PooledResources, each_gpu_has_memory_of_its_own) {
    {
        auto first = makeIndex(0);
        auto second = makeIndex(1);
        expectAnswers(*first);
        check(cudaSetDevice(1));
        expectAnswers(*second);
        check(cudaSetDevice(0));
        std::set<int> devices;
        for (const auto& [memory, block] : pool_->inUse()) {
            devices.insert(block.device);
            cudaPointerAttributes attributes{};
            check(cudaPointerGetAttributes(&attributes, memory));
            EXPECT_EQ(attributes.device, block.device);
        }
        EXPECT_EQ(devices, (std::set<int>{0, 1}));
        EXPECT_GT(told(0), 0u);
        EXPECT_EQ(told(0) + told(1), pool_->bytesInUse());
    }
    expectCurrent(0);
}

TEST_F(PooledResources, the_pool_lives_until_the_last_index_is_gone) {
    auto index = makeIndex();
    pooled_ = std::make_unique<PooledGpuResources>(pool_);
    std::weak_ptr<CachingPool> pool = pool_;
    pooled_.reset();
    pool_.reset();
    expectAnswers(*index);
    EXPECT_FALSE(pool.expired());
    index.reset();
    EXPECT_TRUE(pool.expired());
    pool_ = std::make_shared<CachingPool>();
}

/// Looks which GPU is current where memory comes back.
class WatchingPool : public CachingPool {
   public:
    void deallocate(
            void* memory,
            size_t bytes,
            int device,
            cudaStream_t stream) noexcept override {
        expectCurrent(device);
        CachingPool::deallocate(memory, bytes, device, stream);
    }
};

TEST_F(PooledResources, give_and_take_memory_of_a_gpu_that_is_not_current) {
    const auto pool = std::make_shared<WatchingPool>();
    PooledGpuResources pooled(pool);
    // A stream that belongs to whichever GPU is current.
    pooled.setDefaultStream(1, cudaStreamLegacy);
    const auto resources = pooled.getResources();
    for (MemorySpace space : {MemorySpace::Temporary, MemorySpace::Device}) {
        const auto before = hostWaits();
        void* memory = resources->allocMemory(
                request(space, 256, resources->getDefaultStream(1), 1));
        resources->deallocMemory(1, memory);
        // Streams of two GPUs are not joined by one event: the host would wait.
        EXPECT_EQ(hostWaits(), before);
        expectCurrent(0);
    }
}

TEST_F(PooledResources, what_nobody_gave_back_ends_with_its_gpu_current) {
    const auto pool = std::make_shared<WatchingPool>();
    {
        PooledGpuResources resources(pool);
        for (int device : {0, 1}) {
            resources.getResources()->allocMemory(
                    request(MemorySpace::Device,
                            4096,
                            resources.getDefaultStream(device),
                            device));
        }
    }
    EXPECT_EQ(pool->bytesInUse(), 0u);
    expectCurrent(0);
}

TEST_F(PooledResources, end_after_the_work_of_their_streams) {
    // Their handles may be given to new streams, to which the pool would lend
    // what they gave back. (Freeing pinned memory waits, too.)
    pooled_->setPinnedMemory(0);
    auto resources = pooled_->getResources();
    void* scratch = allocate(MemorySpace::Temporary, 4096, defaultStream());
    check(cudaMemsetAsync(scratch, 1, 4096, defaultStream()));
    giveBack(scratch);
    EXPECT_GT(cuda_sim_pending(), 0u);
    resources.reset();
    pooled_.reset();
    EXPECT_EQ(cuda_sim_pending(), 0u);
}

TEST_F(PooledResources, may_be_asked_by_other_threads_while_one_uses_them) {
    for (int round = 0; round < 20; ++round) {
        PooledGpuResources shared(pool_);
        std::atomic<bool> done{false};
        std::thread asking([&] {
            do {
                shared.getMemoryInfo();
                shared.getTempMemoryAvailable(0);
            } while (!done);
        });
        std::thread setting([&] {
            do {
                shared.setTempMemory(1 << 20);
                shared.getTempMemoryAvailable(0);
            } while (!done);
        });
        auto resources = shared.getResources();
        const auto stream = shared.getDefaultStream(0);
        for (int i = 0; i < 20; ++i) {
            for (auto space : {MemorySpace::Temporary, MemorySpace::Device}) {
                resources->deallocMemory(
                        0,
                        resources->allocMemory(request(space, 4096, stream)));
            }
        }
        done = true;
        asking.join();
        setting.join();
        EXPECT_EQ(shared.getTempMemoryAvailable(0), size_t(1) << 20);
    }
}

TEST_F(PooledResources, need_an_allocator) {
    EXPECT_THROW(PooledGpuResources(nullptr), faiss::FaissException);
}

} // namespace
