// Streams that are being captured into CUDA graphs, of other threads and of the
// index: no capture is spoilt, and no call fails but those that would be a part
// of one.

#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/cuda/LinkSpeed.h>
#include <faiss_ext/gpu/cuda/StreamOrder.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>
#include <faiss_ext/gpu/index/BruteForce.h>
#include <faiss_ext/gpu/index/GpuCloner.h>
#include <faiss_ext/gpu/resources/DeviceBuffer.h>
#include <faiss_ext/gpu/resources/PooledGpuResources.h>

#include <faiss/IndexFlat.h>
#include <faiss/gpu/GpuDistance.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "support/CachingPool.h"
#include "support/FlatIndexTest.h"

namespace {

using faiss_ext::gpu::CudaError;
using faiss_ext::gpu::Unsupported;
using namespace test;

/// A thread that captures a copy in CUDA's default mode, "global", until it is
/// told to end.
class CaptureElsewhere {
   public:
    CaptureElsewhere()
            : from_(Memory::Device, std::vector<int>(64, 7)),
              to_(Memory::Device, std::vector<int>(64, 0)),
              thread_([this] { run(); }) {
        std::unique_lock<std::mutex> guard(mutex_);
        changed_.wait(guard, [this] { return begun_; });
    }
    ~CaptureElsewhere() {
        end();
    }

    /// Ends the capture; what it was is replayed.
    void expectUnharmed() {
        end();
        ASSERT_EQ(ended_, cudaSuccess) << cudaGetErrorString(ended_);
        ASSERT_NE(graph_, nullptr);
        cudaGraphExec_t replayed;
        check(cudaGraphInstantiate(&replayed, graph_, 0));
        check(cudaGraphDestroy(graph_));
        faiss_ext::gpu::Stream stream;
        check(cudaGraphLaunch(replayed, stream.get()));
        check(cudaStreamSynchronize(stream.get()));
        check(cudaGraphExecDestroy(replayed));
        EXPECT_EQ(to_.get(), std::vector<int>(64, 7));
    }

   private:
    void end() {
        {
            std::lock_guard<std::mutex> guard(mutex_);
            ending_ = true;
            changed_.notify_all();
        }
        if (thread_.joinable()) {
            thread_.join();
        }
    }

    void run() {
        faiss_ext::gpu::Stream stream;
        check(cudaStreamBeginCapture(
                stream.get(), cudaStreamCaptureModeGlobal));
        check(cudaMemcpyAsync(
                to_.data(),
                from_.data(),
                64 * sizeof(int),
                cudaMemcpyDefault,
                stream.get()));
        std::unique_lock<std::mutex> guard(mutex_);
        begun_ = true;
        changed_.notify_all();
        changed_.wait(guard, [this] { return ending_; });
        ended_ = cudaStreamEndCapture(stream.get(), &graph_);
        cudaGetLastError();
    }

    Array<int> from_, to_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool begun_ = false;
    bool ending_ = false;
    cudaError_t ended_ = cudaErrorUnknown;
    cudaGraph_t graph_ = nullptr;
    std::thread thread_;
};

class Captures : public FlatIndexTest {
   protected:
    /// `call` leaves a capture of another thread as it is.
    static void expectHarmless(
            const char* what, const std::function<void()>& call) {
        SCOPED_TRACE(what);
        CaptureElsewhere capture;
        call();
        capture.expectUnharmed();
    }

    /// `call` is refused while `stream` is being captured, and the capture goes
    /// on.
    static void expectRefused(
            const char* what,
            cudaStream_t stream,
            const std::string& whose,
            const std::function<void()>& call) {
        SCOPED_TRACE(what);
        Array<int> memory(Memory::Device, std::vector<int>(64, 1));
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        check(cudaMemsetAsync(memory.data(), 0, 64 * sizeof(int), stream));
        try {
            call();
            ADD_FAILURE() << "not refused";
        } catch (const Unsupported& e) {
            const std::string text = e.what();
            EXPECT_NE(
                    text.find(whose + ": its stream is being captured"),
                    std::string::npos)
                    << text;
            EXPECT_NE(text.find("goes on unharmed"), std::string::npos) << text;
        }
        size_t nodes = 0;
        cudaGraph_t graph = nullptr;
        check(cudaStreamEndCapture(stream, &graph));
        check(cudaGraphGetNodes(graph, nullptr, &nodes));
        EXPECT_EQ(nodes, 1u) << "nothing of the call is in the graph";
        check(cudaGraphDestroy(graph));
    }

