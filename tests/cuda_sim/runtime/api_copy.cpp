// Copies and fills: late, in pieces, and the synchronous parts of them.

#include <algorithm>
#include <cstring>

#include "Call.h"

using namespace cuda_sim;

namespace {

struct End {
    Allocation* allocation = nullptr;

    bool device() const {
        return allocation && (allocation->kind == MemoryKind::Device ||
                              allocation->kind == MemoryKind::Managed);
    }
    bool pageable() const {
        return !allocation;
    }
    bool hostReachable() const {
        return !allocation || allocation->kind != MemoryKind::Device;
    }
    const char* name() const {
        return pageable() ? "pageable host"
               : device() ? "device"
                          : "pinned host";
    }
};

/// One or more rows of bytes.
struct Shape {
    size_t width = 0;
    size_t height = 1;
    size_t dstPitch = 0;
    size_t srcPitch = 0;

    size_t bytes() const {
        return width * height;
    }
    size_t span(size_t pitch) const {
        return (height - 1) * pitch + width;
    }
};

bool kindFits(cudaMemcpyKind kind, const End& dst, const End& src) {
    // Pinned and managed memory can be reached from both sides.
    bool srcOnDevice = !src.pageable();
    bool dstOnDevice = !dst.pageable();
    switch (kind) {
        case cudaMemcpyHostToHost:
            return dst.hostReachable() && src.hostReachable();
        case cudaMemcpyHostToDevice:
            return dstOnDevice && src.hostReachable();
        case cudaMemcpyDeviceToHost:
            return dst.hostReachable() && srcOnDevice;
        case cudaMemcpyDeviceToDevice:
            return dstOnDevice && srcOnDevice;
        default:
            return true;
    }
}

void countCopy(const End& dst, const End& src, size_t bytes) {
    auto add = [&](Counter copies, Counter total) {
        ++sim().count(copies);
        sim().count(total) += bytes;
    };
    if (dst.device() && src.device()) {
        if (dst.allocation->device != src.allocation->device) {
            add(Counter::copies_p2p, Counter::bytes_p2p);
        } else {
            add(Counter::copies_d2d, Counter::bytes_d2d);
        }
    } else if (dst.device()) {
        if (src.pageable()) {
            add(Counter::copies_h2d_pageable, Counter::bytes_h2d_pageable);
        } else {
            add(Counter::copies_h2d_pinned, Counter::bytes_h2d_pinned);
        }
    } else if (src.device()) {
        if (dst.pageable()) {
            add(Counter::copies_d2h_pageable, Counter::bytes_d2h_pageable);
        } else {
            add(Counter::copies_d2h_pinned, Counter::bytes_d2h_pinned);
        }
    } else {
        add(Counter::copies_h2h, Counter::bytes_h2h);
    }
}

/// Moves the shape in pieces, one a step. Reads from `staged` if given.
std::function<bool()> copyStep(
        void* dst,
        const void* src,
        const Shape& shape,
        std::shared_ptr<std::vector<char>> staged,
        bool poisonFirst) {
    size_t pieces = std::max(1, sim().settings.copyPieces);
    pieces = std::min(pieces, shape.bytes());
    bool backwards = sim().scheduler.random(2) != 0;
    size_t next = 0;
    return [=]() mutable {
        auto& s = sim();
        auto* to = static_cast<char*>(s.view(dst, shape.span(shape.dstPitch)));
        auto* from = staged ? staged->data()
                            : static_cast<char*>(
                                      s.view(src, shape.span(shape.srcPitch)));
        if (!to || !from) {
            return true;
        }
        if (next == 0 && poisonFirst) {
            for (size_t row = 0; row < shape.height; ++row) {
                fillPoison(to + row * shape.dstPitch, shape.width);
            }
        }
        size_t piece = backwards ? pieces - 1 - next : next;
        size_t begin = shape.bytes() * piece / pieces;
        size_t end = shape.bytes() * (piece + 1) / pieces;
        size_t srcPitch = staged ? shape.width : shape.srcPitch;
        while (begin < end) {
            size_t row = begin / shape.width;
            size_t column = begin % shape.width;
            size_t n = std::min(end - begin, shape.width - column);
            memmove(to + row * shape.dstPitch + column,
                    from + row * srcPitch + column,
                    n);
            begin += n;
        }
        return ++next == pieces;
    };
}

cudaError_t copy(
        Call& call,
        void* dst,
        const void* src,
        const Shape& shape,
        cudaMemcpyKind kind,
        cudaStream_t handle,
        bool async) {
    auto& s = sim();
    auto* stream = s.resolve(handle, call.name().c_str());
    if (!stream) {
        return cudaErrorInvalidResourceHandle;
    }
    if (shape.bytes() == 0) {
        return cudaSuccess;
    }
    if (shape.dstPitch < shape.width || shape.srcPitch < shape.width) {
        return cudaErrorInvalidPitchValue;
    }
    End to, from;
    size_t dstSpan = shape.span(shape.dstPitch);
    size_t srcSpan = shape.span(shape.srcPitch);
    auto error = s.checkRange(
            dst, dstSpan, false, &to.allocation, call.name() + " destination");
    if (error == cudaSuccess) {
        error = s.checkRange(
                src, srcSpan, false, &from.allocation, call.name() + " source");
    }
    if (error != cudaSuccess) {
        return error;
    }
    std::string what = call.name() + " " + from.name() + " to " + to.name() +
                       ", " + std::to_string(shape.bytes()) + " bytes";
    if (!kindFits(kind, to, from)) {
        s.report(
                CUDA_SIM_REPORT_BAD_ARGUMENT,
                "bad argument: the copy kind " + std::to_string(kind) +
                        " does not fit " + what + "\n  call " +
                        std::to_string(thisThread().sequence) + " from " +
                        describeCaller(thisThread().caller));
        return cudaErrorInvalidValue;
    }
    if (const auto refused = s.captures.errorOfUse(stream)) {
        return refused;
    }
    if (stream->capture) {
        Captures::add(stream, [=](Call& replay, cudaStream_t on) {
            return copy(replay, dst, src, shape, kind, on, true);
        });
        return cudaSuccess;
    }
    countCopy(to, from, shape.bytes());

    bool hostToHost = !to.device() && !from.device();
    bool staged = from.pageable() && to.device() && !s.settings.blockingH2D;
    bool early = to.pageable() && from.device() && async && s.settings.earlyD2H;
    // What the runtime documents as synchronous with the host.
    bool waits = hostToHost ||
                 (from.pageable() && to.device() && s.settings.blockingH2D) ||
                 (to.pageable() && from.device() && !early) ||
                 (!async && !staged && !(to.device() && from.device()));
    Counter waitKind = async ? Counter::waits_pageable : Counter::waits_memcpy;

    std::shared_ptr<std::vector<char>> staging;
    if (staged) {
        if (!async) {
            // The blocking form first waits for what the stream has.
            error = s.waitForStream(Counter::waits_memcpy, stream, call.lock);
            if (error != cudaSuccess) {
                return error;
            }
        }
        for (size_t row = 0; row < shape.height; ++row) {
            s.readByHost(
                    static_cast<const char*>(src) + row * shape.srcPitch,
                    shape.width,
                    what + " (source read during the call)");
        }
        staging.reset(new std::vector<char>(shape.bytes()));
        for (size_t row = 0; row < shape.height; ++row) {
            memcpy(staging->data() + row * shape.width,
                   static_cast<const char*>(src) + row * shape.srcPitch,
                   shape.width);
        }
    }

    // The bytes at the host's end of the copy are nobody's until it is done.
    // Where an operation still reads them, they only become so later.
    bool poisonFirst = !to.device();
    bool poisonNow =
            poisonFirst && !waits &&
            !s.accesses.hasPending(reinterpret_cast<uintptr_t>(dst), dstSpan);

    auto operation = s.makeOperation(stream, what);
    operation->cost = 2000 + shape.bytes() / 25;
    for (size_t row = 0; row < shape.height; ++row) {
        if (!staged) {
            s.touch(*operation,
                    static_cast<const char*>(src) + row * shape.srcPitch,
                    shape.width,
                    false);
        }
        s.touch(*operation,
                static_cast<char*>(dst) + row * shape.dstPitch,
                shape.width,
                true);
        if (poisonNow) {
            fillPoison(
                    static_cast<char*>(dst) + row * shape.dstPitch,
                    shape.width);
        }
    }
    bool overlap =
            static_cast<char*>(dst) < static_cast<const char*>(src) + srcSpan &&
            static_cast<const char*>(src) < static_cast<char*>(dst) + dstSpan;
    operation->step =
            copyStep(dst, src, shape, staging, poisonFirst && !overlap);
    s.scheduler.enqueue(stream, operation);
    if (!waits) {
        return cudaSuccess;
    }
    error = s.wait(waitKind, {operation}, stream->device, what, call.lock);
    if (error == cudaErrorLaunchTimeout && !operation->done()) {
        // The caller's pageable bytes may be gone when it would execute.
        operation->step = nullptr;
    }
    // What was pageable memory in this call may be anything after it.
    if (from.pageable()) {
        s.accesses.erase(reinterpret_cast<uintptr_t>(src), srcSpan);
    }
    if (to.pageable()) {
        s.accesses.erase(reinterpret_cast<uintptr_t>(dst), dstSpan);
    }
    return error;
}

cudaError_t fill(
        Call& call, void* ptr, int value, size_t bytes, cudaStream_t handle) {
    auto& s = sim();
    auto* stream = s.resolve(handle, call.name().c_str());
    if (!stream) {
        return cudaErrorInvalidResourceHandle;
    }
    if (bytes == 0) {
        return cudaSuccess;
    }
    Allocation* allocation = nullptr;
    auto error = s.checkRange(ptr, bytes, true, &allocation, call.name());
    if (error != cudaSuccess) {
        return error;
    }
    if (const auto refused = s.captures.errorOfUse(stream)) {
        return refused;
    }
    if (stream->capture) {
        Captures::add(stream, [=](Call& replay, cudaStream_t on) {
            return fill(replay, ptr, value, bytes, on);
        });
        return cudaSuccess;
    }
    ++s.count(Counter::memsets);
    s.count(Counter::bytes_memset) += bytes;
    auto operation = s.makeOperation(
            stream, call.name() + ", " + std::to_string(bytes) + " bytes");
    s.touch(*operation, ptr, bytes, true);
    operation->cost = 1000 + bytes / 1000;
    operation->step = [=] {
        if (void* view = sim().view(ptr, bytes)) {
            memset(view, value, bytes);
        }
        return true;
    };
    s.scheduler.enqueue(stream, operation);
    return cudaSuccess;
}

} // namespace

