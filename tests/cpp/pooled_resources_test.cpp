// PooledGpuResources: all device memory comes from the pool, is given back in
// the order of its stream, and a pool that fails is one clear exception.

#include <faiss_ext/gpu/DeviceBuffer.h>
#include <faiss_ext/gpu/GpuIndexFlat.h>
#include <faiss_ext/gpu/PooledGpuResources.h>

#include <faiss/gpu/GpuDistance.h>
#include <faiss/gpu/GpuIndexFlat.h>

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <thread>

#include "support/Arrays.h"
#include "support/CachingPool.h"
#include "support/Neighbours.h"
#include "support/SimTest.h"

namespace {

using faiss::gpu::AllocRequest;
using faiss::gpu::AllocType;
using faiss::gpu::MemorySpace;
using faiss_ext::gpu::AllocationError;
using faiss_ext::gpu::DeviceAllocator;
using faiss_ext::gpu::DeviceBuffer;
using faiss_ext::gpu::GpuIndexFlatL2;
using faiss_ext::gpu::PooledGpuResources;
using namespace test;

constexpr int kDims = 8;
constexpr int kNearest = 4;
constexpr size_t kQueries = 60;
constexpr size_t kResults = kQueries * kNearest;

class PooledResources : public SimTest {
   protected:
    void SetUp() override {
        SimTest::SetUp();
        cuda_sim_set_device_count(2);
        check(cudaSetDevice(0));
        pool_ = std::make_shared<CachingPool>();
        pooled_ = std::make_unique<PooledGpuResources>(pool_);
        pooled_->setPinnedMemory(1 << 16);
    }

    void TearDown() override {
        pooled_.reset();
        EXPECT_EQ(pool_->bytesInUse(), 0u);
        EXPECT_EQ(pool_->wronglyGivenBack(), 0);
        EXPECT_EQ(pool_.use_count(), 1) << "somebody holds the pool";
        pool_.reset();
        SimTest::TearDown();
    }

    std::unique_ptr<GpuIndexFlatL2> makeIndex(int device = 0) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.device = device;
        auto index =
                std::make_unique<GpuIndexFlatL2>(pooled_.get(), kDims, config);
        index->add(base_.size() / kDims, base_.data());
        return index;
    }

    void expectAnswers(const faiss::gpu::GpuIndexFlatL2& index) {
        Neighbours found{
                std::vector<float>(kResults), std::vector<int64_t>(kResults)};
        index.search(
                kQueries,
                queries_.data(),
                kNearest,
                found.distances.data(),
                found.labels.data());
        check(cudaDeviceSynchronize());
        expectNeighbours(found, oracle_, base_, queries_, kDims, kNearest);
    }

    /// Bytes in use on the GPU, as the resources tell.
    size_t told(int device = 0) const {
        auto info = pooled_->getMemoryInfo();
        size_t sum = 0;
        for (const auto& [type, use] : info[device]) {
            sum += use.second;
        }
        return sum;
    }

    AllocRequest request(
            MemorySpace space,
            size_t bytes,
            cudaStream_t stream,
            int device = 0) {
        return {AllocType::Other, device, space, stream, bytes};
    }

    void* allocate(MemorySpace space, size_t bytes, cudaStream_t stream) {
        return pooled_->getResources()->allocMemory(
                request(space, bytes, stream));
    }

    void giveBack(void* memory, int device = 0) {
        pooled_->getResources()->deallocMemory(device, memory);
    }

    cudaStream_t defaultStream() {
        return pooled_->getDefaultStream(0);
    }

    std::shared_ptr<CachingPool> pool_;
    std::unique_ptr<PooledGpuResources> pooled_;
    const std::vector<float> base_ = randomVectors(300, kDims, 1);
    const std::vector<float> queries_ = randomVectors(kQueries, kDims, 2);
    const Neighbours oracle_ = searchOnCpu(base_, queries_, kDims, kNearest);
};

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
    buffer->lend();
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

