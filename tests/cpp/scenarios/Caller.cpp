#include "Caller.h"

namespace scenarios {

namespace {

/// Takes what is left of the GPUs' memory away, for one scope.
class FullGpus {
   public:
    explicit FullGpus(bool full) : full_(full) {
        if (full_) {
            cuda_sim_set_device_memory(0);
        }
    }
    ~FullGpus() {
        if (full_) {
            cuda_sim_set_device_memory(size_t(1) << 34);
        }
    }

   private:
    const bool full_;
};

} // namespace

Bytes rubbish(size_t bytes) {
    return Bytes(bytes, 0x5b);
}

std::shared_ptr<Buffer> Caller::given(const Array& array) {
    auto buffer = std::make_shared<Buffer>(array.memory, array.values.size());
    if (array.memory == Memory::Pageable) {
        buffer->hostWrite(array.values);
        return buffer;
    }
    run_.keepBuffer(buffer);
    if (onHost(array.memory) && run_.coin()) {
        buffer->hostWrite(array.values);
    } else {
        buffer->streamWrite(array.values, defaultStream_());
    }
    return buffer;
}

void Caller::takeAway(Buffer& buffer, bool waited) {
    const Bytes other = rubbish(buffer.size());
    if (buffer.memory() == Memory::Pageable ||
        (waited && onHost(buffer.memory()))) {
        buffer.hostWrite(other);
    } else {
        buffer.streamWrite(other, defaultStream_());
    }
}

void Caller::call(
        const std::vector<Array>& inputs,
        const std::vector<Array>& outputs,
        const Work& work,
        const Verify& verify) {
    Buffers in;
    Buffers out;
    Pointers inPointers;
    Pointers outPointers;
    for (const Array& array : inputs) {
        in.push_back(given(array));
        inPointers.push_back(in.back()->data());
    }
    bool waited = false;
    bool toDevice = false;
    for (const Array& array : outputs) {
        out.push_back(given(array));
        outPointers.push_back(out.back()->data());
        waited |= onHost(array.memory);
        toDevice |= !onHost(array.memory);
    }
    // Of what the default stream has now, the call is not the author.
    cudaEvent_t before = nullptr;
    cuda(cudaSetDevice(device_));
    cuda(cudaEventCreateWithFlags(&before, cudaEventDisableTiming));
    cudaEventRecord(before, defaultStream_());
    cuda(cudaSetDevice(0));
    try {
        FullGpus full(full_);
        work(inPointers, outPointers);
    } catch (...) {
        cudaEventSynchronize(before);
        cudaEventDestroy(before);
        expectQuiet(in, out);
        throw;
    }
    cudaEventDestroy(before);
    // What is left there is thrown, or is fatal, in somebody else's call.
    require(cudaGetLastError() == cudaSuccess || run_.faulty(),
            "an error is left behind");
    for (auto& buffer : in) {
        takeAway(*buffer, waited);
    }
    std::vector<Bytes> found(out.size());
    for (size_t i = 0; i < out.size(); ++i) {
        if (onHost(out[i]->memory())) {
            found[i] = out[i]->hostRead();
        }
    }
    if (!toDevice) {
        verify(found);
        return;
    }
    const cudaStream_t stream = defaultStream_();
    run_.later([=]() mutable {
        for (size_t i = 0; i < out.size(); ++i) {
            if (!onHost(out[i]->memory())) {
                found[i] = out[i]->streamRead(stream);
            }
        }
        verify(found);
    });
}

/// The call threw: nothing in flight touches the caller's host memory any more,
/// whatever runs from now on.
void Caller::expectQuiet(const Buffers& in, const Buffers& out) {
    for (const auto& buffer : in) {
        if (buffer->memory() == Memory::Pageable) {
            // Not even reads it.
            buffer->forbid();
            run_.keepBuffer(buffer);
        } else if (onHost(buffer->memory())) {
            buffer->hostWrite(rubbish(buffer->size()));
        }
    }
    for (const auto& buffer : out) {
        if (onHost(buffer->memory())) {
            buffer->hostWrite(rubbish(buffer->size()));
            run_.afterFault([=] {
                require(buffer->hostRead() == rubbish(buffer->size()),
                        "host memory is written after the failed call");
            });
        }
    }
}

} // namespace scenarios
