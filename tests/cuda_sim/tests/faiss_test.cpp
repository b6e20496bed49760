// Faiss itself, unmodified, on the simulator: its answers, its memory, its
// order.

#include <cuda_fp16.h>
#include <faiss/IndexFlat.h>
#include <faiss/gpu/GpuDistance.h>
#include <faiss/gpu/GpuIndexFlat.h>
#include <faiss/gpu/StandardGpuResources.h>
#include <faiss/utils/distances.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "../kernels/Versions.h"
#include "sim_test.h"

using namespace conformance;
using cuda_sim::contains;
using cuda_sim::idx_t;

namespace {

constexpr int kDims = 24, kVectors = 200, kQueries = 30, kK = 10;

std::vector<float> randomRows(size_t rows, int seed) {
    std::mt19937 rng(seed);
    std::uniform_real_distribution<float> uniform(0.1f, 1);
    std::vector<float> values(rows * kDims);
    for (auto& value : values) {
        value = uniform(rng);
    }
    return values;
}

std::vector<float> roundToHalf(std::vector<float> values) {
    for (auto& value : values) {
        value = __half2float(__float2half(value));
    }
    return values;
}

struct Results {
    explicit Results(size_t n = kQueries, int k = kK)
            : distances(n * k, -7), labels(n * k, -7) {}
    std::vector<float> distances;
    std::vector<idx_t> labels;

    bool operator==(const Results& other) const {
        return labels == other.labels &&
               !memcmp(distances.data(),
                       other.distances.data(),
                       distances.size() * sizeof(float));
    }
};

/// Of Faiss on the CPU, query by query: it takes another path for many.
Results expected(
        const std::vector<float>& vectors,
        const std::vector<float>& queries,
        int k = kK,
        faiss::MetricType metric = faiss::METRIC_L2,
        float arg = 0) {
    faiss::IndexFlat index(kDims, metric);
    index.metric_arg = arg;
    index.add(vectors.size() / kDims, vectors.data());
    size_t n = queries.size() / kDims;
    Results results(n, k);
    for (size_t i = 0; i < n; ++i) {
        index.search(
                1,
                queries.data() + i * kDims,
                k,
                results.distances.data() + i * k,
                results.labels.data() + i * k);
    }
    return results;
}

class FaissTest : public cuda_sim::SimTest {
   protected:
    std::vector<float> vectors = randomRows(kVectors, 1);
    std::vector<float> queries = randomRows(kQueries, 2);
};

TEST_F(FaissTest, resources_cost_little) {
    {
        faiss::gpu::StandardGpuResources().getResources()->initializeForDevice(
                0);
    }
    auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 100; ++i) {
        faiss::gpu::StandardGpuResources resources;
        resources.getResources()->initializeForDevice(0);
    }
    std::chrono::duration<double, std::milli> time =
            std::chrono::steady_clock::now() - start;
    // 1.5 GiB and 256 MiB each; a generous bound for a loaded machine.
    EXPECT_LT(time.count() / 100, 20);
}

TEST_F(FaissTest, search_gives_the_answer_of_the_cpu) {
    for (int policy = 0; policy < 5; ++policy) {
        cuda_sim_set_policy(policy);
        faiss::gpu::StandardGpuResources resources;
        faiss::gpu::GpuIndexFlatL2 index(&resources, kDims);
        index.add(kVectors / 2, vectors.data());
        index.add(kVectors / 2, vectors.data() + kVectors / 2 * kDims);
        Results results;
        index.search(
                kQueries,
                queries.data(),
                kK,
                results.distances.data(),
                results.labels.data());
        EXPECT_EQ(expected(vectors, queries), results);
    }
}

TEST_F(FaissTest, search_counts_what_faiss_is_known_to_do) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatL2 index(&resources, kDims);
    index.add(kVectors, vectors.data());
    CHECK_CUDA(cudaDeviceSynchronize());
    cuda_sim_reset_counters();
    Results results;
    index.search(
            kQueries,
            queries.data(),
            kK,
            results.distances.data(),
            results.labels.data());
    cuda_sim_stats s;
    cuda_sim_get_stats(&s);
    // Up go the queries, and the outputs, which hold nothing yet.
    EXPECT_EQ(3u, s.copies_h2d_pageable);
    EXPECT_EQ(kQueries * (4u * kDims + 12u * kK), s.bytes_h2d_pageable);
    EXPECT_EQ(2u, s.copies_d2h_pageable);
    EXPECT_EQ(2u, s.waits_pageable);
    EXPECT_EQ(0u, s.allocs_device);
}

