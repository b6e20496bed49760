#include <faiss_ext/gpu/compute/ComputeStreams.h>

#include <cstdint>

#include <faiss_ext/gpu/Rounding.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>

namespace faiss_ext {
namespace gpu {

namespace {

/// What cudaMalloc aligns to; Faiss' temporary memory begins 16 bytes behind.
constexpr size_t kAlignment = 256;

} // namespace

size_t affordableStreams(
        size_t most, size_t bytes, size_t shared, size_t temporaryBytes) {
    while (most > 1 && kAlignment + most * roundUp(bytes, kAlignment) + shared >
                               temporaryBytes) {
        --most;
    }
    return most;
}

ComputeStreams::ComputeStreams(
        faiss::gpu::GpuResources& resources,
        int device,
        Kept& kept,
        StageRecorder* recorder)
        : resources_(resources),
          device_(device),
          kept_(kept),
          whole_({resources.getDefaultStream(device),
                  -1,
                  nullptr,
                  0,
                  recorder}),
          contexts_{whole_} {}

ComputeStreams::~ComputeStreams() {
    if (!forked_) {
        return;
    }
    for (const ComputeContext& context : contexts_) {
        FAISS_EXT_CUDA_NOTHROW(cudaStreamSynchronize(context.stream));
    }
}

void ComputeStreams::open(size_t streams, size_t bytes, size_t shared) {
    const size_t each = roundUp(bytes, kAlignment);
    scratch_ = resources_.allocMemoryHandle(faiss::gpu::AllocRequest(
            faiss::gpu::AllocType::Other,
            device_,
            faiss::gpu::MemorySpace::Temporary,
            whole_.stream,
            kAlignment + streams * each + shared));
    if (!kept_.forked) {
        kept_.forked.emplace();
    }
    if (!kept_.joined) {
        kept_.joined.emplace();
    }
    while (kept_.streams.size() < streams) {
        kept_.streams.emplace_back();
    }
    const auto address = reinterpret_cast<uintptr_t>(scratch_.get());
    auto* memory = static_cast<char*>(scratch_.get()) +
                   (roundUp<uintptr_t>(address, kAlignment) - address);
    contexts_.clear();
    for (size_t i = 0; i < streams; ++i) {
        contexts_.push_back(
                {kept_.streams[i].get(),
                 static_cast<int>(i),
                 memory + i * each,
                 each});
    }
    shared_ = memory + streams * each;
}

Lane ComputeStreams::profiledAs(size_t i) const {
    return size() == 1 ? Lane::DefaultStream
                       : computeStream(static_cast<int>(i));
}

void ComputeStreams::fork() {
    if (size() == 1) {
        return;
    }
    forked_ = true;
    kept_.forked->record(whole_.stream);
    for (const ComputeContext& context : contexts_) {
        kept_.forked->orderBefore(context.stream);
    }
}

void ComputeStreams::join() {
    if (size() == 1) {
        return;
    }
    for (const ComputeContext& context : contexts_) {
        kept_.joined->record(context.stream);
        kept_.joined->orderBefore(whole_.stream);
    }
    forked_ = false;
}

} // namespace gpu
} // namespace faiss_ext
