// Device memory from a pool that lends again at once what it gets back. Every
// scenario runs on one under half of its seeds; these do so always, and with
// each of their calls failing.

#include "Scenario.h"

using namespace scenarios;

namespace {

std::shared_ptr<Subject> pooledIndex(Run& run) {
    run.usePool();
    Setup setup;
    setup.config.tileRows = run.pick(0, 4);
    return Subject::make(run, setup);
}

} // namespace

SCENARIO(searches_on_memory_of_a_pool) {
    auto index = pooledIndex(run);
    index->search(kAllPageable);
    index->search(kToDevice);
    index->search(kAllDevice);
}

SCENARIO(vectors_that_move_within_a_pool) {
    auto index = pooledIndex(run);
    for (int i = 0; i < 3; ++i) {
        index->search(kToDevice);
        index->add(Memory::Pageable, run.pick(1, 40));
    }
    index->search(kAllPageable);
}

SCENARIO(memory_given_back_after_a_users_stream) {
    auto index = pooledIndex(run);
    index->search(kToDevice);
    {
        FaissAtWork here;
        run.resources()->setDefaultStream(0, run.stream());
    }
    index->search(kToDevice);
    index->add(Memory::Pageable, 20);
    index->clear();
    {
        FaissAtWork here;
        run.resources()->revertDefaultStream(0);
    }
    index->add(Memory::Pageable, 20);
    index->search(kToDevice);
}

SCENARIO(an_index_made_of_what_another_gave_back) {
    for (int i = 0; i < 3; ++i) {
        auto index = pooledIndex(run);
        index->search(kToDevice);
        index->search(kAllPageable);
        index->destroy();
    }
}
