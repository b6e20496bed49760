// Rules of stream capture: what goes into the graph, and what nobody may do
// meanwhile.

#include <cstring>
#include <functional>
#include <string>

#include "conformance.h"

using namespace conformance;

namespace {

constexpr size_t kCount = 1 << 10;

/// What a thread exchanged its mode for, for one scope.
class Mode {
   public:
    explicit Mode(cudaStreamCaptureMode mode) : mode_(mode) {
        EXPECT_EQ(cudaSuccess, cudaThreadExchangeStreamCaptureMode(&mode_));
    }
    ~Mode() {
        EXPECT_EQ(cudaSuccess, cudaThreadExchangeStreamCaptureMode(&mode_));
    }

   private:
    cudaStreamCaptureMode mode_;
};

cudaStreamCaptureStatus statusOf(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    EXPECT_EQ(cudaSuccess, cudaStreamIsCapturing(stream, &status));
    return status;
}

/// Ends a capture; the graph, if there is one, is dropped.
cudaError_t end(cudaStream_t stream) {
    cudaGraph_t graph = nullptr;
    const auto error = cudaStreamEndCapture(stream, &graph);
    if (graph) {
        EXPECT_EQ(cudaSuccess, cudaGraphDestroy(graph));
    }
    cudaGetLastError();
    return error;
}

/// What there is to call something with, and a capture under way.
struct Captures : testing::Test {
    ~Captures() override {
        // Nothing of a capture that a test has spoilt is left.
        if (statusOf(capturing) != cudaStreamCaptureStatusNone) {
            end(capturing);
        }
        EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
        EXPECT_EQ(cudaSuccess, cudaFree(toFree));
        EXPECT_EQ(cudaSuccess, cudaFreeHost(toFreeHost));
        for (void* memory : made) {
            EXPECT_EQ(cudaSuccess, cudaFree(memory));
        }
        for (void* memory : pinnedMade) {
            EXPECT_EQ(cudaSuccess, cudaFreeHost(memory));
        }
        cudaGetLastError();
    }

    void SetUp() override {
        CHECK_CUDA(cudaEventRecord(event, other));
        CHECK_CUDA(cudaDeviceSynchronize());
    }

    void begin(
            cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal,
            cudaStream_t stream = nullptr) {
        stream = stream ? stream : cudaStream_t(capturing);
        if (!toFree) {
            CHECK_CUDA(cudaMalloc(&toFree, 64));
        }
        if (!toFreeHost) {
            CHECK_CUDA(cudaMallocHost(&toFreeHost, 64));
        }
        CHECK_CUDA(cudaStreamBeginCapture(stream, mode));
        CHECK_CUDA(cudaMemsetAsync(device.get(), 1, device.bytes(), stream));
        CHECK_CUDA(cudaEventRecord(captured, stream));
    }

    /// In another thread, in that mode.
    template <typename Call>
    static cudaError_t elsewhere(cudaStreamCaptureMode mode, const Call& call) {
        cudaError_t result = cudaErrorUnknown;
        std::thread([&] {
            const Mode relaxed(mode);
            result = call();
            cudaGetLastError();
        }).join();
        return result;
    }

    struct Unsafe {
        const char* name;
        std::function<cudaError_t()> call;
    };
    /// Calls that no capture sees.
    std::vector<Unsafe> unsafeCalls() {
        return {{"cudaEventQuery", [&] { return cudaEventQuery(event); }},
                {"cudaEventSynchronize",
                 [&] { return cudaEventSynchronize(event); }},
                {"cudaStreamQuery", [&] { return cudaStreamQuery(other); }},
                {"cudaStreamSynchronize",
                 [&] { return cudaStreamSynchronize(other); }},
                {"cudaStreamSynchronize of the default stream",
                 [&] { return cudaStreamSynchronize(nullptr); }},
                {"cudaMalloc",
                 [&] {
                     void* memory = nullptr;
                     const auto error = cudaMalloc(&memory, 64);
                     if (memory) {
                         made.push_back(memory);
                     }
                     return error;
                 }},
                {"cudaFree",
                 [&] {
                     const auto error = cudaFree(toFree);
                     if (error == cudaSuccess) {
                         toFree = nullptr;
                     }
                     return error;
                 }},
                {"cudaFree of nothing", [&] { return cudaFree(nullptr); }},
                {"cudaHostAlloc",
                 [&] {
                     void* memory = nullptr;
                     const auto error =
                             cudaHostAlloc(&memory, 64, cudaHostAllocDefault);
                     if (memory) {
                         pinnedMade.push_back(memory);
                     }
                     return error;
                 }},
                {"cudaFreeHost",
                 [&] {
                     const auto error = cudaFreeHost(toFreeHost);
                     if (error == cudaSuccess) {
                         toFreeHost = nullptr;
                     }
                     return error;
                 }},
                {"cudaHostRegister and cudaHostUnregister", [&] {
                     const auto error =
                             cudaHostRegister(pages.data(), pages.size(), 0);
                     return error ? error : cudaHostUnregister(pages.data());
                 }}};
    }

