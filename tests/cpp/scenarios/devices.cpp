// Arrays and indexes on a second GPU.

#include "Scenario.h"

using namespace scenarios;

namespace {

Setup someTiles(Run& run) {
    Setup setup;
    setup.config.tileRows = run.pick(0, 4);
    setup.config.pipelineDepth = run.oneOf({0, 2, 3});
    return setup;
}

constexpr Memory kOther = Memory::OtherDevice;

} // namespace

SCENARIO(queries_on_the_other_gpu) {
    auto index = Subject::make(run, someTiles(run));
    for (int i = 0; i < 3; ++i) {
        index->search({kOther, Memory::Device, Memory::Device});
    }
    index->search({kOther, Memory::Pageable, Memory::Pageable});
}

SCENARIO(results_on_the_other_gpu) {
    auto index = Subject::make(run, someTiles(run));
    for (int i = 0; i < 3; ++i) {
        index->search({Memory::Device, kOther, kOther});
    }
    index->search({Memory::Pageable, kOther, Memory::Pageable});
}

SCENARIO(results_go_to_the_other_gpu_from_a_full_one) {
    run.useNoPool();
    run.setFaissTemporary(size_t(1) << 20);
    Setup setup = someTiles(run);
    setup.full = true;
    auto index = Subject::make(run, setup);
    for (int i = 0; i < 3; ++i) {
        index->search(
                {run.anyMemory(), kOther, run.oneOf({kOther, Memory::Device})});
    }
    index->search({Memory::Pageable, Memory::Pageable, kOther});
}

SCENARIO(everything_on_the_other_gpu) {
    auto index = Subject::make(run, someTiles(run));
    for (int i = 0; i < 3; ++i) {
        index->search({kOther, kOther, kOther});
    }
}

SCENARIO(distances_on_one_gpu_labels_on_the_other) {
    auto index = Subject::make(run, someTiles(run));
    index->search({Memory::Pageable, Memory::Device, kOther});
    index->search({Memory::Pinned, kOther, Memory::Device});
    index->search({Memory::Pinned, kOther, Memory::Pinned});
}

SCENARIO(destroyed_while_results_go_to_the_other_gpu) {
    auto index = Subject::make(run, someTiles(run));
    index->search({Memory::Pageable, kOther, kOther});
    index->destroy();
}

SCENARIO(vectors_on_the_other_gpu) {
    auto index = Subject::make(run, someTiles(run));
    index->add(kOther, 15);
    index->reconstructN(kOther);
    index->search(kAllPageable);
}

SCENARIO(an_index_on_the_other_gpu) {
    Setup setup = someTiles(run);
    setup.device = 1;
    auto index = Subject::make(run, setup);
    index->search(kAllPageable);
    index->search({Memory::Pageable, kOther, kOther});
    index->search({Memory::Device, kOther, Memory::Device});
    index->search({Memory::Pinned, Memory::Device, Memory::Device});
}

SCENARIO(an_index_on_the_other_gpu_grows) {
    Setup setup = someTiles(run);
    setup.device = 1;
    auto index = Subject::make(run, setup);
    for (Memory x :
         {Memory::Pageable, Memory::Pinned, Memory::Managed, kOther}) {
        index->add(x, run.pick(1, 20));
        index->search({Memory::Pageable, kOther, kOther});
    }
    index->search(kAllPageable);
}

SCENARIO(indexes_on_two_gpus_with_one_resources_object) {
    Setup other = someTiles(run);
    other.device = 1;
    auto first = Subject::make(run, someTiles(run));
    auto second = Subject::make(run, other);
    for (int i = 0; i < 2; ++i) {
        first->search(kToDevice);
        second->search({Memory::Pageable, kOther, kOther});
        first->search(kAllPageable);
        second->search(kAllPageable);
    }
}
