// Searches whose results come back to the host, whole or in tiles.

#include "Scenario.h"

using namespace scenarios;

namespace {

Setup tiled(int rows, int depth = 0) {
    Setup setup;
    setup.config.tileRows = rows;
    setup.config.pipelineDepth = depth;
    return setup;
}

void searches(Run& run, const Setup& setup, const Places& places, int times) {
    auto index = Subject::make(run, setup);
    for (int i = 0; i < times; ++i) {
        index->search(places);
    }
}

} // namespace

SCENARIO(blocking_search_in_one_tile) {
    searches(run, {}, kAllPageable, 3);
}

SCENARIO(blocking_search_in_tiles_of_one_row) {
    searches(run, tiled(1), kAllPageable, 2);
}

SCENARIO(blocking_search_in_tiles_of_two_rows) {
    searches(run, tiled(2), kAllPageable, 2);
}

SCENARIO(blocking_search_in_tiles_of_five_rows) {
    searches(run, tiled(5), kAllPageable, 2);
}

SCENARIO(blocking_search_at_depth_one) {
    searches(run, tiled(2, 1), kAllPageable, 2);
}

SCENARIO(blocking_search_at_depth_two) {
    searches(run, tiled(2, 2), kAllPageable, 2);
}

SCENARIO(blocking_search_at_depth_four) {
    searches(run, tiled(2, 4), kAllPageable, 2);
}

SCENARIO(blocking_search_at_depth_five) {
    searches(run, tiled(2, 5), kAllPageable, 2);
}

SCENARIO(more_slots_than_tiles) {
    searches(run, tiled(8, 8), kAllPageable, 2);
}

SCENARIO(one_query) {
    auto index = Subject::make(run, tiled(run.pick(0, 3)));
    for (int i = 0; i < 4; ++i) {
        index->search(
                {Memory::Pageable, Memory::Pageable, Memory::Pageable, 1});
    }
}

SCENARIO(searches_that_grow) {
    auto index = Subject::make(run, tiled(0));
    for (int n : {2, 9, 21, 40}) {
        index->search(
                {Memory::Pageable, Memory::Pageable, Memory::Pageable, n});
    }
}

SCENARIO(tiles_that_grow) {
    // More neighbours, larger blocks: those of earlier tiles are exchanged.
    auto index = Subject::make(run, tiled(8, run.pick(2, 3)));
    for (int k : {1, 9, 25}) {
        index->search(
                {Memory::Pageable,
                 Memory::Pageable,
                 Memory::Pageable,
                 40,
                 k * 2});
        index->search(
                {Memory::Pageable, Memory::Device, Memory::Device, 40, k * 2});
    }
}

SCENARIO(blocks_grow_while_device_searches_are_in_flight) {
    auto index = Subject::make(run, tiled(8, 2));
    for (int k : {1, 16, 28}) {
        index->search(
                {Memory::Pageable, Memory::Device, Memory::Pinned, 34, k});
        index->search({Memory::Pinned, Memory::Device, Memory::Device, 34, k});
    }
}

SCENARIO(inputs_that_grow_while_device_searches_are_in_flight) {
    Setup setup = tiled(12, 2);
    setup.dims = 128;
    setup.vectors = 20;
    auto index = Subject::make(run, setup);
    for (int n : {13, 24, 37}) {
        index->search({Memory::Pinned, Memory::Device, Memory::Device, n});
    }
}

SCENARIO(blocking_search_after_device_searches) {
    auto index = Subject::make(run, tiled(run.pick(0, 4)));
    index->search(kToDevice);
    index->search(kToDevice);
    index->search(kAllPageable);
}

SCENARIO(device_search_after_blocking_searches) {
    auto index = Subject::make(run, tiled(run.pick(0, 4)));
    index->search(kAllPageable);
    index->search(kToDevice);
    index->search(kAllPageable);
    index->search(kToDevice);
}

SCENARIO(device_searches_back_to_back) {
    searches(run, {}, kAllDevice, 6);
}

SCENARIO(pageable_queries_to_device_back_to_back) {
    searches(run, {}, kToDevice, 6);
}

SCENARIO(pageable_queries_to_device_back_to_back_in_tiles) {
    searches(run, tiled(3), kToDevice, 4);
}

SCENARIO(pinned_queries_to_device_back_to_back_in_tiles) {
    searches(
            run,
            tiled(3, run.pick(1, 4)),
            {Memory::Pinned, Memory::Device, Memory::Device},
            4);
}

SCENARIO(managed_queries_to_device_back_to_back) {
    searches(
            run,
            tiled(run.pick(0, 4)),
            {Memory::Managed, Memory::Device, Memory::Device},
            4);
}

SCENARIO(inner_products) {
    Setup setup = tiled(run.pick(0, 6));
    setup.innerProduct = true;
    searches(run, setup, kAllPageable, 2);
}

SCENARIO(float16_in_one_tile) {
    Setup setup;
    setup.float16 = true;
    searches(run, setup, kAllPageable, 2);
}

SCENARIO(float16_in_tiles) {
    Setup setup = tiled(4);
    setup.float16 = true;
    auto index = Subject::make(run, setup);
    index->search(kToDevice);
    index->search(kAllPageable);
    index->reconstructN(Memory::Pageable);
}

SCENARIO(more_neighbours_than_vectors) {
    Setup setup = tiled(run.pick(0, 4));
    setup.vectors = 3;
    auto index = Subject::make(run, setup);
    index->search({Memory::Pageable, Memory::Pageable, Memory::Pageable, 9, 7});
    index->search({Memory::Pinned, Memory::Device, Memory::Pinned, 9, 7});
}

SCENARIO(an_empty_index) {
    Setup setup = tiled(run.pick(0, 4));
    setup.vectors = 0;
    auto index = Subject::make(run, setup);
    index->search(kAllPageable);
    index->search(kToDevice);
}

SCENARIO(profiled_searches) {
    auto index = Subject::make(run, tiled(run.pick(0, 3)));
    for (const Places& places :
         {kAllPageable,
          kToDevice,
          Places{Memory::Pinned, Memory::Device, Memory::Device, 0, 0},
          kAllPinned,
          kAllDevice}) {
        index->search(places);
        index->profileSearch(places);
    }
}