    /// Calls that a capture sees, or that change nothing that it could.
    std::vector<Unsafe> harmlessCalls() {
        return {{"cudaEventRecord",
                 [&] { return cudaEventRecord(event, other); }},
                {"cudaStreamWaitEvent",
                 [&] { return cudaStreamWaitEvent(third, event, 0); }},
                {"cudaMemcpyAsync of pinned memory",
                 [&] {
                     return cudaMemcpyAsync(
                             more.get(),
                             host.get(),
                             host.bytes(),
                             cudaMemcpyDefault,
                             other);
                 }},
                {"cudaMemcpyAsync of pageable memory",
                 [&] {
                     return cudaMemcpyAsync(
                             more.get() + kCount,
                             pages.data(),
                             64,
                             cudaMemcpyDefault,
                             other);
                 }},
                {"cudaMemcpy",
                 [&] {
                     return cudaMemcpy(
                             more.get() + 2 * kCount,
                             pages.data(),
                             64,
                             cudaMemcpyDefault);
                 }},
                {"cudaMemsetAsync on the default stream",
                 [&] {
                     return cudaMemsetAsync(
                             more.get() + 3 * kCount, 0, 64, nullptr);
                 }},
                {"cudaLaunchHostFunc",
                 [&] {
                     return cudaLaunchHostFunc(
                             other, [](void*) {}, nullptr);
                 }},
                {"cudaStreamCreate",
                 [&] {
                     Stream made;
                     return cudaSuccess;
                 }},
                {"cudaEventCreate",
                 [&] {
                     Event made;
                     return cudaSuccess;
                 }},
                {"cudaPointerGetAttributes",
                 [&] {
                     cudaPointerAttributes attributes;
                     return cudaPointerGetAttributes(&attributes, more.get());
                 }},
                {"cudaMemGetInfo",
                 [&] {
                     size_t free, total;
                     return cudaMemGetInfo(&free, &total);
                 }},
                {"cudaStreamIsCapturing of another",
                 [&] {
                     cudaStreamCaptureStatus status;
                     return cudaStreamIsCapturing(other, &status);
                 }},
                {"cudaSetDevice", [&] { return cudaSetDevice(0); }}};
    }

    Stream capturing, other, third;
    Event event, captured;
    Buffer<int> device = onDevice<int>(kCount),
                more = onDevice<int>(4 * kCount);
    Buffer<int> host = pinned<int>(kCount);
    std::vector<char> pages = std::vector<char>(1 << 14);
    void* toFree = nullptr;
    void* toFreeHost = nullptr;
    std::vector<void*> made, pinnedMade;
};

TEST_F(Captures, go_into_a_graph_that_is_replayed) {
    memset(host.get(), 0, host.bytes());
    CHECK_CUDA(cudaStreamBeginCapture(capturing, cudaStreamCaptureModeGlobal));
    CHECK_CUDA(cudaMemcpyAsync(
            host.get(),
            device.get(),
            device.bytes(),
            cudaMemcpyDefault,
            capturing));
    EXPECT_EQ(cudaStreamCaptureStatusActive, statusOf(capturing));
    EXPECT_EQ(cudaStreamCaptureStatusNone, statusOf(other));
    cudaGraph_t graph = nullptr;
    CHECK_CUDA(cudaStreamEndCapture(capturing, &graph));
    EXPECT_EQ(cudaStreamCaptureStatusNone, statusOf(capturing));
    size_t nodes = 0;
    CHECK_CUDA(cudaGraphGetNodes(graph, nullptr, &nodes));
    EXPECT_EQ(1u, nodes);
    cudaGraphExec_t exec = nullptr;
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cudaGraphDestroy(graph));
    // Nothing has run so far.
    CHECK_CUDA(cudaStreamSynchronize(capturing));
    EXPECT_EQ(0, host[7]);
    for (int first : {1, 100}) {
        const auto now = counting(kCount, first);
        CHECK_CUDA(cudaMemcpy(
                device.get(), now.data(), device.bytes(), cudaMemcpyDefault));
        CHECK_CUDA(cudaDeviceSynchronize());
        CHECK_CUDA(cudaGraphLaunch(exec, other));
        CHECK_CUDA(cudaStreamSynchronize(other));
        EXPECT_EQ(0, memcmp(host.get(), now.data(), host.bytes()));
    }
    CHECK_CUDA(cudaGraphExecDestroy(exec));
}