// As seen on a GPU: Thrust converts the labels of Faiss 1.7.3, and waits.
TEST_F(FaissTest, search_of_device_arrays_waits_where_labels_are_converted) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatL2 index(&resources, kDims);
    index.add(kVectors, vectors.data());
    auto x = onDevice<float>(kQueries * kDims);
    auto distances = onDevice<float>(kQueries * kK);
    auto labels = onDevice<idx_t>(kQueries * kK);
    CHECK_CUDA(cudaMemcpy(
            x.get(), queries.data(), x.bytes(), cudaMemcpyHostToDevice));
    CHECK_CUDA(cudaDeviceSynchronize());
    const bool converts = CUDA_SIM_FAISS_VERSION < 10704;
    cuda_sim_reset_counters();
    index.search(kQueries, x.get(), kK, distances.get(), labels.get());
    EXPECT_EQ(converts ? 1u : 0u, cuda_sim_calls("cudaStreamSynchronize"));
    EXPECT_EQ(!converts, cuda_sim_is_poison(labels.get(), labels.bytes()));
    CHECK_CUDA(cudaStreamSynchronize(resources.getDefaultStream(0)));
    Results results;
    CHECK_CUDA(cudaMemcpy(
            results.distances.data(),
            distances.get(),
            distances.bytes(),
            cudaMemcpyDeviceToHost));
    CHECK_CUDA(cudaMemcpy(
            results.labels.data(),
            labels.get(),
            labels.bytes(),
            cudaMemcpyDeviceToHost));
    EXPECT_EQ(expected(vectors, queries), results);
}

TEST_F(FaissTest, queries_of_another_stream_need_an_event) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatL2 index(&resources, kDims);
    index.add(kVectors, vectors.data());
    auto x = onDevice<float>(kQueries * kDims);
    auto distances = onDevice<float>(kQueries * kK);
    auto labels = onDevice<idx_t>(kQueries * kK);
    Stream producer;
    CHECK_CUDA(cudaMemcpyAsync(
            x.get(),
            queries.data(),
            x.bytes(),
            cudaMemcpyHostToDevice,
            producer));
    index.search(kQueries, x.get(), kK, distances.get(), labels.get());
    auto text = takeReport(CUDA_SIM_REPORT_RACE);
    EXPECT_TRUE(contains(text, "read by kernel:bfKnnOnDevice")) << text;
    CHECK_CUDA(cudaDeviceSynchronize());
}

TEST_F(FaissTest, all_metrics) {
    faiss::gpu::StandardGpuResources resources;
    struct {
        faiss::MetricType metric;
        float arg;
    } const cases[] = {
            {faiss::METRIC_INNER_PRODUCT, 0},
            {faiss::METRIC_L1, 0},
            {faiss::METRIC_Linf, 0},
            {faiss::METRIC_Lp, 3},
            {faiss::METRIC_Canberra, 0},
            {faiss::METRIC_BrayCurtis, 0},
            {faiss::METRIC_JensenShannon, 0},
    };
    for (auto& c : cases) {
        faiss::gpu::GpuIndexFlat index(&resources, kDims, c.metric);
        index.metric_arg = c.arg;
        index.add(kVectors, vectors.data());
        Results results;
        index.search(
                kQueries,
                queries.data(),
                kK,
                results.distances.data(),
                results.labels.data());
        EXPECT_EQ(expected(vectors, queries, kK, c.metric, c.arg), results)
                << c.metric;
    }
}

TEST_F(FaissTest, half_storage_rounds_correctly) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatConfig config;
    config.useFloat16 = true;
    faiss::gpu::GpuIndexFlatL2 index(&resources, kDims, config);
    index.add(kVectors, vectors.data());
    Results results;
    index.search(
            kQueries,
            queries.data(),
            kK,
            results.distances.data(),
            results.labels.data());
    EXPECT_EQ(expected(roundToHalf(vectors), roundToHalf(queries)), results);
    std::vector<float> back(kVectors * kDims);
    index.reconstruct_n(0, kVectors, back.data());
    EXPECT_EQ(roundToHalf(vectors), back);
}

TEST_F(FaissTest, what_is_no_number_is_treated_as_on_the_cpu) {
    faiss::gpu::StandardGpuResources resources;
    vectors[3 * kDims] = std::numeric_limits<float>::quiet_NaN();
    vectors[4 * kDims] = std::numeric_limits<float>::infinity();
    queries[1 * kDims] = std::numeric_limits<float>::quiet_NaN();
    queries[2 * kDims] = -std::numeric_limits<float>::infinity();
    for (auto metric : {faiss::METRIC_L2, faiss::METRIC_INNER_PRODUCT}) {
        faiss::gpu::GpuIndexFlat index(&resources, kDims, metric);
        index.add(kVectors, vectors.data());
        Results results;
        index.search(
                kQueries,
                queries.data(),
                kK,
                results.distances.data(),
                results.labels.data());
        EXPECT_EQ(expected(vectors, queries, kK, metric), results) << metric;
    }
}