    const std::vector<float> more_ = randomVectors(50, kDims, 4);
};

TEST_F(Captures, of_another_thread_and_searches_do_not_disturb_each_other) {
    for (int64_t tileRows : {0, 7}) {
        const auto index = makeIndex(tileRows);
        for (Memory memory : kAllMemories) {
            Array<float> x(memory, queries_);
            Array<float> distances(memory, kResults);
            Array<int64_t> labels(memory, kResults);
            expectHarmless(nameOf(memory), [&] {
                search(*index, x.data(), distances.data(), labels.data());
            });
            expectRight({distances.get(), labels.get()});
        }
    }
}

TEST_F(Captures, of_another_thread_and_first_searches_do_not_disturb) {
    // That allocate what later ones use again.
    for (int64_t tileRows : {0, 7}) {
        resources_->noTempMemory();
        const auto index = makeIndex(tileRows);
        expectHarmless("the first", [&] { searchAndExpectRight(*index); });
    }
}

TEST_F(Captures, of_another_thread_and_changes_do_not_disturb_each_other) {
    std::unique_ptr<Index> index;
    expectHarmless("make", [&] {
        faiss::gpu::GpuIndexFlatConfig where;
        index = std::make_unique<Index>(&resources(), kDims, where);
    });
    for (Memory memory : kAllMemories) {
        Array<float> x(memory, more_);
        expectHarmless("add", [&] { index->add(50, x.data()); });
    }
    expectHarmless("reset", [&] { index->reset(); });
    EXPECT_EQ(index->ntotal, 0);
    faiss::IndexFlatL2 cpu(kDims);
    cpu.add(kVectors, base_.data());
    expectHarmless("copyFrom", [&] { index->copyFrom(&cpu); });
    std::vector<float> vectors(3 * kDims);
    expectHarmless(
            "reconstruct", [&] { index->reconstruct_n(4, 3, vectors.data()); });
    searchAndExpectRight(*index);
    faiss::IndexFlatL2 back(kDims);
    expectHarmless("copyTo", [&] { index->copyTo(&back); });
    EXPECT_EQ(back.ntotal, cpu.ntotal);
    // In tiles, for which memory is taken.
    index = makeIndex(7);
    expectHarmless("profile", [&] {
        std::vector<float> distances(kResults);
        std::vector<int64_t> labels(kResults);
        index->profile_search(
                kQueries,
                queries_.data(),
                kNearest,
                distances.data(),
                labels.data());
    });
}

TEST_F(Captures, of_another_thread_and_destructors_do_not_disturb) {
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, kResults);
    Array<int64_t> labels(Memory::Device, kResults);
    for (int64_t tileRows : {0, 7}) {
        auto index = makeIndex(tileRows);
        searchAndExpectRight(*index);
        expectHarmless("with work in flight", [&] {
            search(*index, x.data(), distances.data(), labels.data());
            index.reset();
        });
        expectRight({distances.get(), labels.get()});
    }
}

TEST_F(Captures, of_another_thread_and_the_end_of_the_last_owner) {
    // An index keeps the resources that it was made with.
    auto own = std::make_unique<faiss::gpu::StandardGpuResources>();
    auto index = std::make_unique<Index>(own.get(), kDims);
    index->add(kVectors, base_.data());
    own.reset();
    expectHarmless("the end of index and resources", [&] { index.reset(); });
}

TEST_F(Captures, of_another_thread_and_failures_do_not_disturb) {
    const auto index = makeIndex(7);
    searchAndExpectRight(*index);
    expectHarmless("a call that fails", [&] {
        cuda_sim_fail_call("cudaMemcpyAsync", 4, cudaErrorInvalidValue);
        EXPECT_THROW(searchAndExpectRight(*index), CudaError);
    });
    searchAndExpectRight(*index);
    expectHarmless("no memory for the norms", [&] {
        cuda_sim_fail_call("cudaMalloc", 3, cudaErrorMemoryAllocation);
        const auto many = randomVectors(3 * kVectors, kDims, 3);
        EXPECT_THROW(
                index->add(3 * kVectors, many.data()), faiss::FaissException);
    });
    searchAndExpectRight(*index);
}

