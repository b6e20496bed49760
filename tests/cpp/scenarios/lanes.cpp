// Searches whose parts are computed side by side.

#include "Scenario.h"

using namespace scenarios;

namespace {

Setup onLanes(int lanes, int tileRows = 0) {
    Setup setup;
    setup.dims = 2;
    setup.vectors = 20;
    setup.config.computeLanes = lanes;
    setup.config.tileRows = tileRows;
    return setup;
}

/// Of so many queries that three lanes have something to do.
Places large(const Places& places, int n = 1600) {
    Places large = places;
    large.n = n;
    large.k = 2;
    return large;
}

} // namespace

SCENARIO(lanes_within_one_tile) {
    auto index = Subject::make(run, onLanes(3));
    index->search(large(kAllPageable));
    index->search(large(kAllPageable));
}

SCENARIO(lanes_that_go_on_from_tile_to_tile) {
    Setup setup = onLanes(3, 300);
    setup.config.pipelineDepth = run.pick(1, 4);
    auto index = Subject::make(run, setup);
    index->search(large(kAllPageable));
    index->search(large(kAllPinned));
}

SCENARIO(lanes_of_device_searches) {
    auto index = Subject::make(run, onLanes(3, run.pick(0, 1) * 300));
    index->search(large(kAllDevice));
    index->search(large(kToDevice));
    index->search(large(kAllDevice));
}

SCENARIO(more_and_fewer_lanes) {
    auto index = Subject::make(run, onLanes(6, 700));
    for (int n : {1100, 3100, 5, 1600}) {
        index->search(large(kAllPageable, n));
        index->search(large(kToDevice, n));
    }
}

SCENARIO(lanes_of_a_float16_index) {
    Setup setup = onLanes(3, 500);
    setup.float16 = true;
    auto index = Subject::make(run, setup);
    index->search(large(kAllPageable));
    index->search(large(kAllDevice));
}

SCENARIO(an_index_that_changes_between_searches_on_lanes) {
    auto index = Subject::make(run, onLanes(3, run.pick(0, 1) * 300));
    index->search(large(kAllDevice));
    index->add(Memory::Device, 9);
    index->search(large(kToDevice));
    index->clear();
    index->add(Memory::Pageable, 7);
    index->search(large(kAllPageable));
}
