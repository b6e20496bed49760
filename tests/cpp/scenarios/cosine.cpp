// Indexes that normalise what is added and what is searched.

#include "Scenario.h"

using namespace scenarios;

namespace {

/// By the exact engine, or by Faiss' kernels. (How often is called is the same
/// for every seed where faults are injected.)
Setup cosine(Run& run) {
    Setup setup;
    setup.cosine = true;
    setup.config.search =
            run.faulty() ? "exact" : run.oneOf({"exact", "faiss"});
    setup.dims = run.faulty() ? 4 : run.oneOf({1, 3, 4, 33, 132});
    setup.vectors = run.pick(1, 60);
    return setup;
}

Setup byFaiss(int lanes, int64_t sliceVectors) {
    Setup setup;
    setup.cosine = true;
    setup.dims = 2;
    setup.vectors = 60;
    setup.config.search = "faiss";
    setup.config.computeLanes = lanes;
    setup.config.sliceVectors = sliceVectors;
    return setup;
}

Places some(const Places& places, int n) {
    Places some = places;
    some.n = n;
    some.k = 2;
    return some;
}

void searchAndChange(Subject& index) {
    index.search(kAllDevice);
    index.add(Memory::Device, 20);
    index.search(kToDevice);
    index.add(Memory::Pinned, 7);
    index.search(kAllPageable);
    index.clear();
    index.search(kAllPinned);
    index.add(Memory::Pageable, 9);
    index.search(kAllDevice);
    index.copyFrom(30);
    index.search(kAllPageable);
}

} // namespace

SCENARIO(cosine_searches_between_changes) {
    searchAndChange(*Subject::make(run, cosine(run)));
}

SCENARIO(cosine_searches_of_float16_vectors_between_changes) {
    Setup setup = cosine(run);
    setup.float16 = true;
    searchAndChange(*Subject::make(run, setup));
}

SCENARIO(cosine_searches_on_memory_of_a_pool) {
    run.usePool();
    Setup setup = cosine(run);
    setup.float16 = run.coin();
    searchAndChange(*Subject::make(run, setup));
}

SCENARIO(cosine_searches_in_tiles) {
    Setup setup = cosine(run);
    setup.config.tileRows = 4;
    setup.config.pipelineDepth = run.pick(1, 3);
    auto index = Subject::make(run, setup);
    index->search(some(kAllPageable, 13));
    index->search(some(kAllPinned, 13));
    index->search(some(kAllDevice, 13));
    index->search(some(kToDevice, 13));
}

SCENARIO(cosine_searches_on_lanes) {
    auto index = Subject::make(run, byFaiss(3, 0));
    index->search(some(kAllDevice, 1600));
    index->search(some(kAllPageable, 1600));
    index->search(some(kToDevice, 1100));
}

SCENARIO(cosine_searches_in_slices) {
    auto index = Subject::make(run, byFaiss(run.pick(2, 8), 8));
    index->search(some(kAllDevice, 3));
    index->search(some(kAllDevice, 4));
    index->search(some(kAllPageable, 3));
    index->search(some(kToDevice, 3));
}

SCENARIO(cosine_searches_without_temporary_memory) {
    run.setFaissTemporary(0);
    auto index = Subject::make(run, cosine(run));
    index->search(some(kAllDevice, 9));
    index->search(some(kAllPageable, 9));
}

SCENARIO(cosine_calls_of_every_kind) {
    auto index = Subject::make(run, cosine(run));
    index->assign(run.anyMemory(), Memory::Device);
    index->searchAndReconstruct(kAllDevice, Memory::Device);
    index->reconstructN(Memory::Device);
    index->residuals(Memory::Device, Memory::Pageable, Memory::Device);
    index->searchPacked(Memory::Pageable, Memory::Pageable);
    index->profileSearch(kAllPageable);
}

SCENARIO(a_cosine_search_between_streams_of_others) {
    auto index = Subject::make(run, cosine(run));
    index->searchBetween(run.stream(), run.stream(), kAllDevice);
    index->searchBetween(run.stream(), run.stream(), kAllDevice);
}

THREADED_SCENARIO(cosine_searches_of_many_threads) {
    auto index = Subject::make(run, cosine(run));
    index->searchFromThreads(3, 2);
}