TEST_F(FaissTest, an_empty_index_and_a_k_beyond_its_end) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatIP index(&resources, kDims);
    Results empty(1);
    index.search(
            1, queries.data(), kK, empty.distances.data(), empty.labels.data());
    EXPECT_EQ(std::vector<idx_t>(kK, -1), empty.labels);
    EXPECT_EQ(std::numeric_limits<float>::max(), empty.distances[0]);

    index.add(3, vectors.data());
    Results few(1);
    index.search(
            1, queries.data(), kK, few.distances.data(), few.labels.data());
    EXPECT_NE(-1, few.labels[2]);
    EXPECT_EQ(-1, few.labels[3]);
    EXPECT_EQ(std::numeric_limits<float>::lowest(), few.distances[3]);

    faiss::gpu::GpuIndexFlatL2 l2(&resources, kDims);
    l2.add(3, vectors.data());
    l2.search(1, queries.data(), kK, few.distances.data(), few.labels.data());
    EXPECT_EQ(-1, few.labels[3]);
    EXPECT_EQ(std::numeric_limits<float>::max(), few.distances[3]);
}

TEST_F(FaissTest, reconstruction_and_residuals) {
    for (bool half : {false, true}) {
        faiss::gpu::StandardGpuResources resources;
        faiss::gpu::GpuIndexFlatConfig config;
        config.useFloat16 = half;
        faiss::gpu::GpuIndexFlatL2 index(&resources, kDims, config);
        index.add(kVectors, vectors.data());
        auto stored = half ? roundToHalf(vectors) : vectors;
        std::vector<float> one(kDims), some(2 * kDims);
        index.reconstruct(5, one.data());
        EXPECT_EQ(0, memcmp(one.data(), &stored[5 * kDims], 4 * kDims));
        idx_t ids[] = {7, -1};
        index.reconstruct_batch(2, ids, some.data());
        EXPECT_EQ(0, memcmp(some.data(), &stored[7 * kDims], 4 * kDims));
        EXPECT_EQ(0, some[kDims]);
        index.compute_residual_n(2, queries.data(), some.data(), ids);
        EXPECT_EQ(queries[3] - stored[7 * kDims + 3], some[3]);
        EXPECT_TRUE(std::isnan(some[kDims]));
    }
}

TEST_F(FaissTest, pages_of_queries_through_pinned_memory) {
    faiss::gpu::StandardGpuResources small;
    small.setPinnedMemory(2 * 7 * kDims * sizeof(float));
    faiss::gpu::GpuIndexFlatL2 paged(&small, kDims);
    paged.add(kVectors, vectors.data());
    paged.setMinPagingSize(1);
    Results results;
    paged.search(
            kQueries,
            queries.data(),
            kK,
            results.distances.data(),
            results.labels.data());
    EXPECT_EQ(expected(vectors, queries), results);
    cuda_sim_stats s;
    cuda_sim_get_stats(&s);
    EXPECT_EQ(5u, s.copies_h2d_pinned);
}

/// Rows of floats as columns.
std::vector<float> transposed(const std::vector<float>& rows) {
    size_t n = rows.size() / kDims;
    std::vector<float> columns(rows.size());
    for (size_t i = 0; i < n; ++i) {
        for (int j = 0; j < kDims; ++j) {
            columns[j * n + i] = rows[i * kDims + j];
        }
    }
    return columns;
}

std::vector<half> halves(const std::vector<float>& values) {
    std::vector<half> result;
    for (float value : values) {
        result.push_back(__float2half(value));
    }
    return result;
}

