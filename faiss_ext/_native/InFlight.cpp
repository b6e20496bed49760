#include "InFlight.h"

#include "PythonObjects.h"

namespace faiss_ext {

InFlight& InFlight::ofProcess() {
    // Never destroyed: at the end of the process CUDA may be gone before.
    static auto* only = new InFlight;
    return *only;
}

void InFlight::keep(
        cudaStream_t stream,
        int device,
        PyObject* owners,
        const std::vector<cudaStream_t>& andThen) {
    // Before the lock, which nobody gives back who held it at a fork.
    gpu::beforeCuda();
    gpu::Event mark = takeEvent(device);
    mark.record(stream);
    for (cudaStream_t later : andThen) {
        mark.orderBefore(later);
    }
    std::lock_guard<std::mutex> guard(mutex_);
    lines_[{stream, device}].push_back({std::move(mark), owners});
}

void InFlight::order(cudaStream_t earlier, cudaStream_t later, int device) {
    gpu::beforeCuda();
    gpu::Event reached = takeEvent(device);
    reached.record(earlier);
    reached.orderBefore(later);
    // A stream waits for what the event marked when it was told to.
    putBack(device, std::move(reached));
}

InFlight::Done InFlight::takeDone() {
    Done done;
    if (gpu::lostByFork()) {
        // The parent's.
        return done;
    }
    std::lock_guard<std::mutex> guard(mutex_);
    for (auto line = lines_.begin(); line != lines_.end();) {
        auto& kept = line->second;
        auto& idle = idle_[line->first.second];
        while (!kept.empty() && kept.front().mark.isOver()) {
            done.push_back(kept.front().owners);
            idle.push_back(std::move(kept.front().mark));
            kept.pop_front();
        }
        line = kept.empty() ? lines_.erase(line) : std::next(line);
    }
    return done;
}

InFlight::Done InFlight::takeAll() {
    if (gpu::lostByFork()) {
        return {};
    }
    decltype(lines_) lines;
    decltype(idle_) idle;
    {
        std::lock_guard<std::mutex> guard(mutex_);
        lines.swap(lines_);
        idle.swap(idle_);
    }
    Done done;
    for (auto& line : lines) {
        for (Kept& kept : line.second) {
            try {
                kept.mark.wait();
            } catch (const gpu::CudaError&) {
                // Either the context is lost, or nobody knows.
            }
            if (kept.mark.isOver()) {
                done.push_back(kept.owners);
            }
        }
    }
    return done;
}

void InFlight::giveUp(Done& done) {
    for (PyObject* owners : done) {
        Py_DECREF(owners);
    }
    done.clear();
}

gpu::Event InFlight::takeEvent(int device) {
    {
        std::lock_guard<std::mutex> guard(mutex_);
        auto& idle = idle_[device];
        if (!idle.empty()) {
            gpu::Event event = std::move(idle.back());
            idle.pop_back();
            return event;
        }
    }
    return gpu::Event();
}

void InFlight::putBack(int device, gpu::Event event) {
    std::lock_guard<std::mutex> guard(mutex_);
    idle_[device].push_back(std::move(event));
}

PyObject* keepInFlight(cudaStream_t stream, int device, PyObject* owners) {
    return guarded([&] {
        Reference kept(Py_NewRef(owners));
        std::exception_ptr problem;
        {
            Unlocked unlocked;
            try {
                gpu::sleepAtEnd([&] {
                    const gpu::DeviceGuard current(device);
                    InFlight::ofProcess().keep(stream, device, kept.get(), {});
                });
            } catch (...) {
                problem = std::current_exception();
            }
        }
        if (problem) {
            std::rethrow_exception(problem);
        }
        kept.release();
        return Py_NewRef(Py_None);
    });
}

namespace {

/// Gives up what `take` gives, which is called without the interpreter's lock.
template <typename Take>
PyObject* giveUpWhat(const Take& take) {
    InFlight::Done done;
    {
        Unlocked unlocked;
        done = take();
    }
    InFlight::giveUp(done);
    return Py_NewRef(Py_None);
}

} // namespace

PyObject* letGo() {
    return giveUpWhat([] { return InFlight::ofProcess().takeDone(); });
}

PyObject* finishInFlight() {
    return giveUpWhat([] { return InFlight::ofProcess().takeAll(); });
}

} // namespace faiss_ext
