// Failures on top of failures, and device memory that outlives its index.

#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <faiss_ext/gpu/resources/DeviceBuffer.h>

#include "Scenario.h"

using namespace scenarios;
using faiss_ext::gpu::DeviceBuffer;

namespace {

/// A wait fails, and so do the waits that should end the work then. What is
/// still in flight must not touch the caller's arrays.
void failWithoutWait(Run& run, const Places& places) {
    Setup setup;
    setup.config.tileRows = 2;
    setup.config.pipelineDepth = run.pick(2, 3);
    auto index = Subject::make(run, setup);
    index->search(kAllPageable);
    cuda_sim_fail_call(
            "libfaiss_ext/cudaEventSynchronize", 1, cudaErrorInvalidValue);
    for (int nth = 1; nth <= 8; ++nth) {
        cuda_sim_fail_call(
                "libfaiss_ext/cudaStreamSynchronize",
                nth,
                cudaErrorInvalidValue);
    }
    bool failed = false;
    try {
        index->search(places);
    } catch (const faiss_ext::gpu::CudaError&) {
        failed = true;
    }
    cuda_sim_clear_faults();
    require(failed || run.faulty(), "nothing failed");
    cuda(cudaDeviceSynchronize());
    run.answersAfterFault();
}

void useDeviceBuffer(Run& run, int device) {
    auto own = std::make_unique<faiss::gpu::StandardGpuResources>();
    own->setTempMemory(size_t(1) << 20);
    own->setPinnedMemory(0);
    auto resources = own->getResources();
    std::shared_ptr<DeviceBuffer> buffer;
    try {
        buffer = std::make_shared<DeviceBuffer>(resources, device, 4096);
    } catch (...) {
        // Without a buffer, nobody keeps Faiss from aborting when these end on
        // a lost device.
        if (run.faulty()) {
            own.release();
        }
        throw;
    }
    // Nobody but the buffer holds them now.
    resources.reset();
    own.reset();
    run.keep(buffer);
    const Bytes values(4096, 'x');
    const auto stream = cudaStreamPerThread;
    cuda(cudaMemcpyAsync(
            buffer->data(), values.data(), 4096, cudaMemcpyDefault, stream));
    cuda(cudaStreamSynchronize(stream));
    int current = -1;
    cuda(cudaGetDevice(&current));
    require(current == 0, "another device is current");
}

} // namespace

SCENARIO(a_failed_search_that_cannot_be_waited_for) {
    failWithoutWait(
            run, {Memory::Pageable, Memory::Pageable, Memory::Pageable, 16, 3});
}

SCENARIO(a_device_buffer_keeps_its_resources) {
    // For the sweep: faults begin when the first resources are there.
    run.resources();
    useDeviceBuffer(run, 0);
}

SCENARIO(a_device_buffer_on_the_other_gpu) {
    run.resources();
    useDeviceBuffer(run, 1);
}
