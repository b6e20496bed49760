#pragma once

// The worst caller that the contract allows: inputs are written just before a
// call, outputs hold rubbish, and all that may be overwritten or freed when the
// call returns is.

#include "Run.h"

namespace scenarios {

Bytes rubbish(size_t bytes);

/// An array of a call: where, and what it holds before.
struct Array {
    Memory memory;
    Bytes values;
};

inline Array output(Memory memory, size_t bytes) {
    return {memory, rubbish(bytes)};
}

template <typename T>
Array input(Memory memory, const std::vector<T>& values) {
    return {memory, bytesOf(values)};
}

using Pointers = std::vector<char*>;
using Work = std::function<void(const Pointers& in, const Pointers& out)>;
using Verify = std::function<void(const std::vector<Bytes>& outputs)>;

class Caller {
   public:
    /// Of methods of an index on `device` with this default stream. `full`: no
    /// GPU has any memory left while a method is called.
    Caller(Run& run,
           int device,
           std::function<cudaStream_t()> defaultStream,
           bool full)
            : run_(run),
              device_(device),
              defaultStream_(std::move(defaultStream)),
              full_(full) {}

    /// Calls `work` and has its outputs verified: at once where all are in host
    /// memory, otherwise later, in the order of the default stream of now.
    void call(
            const std::vector<Array>& inputs,
            const std::vector<Array>& outputs,
            const Work& work,
            const Verify& verify);

    /// Memory that already holds the values: the host wrote them, or the
    /// default stream is about to.
    std::shared_ptr<Buffer> given(const Array& array);

    /// Overwrites an input as soon as the contract allows it. waited: the call
    /// waited for its results.
    void takeAway(Buffer& buffer, bool waited);

   private:
    using Buffers = std::vector<std::shared_ptr<Buffer>>;

    void expectQuiet(const Buffers& in, const Buffers& out);

    Run& run_;
    const int device_;
    const std::function<cudaStream_t()> defaultStream_;
    const bool full_;
};

} // namespace scenarios