TEST_F(Captures, of_another_thread_and_the_parts_by_themselves) {
    using namespace faiss_ext::gpu;
    TransferCounters counters;
    std::unique_ptr<PinnedBufferPool> pool;
    faiss_ext::gpu::Stream stream;
    expectHarmless("a pool of pinned memory", [&] {
        pool = std::make_unique<PinnedBufferPool>(1 << 14, counters);
        pool->acquire(4096).releaseAfter(stream.get());
        pool->acquire(1 << 13).releaseAfter(stream.get());
        pool->acquire(1 << 14);
    });
    expectHarmless("its trimming", [&] { pool->trim(); });
    pool->acquire(4096).releaseAfter(stream.get());
    pool->acquire(1 << 13);
    expectHarmless("its end", [&] { pool.reset(); });

    std::shared_ptr<DeviceBuffer> buffer;
    expectHarmless("a buffer", [&] {
        buffer = std::make_shared<DeviceBuffer>(
                resources_->getResources(), 0, 1 << 20);
        buffer->share();
        std::vector<char> bytes(1 << 20);
        buffer->copy()->copyToHost(bytes.data());
    });
    expectHarmless("its end", [&] { buffer.reset(); });

    Event event;
    check(cudaMemsetAsync(
            Array<char>(Memory::Managed, 64).data(), 0, 64, stream.get()));
    event.record(stream.get());
    expectHarmless("an event", [&] {
        event.reached();
        event.isOver();
        event.wait();
        EXPECT_TRUE(event.reached());
        EXPECT_TRUE(event.isOver());
    });
    expectHarmless("is the context lost?", [&] {
        EXPECT_FALSE(contextLost(defaultStream()));
        throwIfContextLost(defaultStream());
    });
    expectHarmless("a wait for a GPU", [&] { waitForDevice(0); });
    expectHarmless("the speed of the link", [&] {
        measureLinkSpeed(resources_->getResources(), 0, 1 << 16, 2);
    });
    expectHarmless("order", [&] {
        orderStreams(stream.get(), 0, defaultStream(), 0);
    });
}

/// What a capture in the mode "global" does not allow.
struct AllocatingProvider : faiss::gpu::GpuResourcesProvider {
    explicit AllocatingProvider(faiss::gpu::GpuResourcesProvider& resources)
            : resources_(resources.getResources()) {}
    std::shared_ptr<faiss::gpu::GpuResources> getResources() override {
        ++asked;
        void* memory = nullptr;
        check(cudaMalloc(&memory, 1));
        check(cudaFree(memory));
        return resources_;
    }
    int asked = 0;

   private:
    const std::shared_ptr<faiss::gpu::GpuResources> resources_;
};

TEST_F(Captures, of_another_thread_and_clones_do_not_disturb) {
    faiss::IndexFlatL2 cpu(kDims);
    cpu.add(kVectors, base_.data());
    std::unique_ptr<faiss::Index> clone;
    expectHarmless("a clone", [&] {
        clone.reset(faiss_ext::gpu::index_cpu_to_gpu(
                &resources(), 0, &cpu, nullptr));
    });
    searchAndExpectRight(*clone);
    std::vector<faiss::gpu::GpuResourcesProvider*> providers{
            &resources(), &resources()};
    std::vector<int> devices{0, 1};
    expectHarmless("clones", [&] {
        clone.reset(faiss_ext::gpu::index_cpu_to_gpu_multiple(
                providers, devices, &cpu, nullptr));
    });
    searchAndExpectRight(*clone);

    // All of it, since indexes of Faiss' own are made there, too.
    AllocatingProvider allocating(resources());
    expectHarmless("a clone by a provider that allocates", [&] {
        clone.reset(faiss_ext::gpu::index_cpu_to_gpu(
                &allocating, 0, &cpu, nullptr));
    });
    providers = {&allocating, &allocating};
    expectHarmless("clones by one", [&] {
        clone.reset(faiss_ext::gpu::index_cpu_to_gpu_multiple(
                providers, devices, &cpu, nullptr));
    });
    EXPECT_GE(allocating.asked, 3);
}