TEST_F(Captures, are_spoilt_by_unsafe_calls_of_any_thread_in_global_mode) {
    for (const auto& one : unsafeCalls()) {
        begin();
        EXPECT_EQ(
                cudaErrorStreamCaptureUnsupported,
                elsewhere(cudaStreamCaptureModeGlobal, one.call))
                << one.name;
        EXPECT_EQ(cudaStreamCaptureStatusInvalidated, statusOf(capturing));
        EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing))
                << one.name;

        begin();
        EXPECT_EQ(cudaErrorStreamCaptureUnsupported, one.call()) << one.name;
        EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing))
                << one.name;
    }
}

TEST_F(Captures, allow_unsafe_calls_to_threads_in_relaxed_mode) {
    for (const auto& one : unsafeCalls()) {
        begin();
        EXPECT_EQ(
                cudaSuccess, elsewhere(cudaStreamCaptureModeRelaxed, one.call))
                << one.name;
        EXPECT_EQ(cudaStreamCaptureStatusActive, statusOf(capturing));
        EXPECT_EQ(cudaSuccess, end(capturing)) << one.name;
    }
}

TEST_F(Captures, allow_unsafe_calls_to_their_own_thread_in_relaxed_mode) {
    for (const auto& one : unsafeCalls()) {
        begin();
        {
            const Mode relaxed(cudaStreamCaptureModeRelaxed);
            EXPECT_EQ(cudaSuccess, one.call()) << one.name;
        }
        EXPECT_EQ(cudaSuccess, end(capturing)) << one.name;
    }
}

TEST_F(Captures, of_others_do_not_matter_in_thread_local_mode) {
    for (const auto& one : unsafeCalls()) {
        begin();
        EXPECT_EQ(
                cudaSuccess,
                elsewhere(cudaStreamCaptureModeThreadLocal, one.call))
                << one.name;
        EXPECT_EQ(cudaSuccess, end(capturing)) << one.name;
    }
}

TEST_F(Captures, in_thread_local_or_relaxed_mode_do_not_matter_to_others) {
    for (auto mode :
         {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed}) {
        for (const auto& one : unsafeCalls()) {
            begin(mode);
            EXPECT_EQ(
                    cudaSuccess,
                    elsewhere(cudaStreamCaptureModeGlobal, one.call))
                    << one.name;
            EXPECT_EQ(cudaSuccess, end(capturing)) << one.name;
        }
    }
}

TEST_F(Captures, are_left_alone_by_work_elsewhere) {
    for (const auto& one : harmlessCalls()) {
        begin();
        EXPECT_EQ(cudaSuccess, elsewhere(cudaStreamCaptureModeGlobal, one.call))
                << one.name;
        EXPECT_EQ(cudaSuccess, one.call()) << one.name;
        EXPECT_EQ(cudaSuccess, end(capturing)) << one.name;
    }
}

TEST_F(Captures, are_spoilt_by_waiting_for_the_device_in_any_mode) {
    for (auto mode :
         {cudaStreamCaptureModeGlobal,
          cudaStreamCaptureModeThreadLocal,
          cudaStreamCaptureModeRelaxed}) {
        for (auto own :
             {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeRelaxed}) {
            begin(mode);
            EXPECT_EQ(cudaErrorStreamCaptureUnsupported, elsewhere(own, [] {
                          return cudaDeviceSynchronize();
                      }));
            EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing));
        }
    }
}

TEST_F(Captures, are_spoilt_by_asking_or_waiting_for_their_stream) {
    const Mode relaxed(cudaStreamCaptureModeRelaxed);
    begin();
    EXPECT_EQ(cudaErrorStreamCaptureUnsupported, cudaStreamQuery(capturing));
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing));
    begin();
    EXPECT_EQ(
            cudaErrorStreamCaptureUnsupported,
            cudaStreamSynchronize(capturing));
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing));
    begin();
    EXPECT_EQ(cudaErrorCapturedEvent, cudaEventQuery(captured));
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing));
    begin();
    EXPECT_EQ(cudaErrorCapturedEvent, cudaEventSynchronize(captured));
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing));
}

