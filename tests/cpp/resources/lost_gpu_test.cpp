// A GPU that is lost in the midst of something: one exception, no abort, and
// everything can be destroyed. The sweep of faults (scenarios/FaultSweep.cpp)
// loses it at the calls of this library; here it goes at those of Faiss.

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <faiss/IndexFlat.h>

#include <memory>

#include "support/CachingPool.h"
#include "support/Calls.h"
#include "support/FlatIndexTest.h"

namespace {

using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::PooledGpuResources;
using namespace test;

class LostGpu : public FlatIndexTest {
   protected:
    static void loseAt(const char* function, int nth) {
        cuda_sim_poison_device_at_call(function, nth, cudaErrorIllegalAddress);
    }

    /// The index and then the resources end, which Faiss' would abort at.
    void end(std::unique_ptr<Index> index, int device = 0) {
        EXPECT_EQ(
                cudaStreamQuery(defaultStream(device)),
                cudaErrorIllegalAddress);
        const std::weak_ptr<faiss::gpu::GpuResources> kept =
                resources_->getResources();
        index.reset();
        resources_.reset();
        EXPECT_FALSE(kept.expired());
        expectCurrent(0);
        EXPECT_EQ(cudaSetDevice(device), cudaErrorIllegalAddress);
        check(cudaDeviceReset());
        check(cudaSetDevice(0));
        resources_ = std::make_unique<faiss::gpu::StandardGpuResources>();
    }

    const std::vector<float> more_ = randomVectors(3 * kVectors, kDims, 3);
};

TEST_F(LostGpu, while_a_search_asks_for_memory_is_an_error_of_cuda) {
    // For queries and results; those that Faiss has not set aside.
    for (int nth : {1, 2}) {
        resources_->noTempMemory();
        auto index = makeIndex(0);
        loseAt("cudaMalloc", nth);
        EXPECT_THROW(searchAndExpectRight(*index), CudaError);
        end(std::move(index));
    }
}

TEST_F(LostGpu, while_faiss_asks_for_memory_is_an_error_of_cuda) {
    // Everything is in place, so that Faiss' scratch is asked for first.
    resources_->noTempMemory();
    auto index = makeIndex(0);
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, kQueries * kNearest);
    Array<int64_t> labels(Memory::Device, kQueries * kNearest);
    loseAt("cudaMalloc", 1);
    EXPECT_THROW(
            index->search(
                    kQueries,
                    x.data(),
                    kNearest,
                    distances.data(),
                    labels.data()),
            CudaError);
    end(std::move(index));
}

TEST_F(LostGpu, while_queries_are_converted_is_an_error_of_cuda) {
    faiss::gpu::GpuIndexFlatConfig storage;
    storage.useFloat16 = true;
    TunedConfig config;
    config.search = "faiss";
    auto index =
            std::make_unique<Index>(resources_.get(), kDims, storage, config);
    index->add(kVectors, base_.data());
    loseAt("kernel:convertRowsKernel", 1);
    EXPECT_THROW(searchAndExpectRight(*index), CudaError);
    end(std::move(index));
}

TEST_F(LostGpu, while_vectors_are_added_is_not_touched_again) {
    // At the memory for all vectors, for the new ones, and for their norms.
    for (int nth : {1, 2, 3}) {
        auto index = makeIndex(0);
        loseAt("cudaMalloc", nth);
        EXPECT_THROW(
                index->add(3 * kVectors, more_.data()), faiss::FaissException);
        end(std::move(index));
    }
}

TEST_F(LostGpu, while_a_failed_add_is_undone_is_not_touched_again) {
    for (bool first : {false, true}) {
        auto index = first ? std::make_unique<Index>(
                                     resources_.get(),
                                     kDims,
                                     faiss::gpu::GpuIndexFlatConfig())
                           : makeIndex(0);
        // No memory for the norms; then the wait for the vectors.
        cuda_sim_fail_call(
                "cudaMalloc", first ? 2 : 3, cudaErrorMemoryAllocation);
        loseAt("cudaStreamSynchronize", 1);
        EXPECT_THROW(
                index->add(3 * kVectors, more_.data()), faiss::FaissException);
        end(std::move(index));
    }
}

TEST_F(LostGpu, while_an_index_is_copied_is_not_touched_again) {
    faiss::IndexFlatL2 cpu(kDims);
    cpu.add(3 * kVectors, more_.data());
    for (int nth : {1, 2}) {
        auto index = makeIndex(0);
        loseAt("cudaMalloc", nth);
        EXPECT_THROW(index->copyFrom(&cpu), faiss::FaissException);
        end(std::move(index));
    }
}

TEST_F(LostGpu, that_is_not_current_leaves_the_current_one) {
    auto index = makeIndex(9, 1);
    auto distances = onGpu<float>(1, kResults);
    auto labels = onGpu<int64_t>(1, kResults);
    search(*index, queries_.data(), distances.data(), labels.data());
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    EXPECT_THROW(index->reset(), CudaError);
    expectCurrent(0);
    end(std::move(index), 1);
}

TEST_F(LostGpu, keeps_no_other_one_from_its_calls) {
    // Though what its call left in flight could not be waited for.
    auto lost = makeIndex(0, 1);
    auto other = makeIndex(0, 0);
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    EXPECT_THROW(searchAndExpectRight(*lost), CudaError);
    for (int i = 0; i < 2; ++i) {
        searchAndExpectRight(*other);
    }
    // In this order: Faiss frees with cudaFree, which waits for every GPU.
    end(std::move(lost), 1);
    other.reset();
}

TEST_F(LostGpu, while_blocks_are_exchanged_for_larger_ones_keeps_them) {
    // Faiss' resources would abort the process when they could not free them.
    resources_->noTempMemory();
    TunedConfig config;
    config.tileRows = 10;
    const auto search = [&](Index& index, int64_t k) {
        std::vector<float> distances(kQueries * k);
        std::vector<int64_t> labels(kQueries * k);
        index.search(
                kQueries, queries_.data(), k, distances.data(), labels.data());
    };
    auto index = std::make_unique<Index>(
            resources_.get(), kDims, faiss::gpu::GpuIndexFlatConfig(), config);
    index->add(kVectors, base_.data());
    search(*index, 1);
    loseAt("libfaiss_ext/cudaEventQuery", 1);
    EXPECT_THROW(search(*index, kVectors), CudaError);
    end(std::move(index));
}

TEST_F(LostGpu, at_the_last_call_of_pooled_resources_keeps_them) {
    const auto pool = std::make_shared<CachingPool>();
    {
        PooledGpuResources pooled(pool);
        const auto resources = pooled.getResources();
        resources->deallocMemory(
                0,
                resources->allocMemory(
                        {faiss::gpu::AllocType::Other,
                         0,
                         faiss::gpu::MemorySpace::Device,
                         resources->getDefaultStream(0),
                         256}));
        loseAt("libfaiss_ext/cudaStreamDestroy", 1);
    }
    EXPECT_EQ(pool.use_count(), 2) << "theirs is kept with them";
    EXPECT_EQ(pool->bytesInUse(), 0u);
    check(cudaDeviceReset());
}

} // namespace