TEST_F(Captures, of_another_thread_and_brute_force_do_not_disturb) {
    resources_->noTempMemory();
    std::vector<float> distances(kResults);
    std::vector<int64_t> labels(kResults);
    faiss::gpu::GpuDistanceParams arguments;
    arguments.k = kNearest;
    arguments.dims = kDims;
    arguments.vectors = base_.data();
    arguments.numVectors = kVectors;
    arguments.queries = queries_.data();
    arguments.numQueries = kQueries;
    arguments.outDistances = distances.data();
    arguments.outIndices = labels.data();
    expectHarmless("bfKnn", [&] {
        faiss_ext::gpu::bfKnn(&resources(), arguments);
        // Faiss 1.7.3 does not wait for what it writes to the host.
        faiss_ext::gpu::Event done;
        done.record(defaultStream());
        done.wait();
    });
    expectRight({distances, labels});
    expectRefused("bfKnn", defaultStream(), "the resources", [&] {
        faiss_ext::gpu::bfKnn(&resources(), arguments);
    });
}

TEST_F(Captures, of_another_thread_and_a_pool_of_the_callers) {
    const auto pool = std::make_shared<CachingPool>();
    auto pooled = std::make_unique<faiss_ext::gpu::PooledGpuResources>(pool);
    auto index = std::make_unique<Index>(pooled.get(), kDims);
    expectHarmless("add", [&] { index->add(kVectors, base_.data()); });
    expectHarmless("search", [&] { searchAndExpectRight(*index); });
    expectHarmless("the end of the index", [&] { index.reset(); });
    auto fresh = std::make_unique<faiss_ext::gpu::PooledGpuResources>(pool);
    expectHarmless("its stream", [&] { fresh->getDefaultStream(0); });
    expectHarmless("a wait", [&] { fresh->syncDefaultStreamCurrentDevice(); });
    expectHarmless("their end", [&] { fresh.reset(); });
}

TEST_F(Captures, of_the_default_stream_refuse_every_call) {
    const auto index = makeIndex(0);
    std::vector<float> distances(kResults), vector(kDims);
    std::vector<int64_t> labels(kResults);
    const auto stream = defaultStream();
    expectRefused("search", stream, "the index", [&] {
        search(*index, queries_.data(), distances.data(), labels.data());
    });
    expectRefused("assign", stream, "the index", [&] {
        index->assign(kQueries, queries_.data(), labels.data());
    });
    expectRefused("profile_search", stream, "the index", [&] {
        index->profile_search(
                kQueries,
                queries_.data(),
                kNearest,
                distances.data(),
                labels.data());
    });
    expectRefused(
            "add", stream, "the index", [&] { index->add(50, more_.data()); });
    // These are waited for before they are looked at.
    Array<int64_t> keys(Memory::Pinned, std::vector<int64_t>(1, 0));
    expectRefused("reconstruct_batch", stream, "the index", [&] {
        index->reconstruct_batch(1, keys.data(), vector.data());
    });
    expectRefused("reset", stream, "the index", [&] { index->reset(); });
    expectRefused("reconstruct", stream, "the index", [&] {
        index->reconstruct(0, vector.data());
    });
    faiss::IndexFlatL2 cpu(kDims);
    expectRefused(
            "copyFrom", stream, "the index", [&] { index->copyFrom(&cpu); });
    faiss_ext::gpu::DeviceBuffer buffer(resources_->getResources(), 0, 64);
    char bytes[64];
    expectRefused(
            "an array", stream, "the array", [&] { buffer.copyToHost(bytes); });
    expectRefused("an array", stream, "the array", [&] { buffer.copy(); });
    expectRefused("the speed of the link", stream, "the resources", [&] {
        faiss_ext::gpu::measureLinkSpeed(
                resources_->getResources(), 0, 1 << 12, 1);
    });
    EXPECT_EQ(index->ntotal, faiss_ext::gpu::idx_t(kVectors));
    searchAndExpectRight(*index);
}

TEST_F(Captures, do_not_take_in_the_stream_of_the_index) {
    const auto index = makeIndex(0);
    faiss_ext::gpu::Stream theirs;
    expectRefused(
            "waitForStream",
            theirs.get(),
            "the stream that is to be waited for",
            [&] { index->waitForStream(theirs.get()); });
    expectRefused(
            "makeStreamWait", theirs.get(), "the stream that is to wait", [&] {
                index->makeStreamWait(theirs.get());
            });
    searchAndExpectRight(*index);
}

TEST_F(Captures, of_a_blocking_stream_refuse_work_on_the_legacy_stream) {
    resources_->setDefaultNullStreamAllDevices();
    const auto index = makeIndex(0);
    cudaStream_t blocking;
    check(cudaStreamCreate(&blocking));
    expectRefused("search", blocking, "the index", [&] {
        try {
            searchAndExpectRight(*index);
        } catch (const Unsupported&) {
            EXPECT_EQ(cudaGetLastError(), cudaSuccess);
            throw;
        }
    });
    check(cudaStreamDestroy(blocking));
    searchAndExpectRight(*index);
}