TEST_F(Captures, are_spoilt_by_waiting_for_work_outside) {
    begin();
    EXPECT_EQ(
            cudaErrorStreamCaptureIsolation,
            cudaStreamWaitEvent(capturing, event, 0));
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(capturing));
}

TEST_F(Captures, take_in_streams_that_wait_for_their_events) {
    begin();
    CHECK_CUDA(cudaStreamWaitEvent(other, captured, 0));
    EXPECT_EQ(cudaStreamCaptureStatusActive, statusOf(other));
    CHECK_CUDA(cudaMemsetAsync(more.get(), 1, 64, other));
    Event back;
    CHECK_CUDA(cudaEventRecord(back, other));
    CHECK_CUDA(cudaStreamWaitEvent(capturing, back, 0));
    EXPECT_EQ(cudaSuccess, end(capturing));
    EXPECT_EQ(cudaStreamCaptureStatusNone, statusOf(other));
}

TEST_F(Captures, cannot_end_with_work_that_was_not_joined) {
    begin();
    CHECK_CUDA(cudaStreamWaitEvent(other, captured, 0));
    CHECK_CUDA(cudaMemsetAsync(more.get(), 1, 64, other));
    EXPECT_EQ(cudaErrorStreamCaptureUnjoined, end(capturing));
    EXPECT_EQ(cudaStreamCaptureStatusNone, statusOf(other));
}

TEST_F(Captures, of_blocking_streams_are_spoilt_by_the_default_stream) {
    const Mode relaxed(cudaStreamCaptureModeRelaxed);
    Stream blocking(cudaStreamDefault);
    const std::vector<Unsafe> calls{
            {"cudaMemsetAsync",
             [&] { return cudaMemsetAsync(more.get(), 0, 64, nullptr); }},
            {"cudaEventRecord",
             [&] { return cudaEventRecord(event, nullptr); }},
            {"cudaStreamWaitEvent",
             [&] { return cudaStreamWaitEvent(nullptr, event, 0); }},
            {"cudaStreamQuery", [&] { return cudaStreamQuery(nullptr); }},
            {"cudaStreamSynchronize",
             [&] { return cudaStreamSynchronize(nullptr); }},
            {"cudaMemcpy", [&] {
                 return cudaMemcpy(
                         more.get(), pages.data(), 64, cudaMemcpyDefault);
             }}};
    for (const auto& one : calls) {
        begin(cudaStreamCaptureModeGlobal, blocking);
        EXPECT_EQ(cudaErrorStreamCaptureImplicit, one.call()) << one.name;
        EXPECT_EQ(cudaErrorStreamCaptureInvalidated, end(blocking)) << one.name;
    }
    // But to ask whether it captures is allowed.
    begin(cudaStreamCaptureModeGlobal, blocking);
    cudaStreamCaptureStatus status;
    EXPECT_EQ(
            cudaErrorStreamCaptureImplicit,
            cudaStreamIsCapturing(nullptr, &status));
    EXPECT_EQ(cudaSuccess, end(blocking));
}

TEST_F(Captures, begin_once_and_not_on_the_default_stream) {
    begin();
    EXPECT_EQ(
            cudaErrorIllegalState,
            cudaStreamBeginCapture(capturing, cudaStreamCaptureModeGlobal));
    EXPECT_EQ(
            cudaErrorStreamCaptureUnsupported,
            cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal));
    EXPECT_EQ(cudaSuccess, end(capturing));
}

TEST_F(Captures, end_in_their_own_thread) {
    begin();
    EXPECT_EQ(
            cudaErrorStreamCaptureWrongThread,
            elsewhere(cudaStreamCaptureModeGlobal, [&] {
                return end(capturing);
            }));
    EXPECT_EQ(cudaStreamCaptureStatusNone, statusOf(capturing));
    EXPECT_EQ(cudaErrorIllegalState, end(capturing));
    begin(cudaStreamCaptureModeRelaxed);
    EXPECT_EQ(cudaSuccess, elsewhere(cudaStreamCaptureModeGlobal, [&] {
                  return end(capturing);
              }));
}

} // namespace