TEST_F(FaissTest, brute_force_in_all_forms) {
    faiss::gpu::StandardGpuResources resources;
    for (int form = 0; form < 16; ++form) {
        bool rowMajor = form & 1, isHalf = form & 2, narrow = form & 4,
             deviceOutputs = form & 8;
        faiss::gpu::GpuDistanceParams args;
        auto v = rowMajor ? vectors : transposed(vectors);
        auto q = rowMajor ? queries : transposed(queries);
        auto vHalf = halves(v), qHalf = halves(q);
        args.dims = kDims;
        args.k = kK;
        args.vectors = isHalf ? static_cast<void*>(vHalf.data()) : v.data();
        args.queries = isHalf ? static_cast<void*>(qHalf.data()) : q.data();
        args.vectorType = args.queryType =
                isHalf ? faiss::gpu::DistanceDataType::F16
                       : faiss::gpu::DistanceDataType::F32;
        args.vectorsRowMajor = args.queriesRowMajor = rowMajor;
        args.numVectors = kVectors;
        args.numQueries = kQueries;
        Results results;
        std::vector<int> labels(kQueries * kK);
        auto dDistances = onDevice<float>(kQueries * kK);
        auto dLabels = onDevice<idx_t>(kQueries * kK);
        args.outDistances =
                deviceOutputs ? dDistances.get() : results.distances.data();
        args.outIndicesType = narrow ? faiss::gpu::IndicesDataType::I32
                                     : faiss::gpu::IndicesDataType::I64;
        args.outIndices = deviceOutputs ? dLabels.get()
                          : narrow      ? static_cast<void*>(labels.data())
                                        : results.labels.data();
        faiss::gpu::bfKnn(&resources, args);
        CHECK_CUDA(cudaDeviceSynchronize());
        if (deviceOutputs) {
            CHECK_CUDA(cudaMemcpy(
                    results.distances.data(),
                    dDistances.get(),
                    dDistances.bytes(),
                    cudaMemcpyDeviceToHost));
            void* to = narrow ? static_cast<void*>(labels.data())
                              : results.labels.data();
            CHECK_CUDA(cudaMemcpy(
                    to,
                    dLabels.get(),
                    kQueries * kK * (narrow ? 4 : 8),
                    cudaMemcpyDeviceToHost));
        }
        if (narrow) {
            std::copy(labels.begin(), labels.end(), results.labels.begin());
        }
        EXPECT_EQ(
                isHalf ? expected(roundToHalf(vectors), roundToHalf(queries))
                       : expected(vectors, queries),
                results)
                << form;
    }
}

TEST_F(FaissTest, all_pairs) {
    faiss::gpu::StandardGpuResources resources;
    std::vector<float> distances(kQueries * kVectors);
    faiss::gpu::GpuDistanceParams args;
    args.dims = kDims;
    args.k = -1;
    args.vectors = vectors.data();
    args.queries = queries.data();
    args.numVectors = kVectors;
    args.numQueries = kQueries;
    args.outDistances = distances.data();
    faiss::gpu::bfKnn(&resources, args);
    EXPECT_EQ(
            faiss::fvec_L2sqr(&queries[2 * kDims], &vectors[3 * kDims], kDims),
            distances[2 * kVectors + 3]);
    args.metric = faiss::METRIC_L1;
    faiss::gpu::bfKnn(&resources, args);
    EXPECT_EQ(
            faiss::fvec_L1(&queries[2 * kDims], &vectors[3 * kDims], kDims),
            distances[2 * kVectors + 3]);
}

TEST_F(FaissTest, its_own_free_with_work_pending_waits) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatL2 index(&resources, kDims);
    index.add(10, vectors.data());
    index.add(kVectors, vectors.data()); // moves the first ones, frees
    EXPECT_EQ(0u, cuda_sim_check());
    cuda_sim_set_free_policy(2);
    index.add(kVectors, vectors.data());
    EXPECT_LT(0u, cuda_sim_check_kind(CUDA_SIM_REPORT_FREE_IN_USE));
    cuda_sim_clear_reports();
    cuda_sim_set_free_policy(0);
}

TEST_F(FaissTest, without_early_copies_it_is_right_and_with_them_caught) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatL2 index(&resources, kDims);
    index.add(kVectors, vectors.data());
    cuda_sim_set_pageable_d2h(1);
    Results results;
    index.search(
            kQueries,
            queries.data(),
            kK,
            results.distances.data(),
            results.labels.data());
#if CUDA_SIM_FAISS_VERSION < 10704
    // Later versions wait for each array.
    EXPECT_TRUE(cuda_sim_is_poison(
            results.labels.data(), results.labels.size() * sizeof(idx_t)));
#endif
    CHECK_CUDA(cudaDeviceSynchronize());
    EXPECT_EQ(expected(vectors, queries), results);
}

TEST_F(FaissTest, a_failing_launch_throws) {
    faiss::gpu::StandardGpuResources resources;
    faiss::gpu::GpuIndexFlatL2 index(&resources, kDims);
    index.add(kVectors, vectors.data());
    cuda_sim_fail_call("kernel:bfKnnOnDevice", 1, cudaErrorLaunchFailure);
    Results results;
    EXPECT_THROW(
            index.search(
                    kQueries,
                    queries.data(),
                    kK,
                    results.distances.data(),
                    results.labels.data()),
            faiss::FaissException);
    cudaGetLastError();
}

} // namespace