extern "C" {

cudaError_t cudaMemcpy(
        void* dst, const void* src, size_t bytes, cudaMemcpyKind kind) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(
            copy(call, dst, src, {bytes, 1, bytes, bytes}, kind, 0, false));
}

cudaError_t cudaMemcpyAsync(
        void* dst,
        const void* src,
        size_t bytes,
        cudaMemcpyKind kind,
        cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(
            copy(call, dst, src, {bytes, 1, bytes, bytes}, kind, stream, true));
}

cudaError_t cudaMemcpyPeer(
        void* dst,
        int dstDevice,
        const void* src,
        int srcDevice,
        size_t bytes) {
    CUDA_SIM_CALL(Call::Normal);
    if (!sim().exists(dstDevice) || !sim().exists(srcDevice)) {
        return call.done(cudaErrorInvalidDevice);
    }
    return call.done(
            copy(call,
                 dst,
                 src,
                 {bytes, 1, bytes, bytes},
                 cudaMemcpyDeviceToDevice,
                 0,
                 false));
}

cudaError_t cudaMemcpyPeerAsync(
        void* dst,
        int dstDevice,
        const void* src,
        int srcDevice,
        size_t bytes,
        cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    if (!sim().exists(dstDevice) || !sim().exists(srcDevice)) {
        return call.done(cudaErrorInvalidDevice);
    }
    return call.done(
            copy(call,
                 dst,
                 src,
                 {bytes, 1, bytes, bytes},
                 cudaMemcpyDeviceToDevice,
                 stream,
                 true));
}

cudaError_t cudaMemcpy2D(
        void* dst,
        size_t dstPitch,
        const void* src,
        size_t srcPitch,
        size_t width,
        size_t height,
        cudaMemcpyKind kind) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(
            copy(call,
                 dst,
                 src,
                 {width, height, dstPitch, srcPitch},
                 kind,
                 0,
                 false));
}

cudaError_t cudaMemcpy2DAsync(
        void* dst,
        size_t dstPitch,
        const void* src,
        size_t srcPitch,
        size_t width,
        size_t height,
        cudaMemcpyKind kind,
        cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(
            copy(call,
                 dst,
                 src,
                 {width, height, dstPitch, srcPitch},
                 kind,
                 stream,
                 true));
}

cudaError_t cudaMemset(void* ptr, int value, size_t bytes) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(fill(call, ptr, value, bytes, 0));
}

cudaError_t cudaMemsetAsync(
        void* ptr, int value, size_t bytes, cudaStream_t stream) {
    CUDA_SIM_CALL(Call::Normal);
    return call.done(fill(call, ptr, value, bytes, stream));
}

} // extern "C"
