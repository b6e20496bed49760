// Indexes that change, share, and end while searches are in flight.

#include "Scenario.h"

using namespace scenarios;

namespace {

Setup someTiles(Run& run) {
    Setup setup;
    setup.config.tileRows = run.pick(0, 4);
    setup.config.pipelineDepth = run.oneOf({0, 2, 3});
    return setup;
}

} // namespace

SCENARIO(add_after_a_device_search) {
    auto index = Subject::make(run, someTiles(run));
    index->search(kToDevice);
    index->add(Memory::Pageable, 17);
    index->search(kToDevice);
}

SCENARIO(add_from_every_memory) {
    auto index = Subject::make(run, someTiles(run));
    for (Memory x :
         {Memory::Pageable, Memory::Pinned, Memory::Managed, Memory::Device}) {
        index->add(x, run.pick(1, 20));
    }
    index->search(kAllPageable);
    index->reconstructN(Memory::Pageable, 40);
}

SCENARIO(add_that_moves_the_vectors) {
    auto index = Subject::make(run, someTiles(run));
    index->search(kToDevice);
    index->add(Memory::Pinned, 200);
    index->search(kToDevice);
    index->add(Memory::Device, 300);
    index->search(kAllPageable);
}

SCENARIO(reset_after_a_device_search) {
    auto index = Subject::make(run, someTiles(run));
    index->search(kToDevice);
    index->clear();
    index->add(Memory::Pageable, 25);
    index->search(kToDevice);
}

SCENARIO(copy_from_after_a_device_search) {
    auto index = Subject::make(run, someTiles(run));
    index->search(kToDevice);
    index->copyFrom(33);
    index->search(kToDevice);
    index->search(kAllPageable);
}

SCENARIO(destroyed_with_device_searches_in_flight) {
    auto index = Subject::make(run, someTiles(run));
    index->search(kToDevice);
    index->search(kToDevice);
    index->destroy();
}

SCENARIO(destroyed_with_device_searches_of_device_queries) {
    auto index = Subject::make(run, someTiles(run));
    index->search(kAllDevice);
    index->assign(Memory::Device, Memory::Device);
    index->destroy();
}

SCENARIO(destroyed_with_pinned_queries_in_flight) {
    auto index = Subject::make(run, someTiles(run));
    index->search({Memory::Pinned, Memory::Device, Memory::Device});
    index->destroy();
}

SCENARIO(destroyed_with_reconstructions_in_flight) {
    auto index = Subject::make(run, someTiles(run));
    index->reconstructN(Memory::Device);
    index->residuals(Memory::Pinned, Memory::Device, Memory::Device);
    index->destroy();
}

SCENARIO(never_used) {
    Subject::make(run, someTiles(run));
}

SCENARIO(one_after_another_on_the_same_resources) {
    for (int i = 0; i < 3; ++i) {
        auto index = Subject::make(run, someTiles(run));
        index->search(kToDevice);
        index->destroy();
    }
}

SCENARIO(two_indexes_on_one_resources_object) {
    auto first = Subject::make(run, someTiles(run));
    auto second = Subject::make(run, someTiles(run));
    for (int i = 0; i < 3; ++i) {
        first->search({run.anyMemory(), Memory::Device, Memory::Device});
        second->search({run.anyMemory(), Memory::Device, Memory::Device});
    }
    second->search(kAllPageable);
}

SCENARIO(one_of_two_indexes_is_destroyed) {
    auto first = Subject::make(run, someTiles(run));
    auto second = Subject::make(run, someTiles(run));
    first->search(kToDevice);
    second->search(kToDevice);
    first->destroy();
    second->search(kToDevice);
    second->search(kAllPageable);
}

SCENARIO(two_indexes_on_two_resources_objects) {
    Setup other = someTiles(run);
    other.resources = 1;
    auto first = Subject::make(run, someTiles(run));
    auto second = Subject::make(run, other);
    for (int i = 0; i < 2; ++i) {
        first->search(kToDevice);
        second->search(kToDevice);
        first->search(kAllPageable);
    }
}

THREADED_SCENARIO(threads_on_one_index) {
    auto index = Subject::make(run, someTiles(run));
    index->searchFromThreads(3, 2);
}

THREADED_SCENARIO(threads_after_device_searches) {
    auto index = Subject::make(run, someTiles(run));
    index->search(kToDevice);
    index->searchFromThreads(2, 2);
    index->search(kToDevice);
}
