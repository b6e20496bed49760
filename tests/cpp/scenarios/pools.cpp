// Pinned memory that is scarce.

#include "Scenario.h"

using namespace scenarios;

namespace {

/// One page for each buffer that tiles of `depth` need: in and out.
Setup tinyPool(Run& run, size_t bytes, int rows, int depth) {
    run.setFaissPinned(0);
    Setup setup;
    setup.dims = 8;
    setup.config.pinnedBytes = bytes;
    setup.config.tileRows = rows;
    setup.config.pipelineDepth = depth;
    return setup;
}

} // namespace

SCENARIO(a_pool_of_two_pages) {
    // Few enough rows for one tile: tiles would need two pages each way.
    auto index = Subject::make(run, tinyPool(run, 8192, 0, 0));
    for (int i = 0; i < 3; ++i) {
        index->search(
                {Memory::Pageable, Memory::Pageable, Memory::Pageable, 12});
        index->search(kToDevice);
    }
}

SCENARIO(a_pool_of_two_pages_used_again_and_again) {
    // Each buffer is lent again while its last copy is under way.
    auto index = Subject::make(run, tinyPool(run, 8192, 0, 0));
    for (int i = 0; i < 8; ++i) {
        index->search(kToDevice);
    }
}

SCENARIO(a_pool_of_one_page) {
    auto index = Subject::make(run, tinyPool(run, 4096, 0, 0));
    for (int i = 0; i < 6; ++i) {
        index->search(kToDevice);
    }
}

SCENARIO(one_tile_of_a_page_each_way) {
    auto index = Subject::make(run, tinyPool(run, 8192, 0, 0));
    for (int i = 0; i < 3; ++i) {
        index->search(
                {Memory::Pageable, Memory::Pageable, Memory::Pageable, 120, 2});
        index->search(kToDevice);
    }
}

SCENARIO(tiles_one_after_another_in_a_pool_of_two_pages) {
    auto index = Subject::make(run, tinyPool(run, 8192, 0, 0));
    for (int i = 0; i < 2; ++i) {
        index->search(
                {Memory::Pageable, Memory::Pageable, Memory::Pageable, 300, 3});
        index->search(
                {Memory::Pageable, Memory::Device, Memory::Device, 300, 1});
    }
}

SCENARIO(tiles_in_a_pool_that_just_holds_them) {
    auto index = Subject::make(run, tinyPool(run, 16384, 3, 2));
    for (int i = 0; i < 3; ++i) {
        index->search(kAllPageable);
        index->search(kToDevice);
    }
}

SCENARIO(tiles_that_wait_for_pinned_memory) {
    auto index = Subject::make(run, tinyPool(run, 8192, 2, 2));
    for (int i = 0; i < 3; ++i) {
        index->search(kToDevice);
    }
}

SCENARIO(buffers_of_other_sizes_make_room) {
    Setup setup = tinyPool(run, 16384, 0, 0);
    setup.dims = 64;
    auto index = Subject::make(run, setup);
    for (int n : {3, 30, 4, 31, 16}) {
        index->search({Memory::Pageable, Memory::Device, Memory::Device, n});
    }
    index->search(
            {Memory::Pageable, Memory::Pageable, Memory::Pageable, 12, 2});
}

SCENARIO(exhausted_pool_says_so_and_recovers) {
    Setup setup = tinyPool(run, 4096, 0, 0);
    auto index = Subject::make(run, setup);
    bool refused = false;
    try {
        // In and out need a page each.
        index->search(
                {Memory::Pageable, Memory::Pageable, Memory::Pageable, 5});
    } catch (const faiss::FaissException& e) {
        refused = std::string(e.what()).find("exhausted") != std::string::npos;
        if (!refused) {
            throw;
        }
    }
    require(refused, "a pool of one page held two");
    index->search(kToDevice);
    index->search(kAllPinned);
}

SCENARIO(no_pinned_memory_of_faiss) {
    run.setFaissPinned(0);
    Setup setup;
    setup.config.tileRows = run.pick(0, 4);
    auto index = Subject::make(run, setup);
    index->search(kAllPageable);
    index->search(kToDevice);
    index->search(kAllPageable);
}

SCENARIO(results_through_the_pinned_memory_of_faiss) {
    run.setFaissPinned(size_t(1) << 20);
    Setup setup;
    setup.config.tileRows = run.pick(0, 4);
    auto index = Subject::make(run, setup);
    index->search(kAllPageable);
    index->add(Memory::Pageable, 20);
    index->search(kAllPageable);
}

SCENARIO(faiss_pinned_memory_shared_by_two_indexes) {
    run.setFaissPinned(size_t(1) << 20);
    Setup setup;
    setup.config.tileRows = run.pick(0, 4);
    auto first = Subject::make(run, setup);
    auto second = Subject::make(run, {});
    for (int i = 0; i < 2; ++i) {
        first->search(kAllPageable);
        second->search(kAllPageable);
    }
}
