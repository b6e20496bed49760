// Moving indexes between CPU and GPU, with Faiss' functions and ours.

#include <faiss_ext/gpu/index/GpuCloner.h>
#include <faiss_ext/gpu/index/GpuIndexFlat.h>

#include <faiss/IndexFlat.h>
#include <faiss/IndexPreTransform.h>
#include <faiss/IndexReplicas.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/VectorTransform.h>
#include <faiss/gpu/GpuCloner.h>

#include <memory>

#include "support/GpuTest.h"
#include "support/Neighbours.h"

namespace {

using faiss_ext::gpu::GpuIndexFlat;
using faiss_ext::gpu::GpuIndexFlatIP;
using faiss_ext::gpu::GpuIndexFlatL2;
using namespace test;

constexpr int kDims = 8;

class ClonerTest : public GpuTest {
   protected:
    const std::vector<float> base_ = randomVectors(70, kDims, 1);
};

TEST_F(ClonerTest, index_cpu_to_gpu_makes_our_class_and_back) {
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        faiss::IndexFlat cpu(kDims, metric);
        cpu.add(70, base_.data());
        std::unique_ptr<faiss::Index> gpu(
                faiss_ext::gpu::index_cpu_to_gpu(&resources(), 0, &cpu));
        ASSERT_TRUE(dynamic_cast<GpuIndexFlat*>(gpu.get()));
        EXPECT_EQ(gpu->ntotal, 70);
        EXPECT_EQ(gpu->metric_type, metric);
        std::unique_ptr<faiss::Index> back(
                faiss::gpu::index_gpu_to_cpu(gpu.get()));
        auto* flat = dynamic_cast<faiss::IndexFlat*>(back.get());
        ASSERT_TRUE(flat);
        EXPECT_EQ(flat->metric_type, metric);
        EXPECT_EQ(
                std::vector<float>(
                        flat->get_xb(), flat->get_xb() + base_.size()),
                base_);
    }
}

TEST_F(ClonerTest, float16_options_and_float16_stores_are_kept) {
    faiss::IndexFlatL2 cpu(kDims);
    cpu.add(70, base_.data());
    faiss::gpu::GpuClonerOptions options;
    options.useFloat16 = true;
    std::unique_ptr<faiss::Index> gpu(
            faiss_ext::gpu::index_cpu_to_gpu(&resources(), 0, &cpu, &options));
    EXPECT_TRUE(dynamic_cast<GpuIndexFlat*>(gpu.get()));

    faiss::IndexScalarQuantizer half(
            kDims, faiss::ScalarQuantizer::QT_fp16, faiss::METRIC_L2);
    half.train(70, base_.data());
    half.add(70, base_.data());
    gpu.reset(faiss_ext::gpu::index_cpu_to_gpu(&resources(), 0, &half));
    ASSERT_TRUE(dynamic_cast<GpuIndexFlat*>(gpu.get()));
    std::vector<float> stored(base_.size());
    gpu->reconstruct_n(0, 70, stored.data());
    EXPECT_EQ(stored, base_);
}

TEST_F(ClonerTest, a_flat_index_inside_another_becomes_ours) {
    auto* flat = new faiss::IndexFlatL2(kDims);
    auto* transform = new faiss::RandomRotationMatrix(kDims, kDims);
    faiss::IndexPreTransform cpu(transform, flat);
    cpu.own_fields = true;
    cpu.train(70, base_.data());
    cpu.add(70, base_.data());
    std::unique_ptr<faiss::Index> gpu(
            faiss_ext::gpu::index_cpu_to_gpu(&resources(), 0, &cpu));
    auto* outer = dynamic_cast<faiss::IndexPreTransform*>(gpu.get());
    ASSERT_TRUE(outer);
    EXPECT_TRUE(dynamic_cast<GpuIndexFlat*>(outer->index));
}