TEST_F(Captures,
       of_a_blocking_stream_refuse_changes_on_the_legacy_stream_of_their_gpu) {
    resources_->setDefaultNullStreamAllDevices();
    faiss::gpu::GpuIndexFlatConfig onOther;
    onOther.device = 1;
    Index index(resources_.get(), kDims, onOther);
    index.add(kVectors, base_.data());
    check(cudaSetDevice(1));
    cudaStream_t blocking;
    check(cudaStreamCreate(&blocking));
    Array<int> memory = onGpu<int>(1, 64);
    check(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
    check(cudaMemsetAsync(memory.data(), 0, 64, blocking));
    check(cudaSetDevice(0));
    faiss::IndexFlatL2 cpu(kDims);
    EXPECT_THROW(index.reset(), Unsupported);
    EXPECT_THROW(index.copyFrom(&cpu), Unsupported);
    EXPECT_THROW(index.add(kVectors, base_.data()), Unsupported);
    const faiss_ext::gpu::Stream ofThis;
    EXPECT_THROW(
            faiss_ext::gpu::orderStreams(ofThis.get(), 0, cudaStreamLegacy, 1),
            Unsupported);
    EXPECT_EQ(index.ntotal, int64_t(kVectors));
    check(cudaSetDevice(1));
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(blocking, &graph));
    check(cudaGraphDestroy(graph));
    check(cudaStreamDestroy(blocking));
    check(cudaSetDevice(0));
    index.reset();
    EXPECT_EQ(index.ntotal, 0);
}

TEST_F(Captures, of_the_default_stream_survive_the_end_of_the_index) {
    faiss_ext::gpu::Stream users;
    resources_->setDefaultStream(0, users.get());
    auto index = makeIndex(0);
    Array<float> x(Memory::Device, queries_);
    Array<float> distances(Memory::Device, kResults);
    Array<int64_t> labels(Memory::Device, kResults);
    Array<int> memory(Memory::Device, 64);
    search(*index, x.data(), distances.data(), labels.data());
    check(cudaStreamBeginCapture(users.get(), cudaStreamCaptureModeGlobal));
    check(cudaMemsetAsync(memory.data(), 0, 64, users.get()));
    index.reset();
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(users.get(), &graph));
    check(cudaGraphDestroy(graph));
    expectRight({distances.get(), labels.get()});
    resources_->revertDefaultStream(0);
}

TEST_F(Captures, do_not_look_like_a_lost_gpu) {
    using namespace faiss_ext::gpu;
    faiss_ext::gpu::Stream stream;
    check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal));
    EXPECT_FALSE(contextLost(stream.get()));
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream.get(), &graph));
    check(cudaGraphDestroy(graph));
}

TEST_F(Captures, that_an_event_belongs_to_do_not_make_it_over) {
    using namespace faiss_ext::gpu;
    faiss_ext::gpu::Stream stream;
    Event event;
    check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal));
    event.record(stream.get());
    EXPECT_FALSE(event.isOver());
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(
            cudaStreamEndCapture(stream.get(), &graph),
            cudaErrorStreamCaptureInvalidated);
    cudaGetLastError();
}

TEST_F(Captures, are_no_reason_for_an_event_to_be_over) {
    using namespace faiss_ext::gpu;
    faiss_ext::gpu::Stream stream;
    Array<char> memory(Memory::Device, 64);
    Event event;
    cuda_sim_hold_stream(stream.get());
    check(cudaMemsetAsync(memory.data(), 0, 64, stream.get()));
    event.record(stream.get());
    EXPECT_FALSE(event.isOver());
    cuda_sim_fail_call("cudaEventQuery", 1, cudaErrorInvalidValue);
    EXPECT_FALSE(event.isOver()) << "one error is no loss";
    cuda_sim_release_stream(stream.get());
    check(cudaStreamSynchronize(stream.get()));
    EXPECT_TRUE(event.isOver());
    check(cudaMemsetAsync(memory.data(), 0, 64, stream.get()));
    event.record(stream.get());
    cuda_sim_fail_operation(1, cudaErrorIllegalAddress);
    faiss_ext::gpu::waitForDevice(0);
    EXPECT_TRUE(event.isOver()) << "nothing happens on a lost GPU";
    check(cudaDeviceReset());
}

} // namespace
