// Searches by the exact engine, whatever the seed: what it keeps, its scratch
// memory, and its self-test.

#include <faiss_ext/gpu/compute/TensorCoreSelfTest.h>

#include "Scenario.h"

using namespace scenarios;

namespace {

/// Enough vectors for several chunks, and lists that are short.
Setup exactly(int vectors = 300) {
    Setup setup;
    setup.dims = 3;
    setup.vectors = vectors;
    setup.config.search = "exact";
    setup.config.exactVectors = 128;
    setup.config.exactQueries = 5;
    setup.config.exactSurvivors = 20;
    return setup;
}

Places few(const Places& places, int n = 9) {
    Places few = places;
    few.n = n;
    few.k = 3;
    return few;
}

} // namespace

SCENARIO(exact_searches_one_after_another) {
    auto index = Subject::make(run, exactly());
    index->search(few(kAllDevice));
    index->search(few(kAllPageable, 4));
    index->search(few(kToDevice));
    index->search(few(kAllPinned));
}

SCENARIO(exact_searches_in_tiles) {
    Setup setup = exactly(200);
    setup.config.tileRows = 4;
    setup.config.pipelineDepth = run.pick(1, 3);
    auto index = Subject::make(run, setup);
    index->search(few(kAllPageable, 13));
    index->search(few(kAllPinned, 13));
    index->search(few(kAllDevice, 13));
}

SCENARIO(exact_searches_of_float16_vectors) {
    Setup setup = exactly();
    // With and without copies of the vectors.
    setup.dims = run.oneOf({5, 8});
    setup.float16 = true;
    setup.innerProduct = run.coin();
    auto index = Subject::make(run, setup);
    index->search(few(kAllDevice));
    index->search(few(kAllPageable));
}

SCENARIO(exact_searches_between_changes) {
    auto index = Subject::make(run, exactly(20));
    index->search(few(kAllDevice));
    index->add(Memory::Device, 150);
    index->search(few(kToDevice));
    index->search(few(kAllPageable));
    index->add(Memory::Pinned, 1);
    index->search(few(kAllDevice));
    index->clear();
    index->search(few(kAllDevice));
    index->add(Memory::Pageable, 40);
    index->search(few(kAllPageable));
    index->copyFrom(40);
    index->search(few(kToDevice));
}

SCENARIO(exact_searches_without_temporary_memory) {
    run.setFaissTemporary(0);
    auto index = Subject::make(run, exactly());
    index->search(few(kAllDevice));
    index->search(few(kAllPageable));
}

SCENARIO(the_first_exact_search_of_a_process) {
    faiss_ext::gpu::rememberSelfTest(0, std::nullopt);
    auto index = Subject::make(run, exactly(20));
    index->search(few(kAllDevice));
    index->search(few(kAllPageable));
    index->destroy();
}

SCENARIO(an_index_that_goes_while_an_exact_search_is_in_flight) {
    auto index = Subject::make(run, exactly());
    index->search(few(kAllDevice));
    index->search(few(kToDevice));
    index->destroy();
}

SCENARIO(exact_searches_of_two_indexes_of_the_same_resources) {
    auto one = Subject::make(run, exactly());
    auto other = Subject::make(run, exactly(150));
    one->search(few(kAllDevice));
    other->search(few(kAllDevice));
    one->search(few(kAllPageable));
    other->assign(Memory::Pageable, Memory::Device);
    other->destroy();
    one->search(few(kAllDevice));
}

THREADED_SCENARIO(exact_searches_of_many_threads) {
    auto index = Subject::make(run, exactly(150));
    index->searchFromThreads(3, 2);
}
