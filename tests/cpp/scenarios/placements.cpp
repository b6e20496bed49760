// Arrays in every kind of memory, in every mixture.

#include "Scenario.h"

using namespace scenarios;

namespace {

Setup someTiles(Run& run) {
    Setup setup;
    setup.config.tileRows = run.oneOf({0, 1, 2, 3, 7});
    setup.config.pipelineDepth = run.oneOf({0, 1, 2, 3, 4});
    return setup;
}

void twice(Run& run, const Places& places) {
    auto index = Subject::make(run, someTiles(run));
    index->search(places);
    index->search(places);
}

} // namespace

SCENARIO(everything_pinned) {
    twice(run, kAllPinned);
}

SCENARIO(everything_managed) {
    twice(run, {Memory::Managed, Memory::Managed, Memory::Managed});
}

SCENARIO(pageable_queries_pinned_results) {
    twice(run, {Memory::Pageable, Memory::Pinned, Memory::Pinned});
}

SCENARIO(pinned_queries_pageable_results) {
    twice(run, {Memory::Pinned, Memory::Pageable, Memory::Pageable});
}

SCENARIO(device_queries_pageable_results) {
    twice(run, {Memory::Device, Memory::Pageable, Memory::Pageable});
}

SCENARIO(device_queries_pinned_results) {
    twice(run, {Memory::Device, Memory::Pinned, Memory::Pinned});
}

SCENARIO(distances_on_the_device_labels_pageable) {
    twice(run, {Memory::Pageable, Memory::Device, Memory::Pageable});
}

SCENARIO(distances_pinned_labels_on_the_device) {
    twice(run, {Memory::Pageable, Memory::Pinned, Memory::Device});
}

SCENARIO(distances_pageable_labels_pinned) {
    twice(run, {Memory::Device, Memory::Pageable, Memory::Pinned});
}

SCENARIO(distances_managed_labels_pageable) {
    twice(run, {Memory::Managed, Memory::Managed, Memory::Pageable});
}

SCENARIO(results_in_one_block) {
    auto index = Subject::make(run, someTiles(run));
    for (int i = 0; i < 3; ++i) {
        index->searchPacked(run.anyMemory(), run.anyMemory());
    }
}

SCENARIO(any_mixture_on_a_full_gpu) {
    run.useNoPool();
    run.setFaissTemporary(size_t(1) << 20);
    Setup setup = someTiles(run);
    setup.full = true;
    auto index = Subject::make(run, setup);
    for (int i = 0; i < 4; ++i) {
        index->search({run.anyMemory(), run.anyMemory(), run.anyMemory()});
    }
}

SCENARIO(any_mixture) {
    auto index = Subject::make(run, someTiles(run));
    for (int i = 0; i < 4; ++i) {
        index->search({run.anyMemory(), run.anyMemory(), run.anyMemory()});
    }
}

SCENARIO(any_mixture_at_any_size) {
    auto index = Subject::make(run, someTiles(run));
    for (int i = 0; i < 4; ++i) {
        index->search(
                {run.anyMemory(),
                 run.anyMemory(),
                 run.anyMemory(),
                 run.pick(1, 40),
                 run.pick(1, 12)});
    }
}