TEST_F(ClonerTest, replicas_and_shards_of_a_flat_index_hold_ours) {
    faiss::IndexFlatL2 cpu(kDims);
    cpu.add(70, base_.data());
    faiss::gpu::StandardGpuResources second;
    std::vector<faiss::gpu::GpuResourcesProvider*> providers{
            &resources(), &second};
    std::vector<int> devices{0, 0};
    const auto queries = randomVectors(30, kDims, 2);
    const auto oracle = searchOnCpu(base_, queries, kDims, 3);
    for (bool shard : {false, true}) {
        faiss::gpu::GpuMultipleClonerOptions options;
        options.shard = shard;
        std::unique_ptr<faiss::Index> gpu(
                faiss_ext::gpu::index_cpu_to_gpu_multiple(
                        providers, devices, &cpu, &options));
        faiss::Index* part =
                shard ? dynamic_cast<faiss::IndexShards&>(*gpu).at(0)
                      : dynamic_cast<faiss::IndexReplicas&>(*gpu).at(0);
        ASSERT_TRUE(dynamic_cast<GpuIndexFlat*>(part));
        Neighbours found{std::vector<float>(90), std::vector<int64_t>(90)};
        gpu->search(
                30,
                queries.data(),
                3,
                found.distances.data(),
                found.labels.data());
        expectNeighbours(found, oracle, base_, queries, kDims, 3);
    }
}

// Faiss merges the results of shards as similarities, if not L2, and gives what
// is missing the distance of the nearest.
TEST_F(ClonerTest, shards_answer_as_one_flat_index_does) {
    faiss::gpu::StandardGpuResources second;
    std::vector<faiss::gpu::GpuResourcesProvider*> providers{
            &resources(), &second};
    std::vector<int> devices{0, 0};
    faiss::gpu::GpuMultipleClonerOptions options;
    options.shard = true;
    const auto queries = randomVectors(5, kDims, 2);
    for (auto metric :
         {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT, faiss::METRIC_L1}) {
        for (int64_t stored : {0, 1, 7, 70}) {
            faiss::IndexFlat cpu(kDims, metric);
            cpu.add(stored, base_.data());
            std::unique_ptr<faiss::Index> gpu(
                    faiss_ext::gpu::index_cpu_to_gpu_multiple(
                            providers, devices, &cpu, &options));
            const std::vector<float> vectors(
                    base_.begin(), base_.begin() + stored * kDims);
            const auto wanted =
                    searchOnCpu(vectors, queries, kDims, 10, metric);
            Neighbours found{std::vector<float>(50), std::vector<int64_t>(50)};
            gpu->search(
                    5,
                    queries.data(),
                    10,
                    found.distances.data(),
                    found.labels.data());
            SCOPED_TRACE(std::to_string(metric) + " " + std::to_string(stored));
            expectNeighbours(
                    found, wanted, vectors, queries, kDims, 10, metric);
            EXPECT_EQ(found.distances, wanted.distances);
        }
    }
}

TEST_F(ClonerTest, copy_from_and_copy_to_keep_every_vector) {
    faiss::IndexFlatIP cpu(kDims);
    cpu.add(70, base_.data());
    GpuIndexFlatIP gpu(&resources(), kDims);
    gpu.copyFrom(&cpu);
    EXPECT_EQ(gpu.ntotal, 70);
    faiss::IndexFlatIP back(kDims);
    gpu.copyTo(&back);
    EXPECT_EQ(
            std::vector<float>(back.get_xb(), back.get_xb() + base_.size()),
            base_);
    faiss::IndexFlatL2 other(kDims);
    EXPECT_THROW(gpu.copyFrom(&other), faiss::FaissException);
}

TEST_F(ClonerTest, constructors_take_what_faiss_constructors_take) {
    faiss::IndexFlatL2 cpu(kDims);
    cpu.add(70, base_.data());
    const auto shared = resources().getResources();
    GpuIndexFlat a(&resources(), &cpu), b(shared, &cpu);
    GpuIndexFlatL2 c(&resources(), &cpu), e(shared, &cpu);
    GpuIndexFlatL2 f(&resources(), kDims), g(shared, kDims);
    GpuIndexFlat h(&resources(), kDims, faiss::METRIC_L1),
            i(shared, kDims, faiss::METRIC_L1);
    for (const faiss::Index* index :
         std::initializer_list<const faiss::Index*>{&a, &b, &c, &e}) {
        EXPECT_EQ(index->ntotal, 70);
    }
    EXPECT_EQ(h.metric_type, faiss::METRIC_L1);
    EXPECT_TRUE(static_cast<faiss::gpu::GpuIndexFlatL2*>(&f));
    EXPECT_EQ(g.getDevice(), 0);
    EXPECT_THROW(GpuIndexFlatL2(&resources(), 0), faiss::FaissException);
}

} // namespace
