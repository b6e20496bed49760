// Producers, consumers, and default streams that change.

#include "Scenario.h"

using namespace scenarios;

namespace {

std::shared_ptr<Subject> someIndex(Run& run) {
    Setup setup;
    setup.config.tileRows = run.pick(0, 4);
    setup.config.pipelineDepth = run.oneOf({0, 2, 3});
    return Subject::make(run, setup);
}

} // namespace

SCENARIO(device_queries_of_a_producer) {
    auto index = someIndex(run);
    index->searchBetween(run.stream(), index->defaultStream(), kAllDevice);
}

SCENARIO(pinned_queries_of_a_producer) {
    auto index = someIndex(run);
    index->searchBetween(
            run.stream(),
            index->defaultStream(),
            {Memory::Pinned, Memory::Device, Memory::Device});
}

SCENARIO(results_for_a_consumer) {
    auto index = someIndex(run);
    index->searchBetween(index->defaultStream(), run.stream(), kAllDevice);
}

SCENARIO(producer_and_consumer) {
    auto index = someIndex(run);
    const auto producer = run.stream();
    const auto consumer = run.stream();
    for (int i = 0; i < 3; ++i) {
        index->searchBetween(
                producer,
                consumer,
                {run.oneOf({Memory::Device, Memory::Pinned, Memory::Managed}),
                 Memory::Device,
                 Memory::Device});
    }
}

SCENARIO(one_stream_produces_and_consumes) {
    auto index = someIndex(run);
    const auto stream = run.stream();
    for (int i = 0; i < 3; ++i) {
        index->searchBetween(stream, stream, kAllDevice);
    }
}

SCENARIO(the_legacy_stream_produces_and_consumes) {
    auto index = someIndex(run);
    index->searchBetween(cudaStreamLegacy, cudaStreamLegacy, kAllDevice);
    index->searchBetween(cudaStreamPerThread, cudaStreamPerThread, kAllDevice);
}

SCENARIO(many_producers) {
    auto index = someIndex(run);
    for (int i = 0; i < 4; ++i) {
        index->searchBetween(run.stream(), index->defaultStream(), kAllDevice);
    }
}

SCENARIO(a_users_default_stream) {
    run.resources()->setDefaultStream(0, run.stream());
    auto index = someIndex(run);
    index->search(kToDevice);
    index->search(kAllPageable);
    index->reconstructN(Memory::Device);
    index->destroy();
    run.settle();
    run.resources()->revertDefaultStream(0);
}

SCENARIO(a_default_stream_set_and_reverted) {
    auto index = someIndex(run);
    index->search(kToDevice);
    run.resources()->setDefaultStream(0, run.stream());
    index->search(kToDevice);
    index->search(kAllPageable);
    run.resources()->revertDefaultStream(0);
    index->search(kToDevice);
}

SCENARIO(a_default_stream_for_each_search) {
    auto index = someIndex(run);
    for (int i = 0; i < 4; ++i) {
        run.resources()->setDefaultStream(0, run.stream());
        index->search({run.anyMemory(), Memory::Device, Memory::Device});
    }
    run.resources()->revertDefaultStream(0);
    index->search(kAllPageable);
}

SCENARIO(the_legacy_stream_as_default_stream) {
    auto index = someIndex(run);
    index->search(kToDevice);
    run.resources()->setDefaultNullStreamAllDevices();
    index->search(kToDevice);
    index->search(kAllPageable);
    index->destroy();
    run.settle();
    run.resources()->revertDefaultStream(0);
}
