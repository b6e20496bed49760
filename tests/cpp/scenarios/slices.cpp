// Searches of few queries, in slices of the vectors side by side.

#include "Scenario.h"

using namespace scenarios;

namespace {

Setup inSlices(int lanes, int tileRows = 0) {
    Setup setup;
    setup.dims = 2;
    setup.vectors = 60;
    setup.config.computeLanes = lanes;
    setup.config.sliceVectors = 8;
    setup.config.tileRows = tileRows;
    return setup;
}

Places few(const Places& places, int n = 3) {
    Places few = places;
    few.n = n;
    few.k = 2;
    return few;
}

} // namespace

SCENARIO(slices_one_search_after_another) {
    auto index = Subject::make(run, inSlices(run.pick(2, 8)));
    index->search(few(kAllDevice));
    index->search(few(kAllDevice, 4));
    index->search(few(kAllPageable));
    index->search(few(kToDevice));
    index->search(few(kAllPinned));
}

SCENARIO(slices_of_each_tile) {
    Setup setup = inSlices(3, 2);
    setup.config.pipelineDepth = run.pick(1, 3);
    auto index = Subject::make(run, setup);
    index->search(few(kAllPageable, 7));
    index->search(few(kAllPinned, 7));
    index->search(few(kAllDevice, 7));
}

SCENARIO(slices_and_the_lanes_of_many_queries) {
    auto index = Subject::make(run, inSlices(3));
    index->search(few(kAllDevice));
    index->search(few(kAllDevice, 1600));
    index->search(few(kToDevice));
    index->search(few(kAllPageable, 1600));
    index->search(few(kAllPageable));
}

SCENARIO(slices_of_a_float16_index) {
    Setup setup = inSlices(4);
    setup.float16 = true;
    auto index = Subject::make(run, setup);
    index->search(few(kAllPageable));
    index->search(few(kAllDevice));
}

SCENARIO(slices_that_change_between_searches) {
    auto index = Subject::make(run, inSlices(4));
    index->search(few(kAllDevice));
    index->add(Memory::Device, 9);
    index->search(few(kToDevice));
    index->clear();
    index->add(Memory::Pageable, 30);
    index->search(few(kAllPageable));
}