TEST_F(PooledResources, one_failing_request_gives_answers_or_one_exception) {
    // Where it is for a tile, smaller tiles do; where it is Faiss', nothing.
    auto index = makeIndex();
    for (int nth = 1; nth <= 12; ++nth) {
        pool_->fail(nth);
        try {
            expectAnswers(*index);
        } catch (const AllocationError&) {
        }
        pool_->fail(0);
        expectAnswers(*index);
    }
}

TEST_F(PooledResources, a_pool_that_runs_out_at_any_request_is_one_exception) {
    auto index = makeIndex();
    const size_t scratch = pooled_->getTempMemoryAvailable(0);
    std::vector<float> distances(kResults);
    std::vector<int64_t> labels(kResults);
    int enough = 0;
    for (bool failed = true; failed; enough += failed) {
        pool_->failAllAfter(enough);
        failed = false;
        try {
            index->search(
                    kQueries,
                    queries_.data(),
                    kNearest,
                    distances.data(),
                    labels.data());
        } catch (const AllocationError& e) {
            failed = true;
            const std::string text = e.what();
            EXPECT_NE(text.find("the pool is exhausted"), text.npos) << text;
            EXPECT_NE(text.find("bytes on GPU 0"), text.npos) << text;
        }
        pool_->fail(0);
        EXPECT_EQ(pooled_->getTempMemoryAvailable(0), scratch);
        EXPECT_EQ(told(), pool_->bytesInUse());
        expectAnswers(*index);
    }
    EXPECT_GE(enough, 1);
}

TEST_F(PooledResources, a_failing_request_orders_what_the_call_gives_back) {
    // As in Faiss' distance computation: scratch of the default stream, used by
    // an alternate one, then a request that fails.
    auto resources = pooled_->getResources();
    const cudaStream_t alternate = resources->getAlternateStreams(0)[0];
    void* scratch = allocate(MemorySpace::Temporary, 4096, defaultStream());
    check(cudaMemsetAsync(scratch, 1, 4096, alternate));
    pool_->fail(1);
    EXPECT_THROW(
            allocate(MemorySpace::Temporary, 512, defaultStream()),
            AllocationError);
    giveBack(scratch);
    void* again = allocate(MemorySpace::Temporary, 4096, defaultStream());
    EXPECT_EQ(again, scratch);
    check(cudaMemsetAsync(again, 2, 4096, defaultStream()));
    giveBack(again);
}

TEST_F(PooledResources, an_index_that_cannot_be_stored_is_one_exception) {
    GpuIndexFlatL2 index(pooled_.get(), kDims);
    pool_->fail(1);
    EXPECT_THROW(
            index.add(base_.size() / kDims, base_.data()), AllocationError);
    EXPECT_EQ(index.ntotal, 0);
    index.add(base_.size() / kDims, base_.data());
    expectAnswers(index);
}

TEST_F(PooledResources, an_add_that_fails_anywhere_leaves_the_former_vectors) {
    const std::vector<float> more = randomVectors(500, kDims, 3);
    for (bool float16 : {false, true}) {
        faiss::gpu::GpuIndexFlatConfig config;
        config.useFloat16 = float16;
        GpuIndexFlatL2 index(pooled_.get(), kDims, config);
        index.add(base_.size() / kDims, base_.data());
        int failures = 0;
        for (bool failed = true; failed; failures += failed) {
            pool_->fail(failures + 1);
            failed = false;
            try {
                index.add(500, more.data());
            } catch (const AllocationError&) {
                failed = true;
                EXPECT_EQ(index.ntotal, 300);
                expectAnswers(index);
            }
        }
        pool_->fail(0);
        EXPECT_EQ(index.ntotal, 800);
        // The vectors, and their norms.
        EXPECT_GE(failures, 2);
    }
}

