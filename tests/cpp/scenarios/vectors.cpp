// Calls other than search: stored vectors read back, labels alone, residuals.

#include "Scenario.h"

using namespace scenarios;

namespace {

std::shared_ptr<Subject> tiled(Run& run, int rows) {
    Setup setup;
    setup.config.tileRows = rows;
    setup.config.pipelineDepth = run.oneOf({0, 2, 3});
    return Subject::make(run, setup);
}

} // namespace

SCENARIO(assign_drops_the_distances) {
    auto index = tiled(run, 0);
    index->assign(Memory::Pageable, Memory::Pageable);
    index->assign(Memory::Pageable, Memory::Device);
    index->assign(run.anyMemory(), run.anyMemory());
}

SCENARIO(assign_drops_the_distances_of_tiles) {
    auto index = tiled(run, run.pick(1, 4));
    index->assign(Memory::Pageable, Memory::Pageable);
    index->assign(Memory::Device, Memory::Device);
    index->assign(Memory::Pageable, Memory::Device);
    index->assign(run.anyMemory(), run.anyMemory());
}

SCENARIO(assign_between_searches) {
    auto index = tiled(run, run.pick(0, 4));
    index->search(kToDevice);
    index->assign(Memory::Device, Memory::Device);
    index->search(kToDevice);
    index->assign(Memory::Pinned, Memory::Pageable);
}

SCENARIO(reconstruct_all_kinds_of_memory) {
    auto index = tiled(run, 0);
    for (Memory out :
         {Memory::Pageable, Memory::Pinned, Memory::Managed, Memory::Device}) {
        index->reconstructN(out);
    }
}

SCENARIO(reconstruct_in_tiles) {
    auto index = tiled(run, run.pick(1, 5));
    for (int i = 0; i < 3; ++i) {
        index->reconstructN(run.anyMemory(), run.pick(6, 25));
    }
    index->reconstructN(Memory::Pageable, 25);
}

SCENARIO(reconstruct_batch) {
    auto index = tiled(run, 0);
    index->reconstructBatch(Memory::Pageable, Memory::Pageable);
    index->reconstructBatch(Memory::Device, Memory::Device);
    index->reconstructBatch(Memory::Pageable, Memory::Device);
}

SCENARIO(reconstruct_batch_in_tiles) {
    auto index = tiled(run, run.pick(1, 4));
    index->reconstructBatch(Memory::Pageable, Memory::Pageable);
    index->reconstructBatch(Memory::Pageable, Memory::Device);
    index->reconstructBatch(Memory::Pageable, run.hostMemory());
    index->reconstructBatch(Memory::Device, run.anyMemory());
}

SCENARIO(residuals) {
    auto index = tiled(run, 0);
    index->residuals(Memory::Pageable, Memory::Pageable, Memory::Pageable);
    index->residuals(Memory::Device, Memory::Pageable, Memory::Device);
    index->residuals(run.anyMemory(), Memory::Device, run.anyMemory());
}

SCENARIO(residuals_in_tiles) {
    auto index = tiled(run, run.pick(1, 4));
    index->residuals(Memory::Pageable, Memory::Pageable, Memory::Pageable);
    index->residuals(Memory::Pageable, Memory::Device, Memory::Device);
    index->residuals(run.anyMemory(), Memory::Device, run.anyMemory());
}

SCENARIO(search_and_reconstruct) {
    auto index = tiled(run, run.pick(0, 4));
    index->searchAndReconstruct(kAllPageable, Memory::Pageable);
    index->searchAndReconstruct(kAllDevice, Memory::Device);
    index->searchAndReconstruct(kToDevice, Memory::Pinned);
}

SCENARIO(every_kind_of_call_in_turn) {
    auto index = tiled(run, run.pick(0, 4));
    index->search(kToDevice);
    index->reconstructN(Memory::Device);
    index->residuals(Memory::Pageable, Memory::Device, Memory::Device);
    index->assign(Memory::Pageable, Memory::Device);
    index->search(kAllPageable);
}