TEST_F(PooledResources, an_add_that_cannot_be_mended_leaves_an_empty_index) {
    auto index = makeIndex();
    const std::vector<float> more = randomVectors(500, kDims, 3);
    // Room for the new vectors, then these, and nothing more.
    pool_->failAllAfter(2);
    EXPECT_THROW(index->add(500, more.data()), AllocationError);
    pool_->fail(0);
    EXPECT_EQ(index->ntotal, 0);
    index->add(base_.size() / kDims, base_.data());
    expectAnswers(*index);
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
    int current = -1;
    check(cudaGetDevice(&current));
    EXPECT_EQ(current, 0);
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
        int current = -1;
        check(cudaGetDevice(&current));
        EXPECT_EQ(current, device);
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
        int current = -1;
        check(cudaGetDevice(&current));
        EXPECT_EQ(current, 0);
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
    int current = -1;
    check(cudaGetDevice(&current));
    EXPECT_EQ(current, 0);
}

TEST_F(PooledResources, of_a_lost_gpu_that_is_not_current_are_kept) {
    const auto pool = std::make_shared<CachingPool>();
    auto pooled = std::make_unique<PooledGpuResources>(pool);
    const auto resources = pooled->getResources();
    const auto stream = resources->getDefaultStream(1);
    void* memory = resources->allocMemory(
            request(MemorySpace::Device, 256, stream, 1));
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    cudaMemsetAsync(memory, 0, 256, stream);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
    // It is the pool's, whatever became of the GPU.
    resources->deallocMemory(1, memory);
    EXPECT_EQ(pool->bytesInUse(), 0u);
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

/// Gives what it is told to, whatever is asked for.
class WrongPool : public DeviceAllocator {
   public:
    void* allocate(size_t bytes, int device, cudaStream_t stream) override {
        ++lent;
        return give(bytes, device, stream);
    }
    void deallocate(void*, size_t, int, cudaStream_t) noexcept override {
        --lent;
    }

    std::function<void*(size_t, int, cudaStream_t)> give;
    int lent = 0;
};

TEST_F(PooledResources, memory_of_another_kind_or_place_is_refused) {
    auto wrong = std::make_shared<WrongPool>();
    PooledGpuResources resources(wrong);
    resources.setPinnedMemory(0);
    Array<char> here(Memory::Device, 8192);
    Array<char> pageable(Memory::Pageable, 8192);
    check(cudaSetDevice(1));
    Array<char> there(Memory::Device, 8192);
    check(cudaSetDevice(0));
    const std::pair<void*, const char*> cases[] = {
            {there.data(), "memory of GPU 1"},
            {pageable.data(), "host memory"},
            {here.data() + 8, "not aligned"},
            {here.data() + 8192 - 16, "shorter"},
            {nullptr, "address 0"},
    };
    for (const auto& [memory, text] : cases) {
        wrong->lent = 0;
        wrong->give = [memory = memory](size_t, int, cudaStream_t) {
            return memory;
        };
        try {
            resources.getResources()->allocMemory(
                    request(MemorySpace::Device, 4096, nullptr));
            ADD_FAILURE() << text << ": taken";
        } catch (const faiss::FaissException& e) {
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos)
                    << e.what();
        }
        EXPECT_EQ(wrong->lent, memory ? 0 : 1);
    }
}

TEST_F(PooledResources, what_a_pool_leaves_behind_is_cleared) {
    // Another current GPU; an error that Faiss would take for its kernel's.
    auto wrong = std::make_shared<WrongPool>();
    PooledGpuResources resources(wrong);
    resources.setPinnedMemory(0);
    Array<char> memory(Memory::Device, 4096);
    wrong->give = [&](size_t, int, cudaStream_t) {
        void* huge = nullptr;
        EXPECT_NE(cudaMalloc(&huge, size_t(1) << 60), cudaSuccess);
        cudaSetDevice(1);
        return memory.data();
    };
    auto shared = resources.getResources();
    void* given = shared->allocMemory(
            request(MemorySpace::Device, 4096, shared->getDefaultStream(0)));
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
    int current = -1;
    check(cudaGetDevice(&current));
    EXPECT_EQ(current, 0);
    shared->deallocMemory(0, given);
}

} // namespace
