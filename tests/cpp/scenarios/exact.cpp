// Searches by the exact engine, whatever the seed: what it keeps, its scratch
// memory, and its self-test.

#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/compute/TensorCoreSelfTest.h>

#include "Scenario.h"

using faiss_ext::gpu::ExactWay;
using namespace scenarios;

namespace {

/// Enough vectors for several chunks, and lists that are short. Of 4 dimensions
/// scans by tensor cores can read the vectors.
Setup exactlyBy(ExactWay way, Run& run, int vectors = 300) {
    Setup setup;
    setup.dims = run.oneOf({3, 4});
    if (way == ExactWay::TensorScan) {
        setup.dims = 4;
    }
    setup.vectors = vectors;
    setup.config.search = "exact";
    setup.config.exactWay = static_cast<int>(way);
    setup.config.exactVectors = 128;
    setup.config.exactQueries = 5;
    setup.config.exactSurvivors = 20;
    // (How often is called depends on these; on dimensions it does not.)
    if (!run.faulty()) {
        setup.config.exactSample = run.oneOf({0, 10, 60});
        setup.config.exactCopied = run.oneOf({0, 64, 110});
        setup.config.exactSurvivors = run.oneOf({20, 100});
    }
    return setup;
}

/// By any way; where faults are injected, by that which enqueues most.
Setup exactly(Run& run, int vectors = 300) {
    const ExactWay way = run.faulty() ? ExactWay::FusedFilter
                                      : run.oneOf(
                                                {ExactWay::Best,
                                                 ExactWay::Scan,
                                                 ExactWay::TensorScan,
                                                 ExactWay::FusedFilter,
                                                 ExactWay::Scores});
    return exactlyBy(way, run, vectors);
}

/// Searches of few neighbours, and of so many that cuts are guessed.
void searchInTurn(Run& run, const Setup& setup) {
    auto index = Subject::make(run, setup);
    const auto places = [](Places all, int k) {
        all.n = 9;
        all.k = k;
        return all;
    };
    index->search(places(kAllDevice, 12));
    index->search(places(kAllPageable, 3));
    index->search(places(kToDevice, 12));
    index->add(Memory::Device, 60);
    index->search(places(kAllDevice, 3));
    index->search(places(kAllPinned, 12));
}

Places few(const Places& places, int n = 9) {
    Places few = places;
    few.n = n;
    few.k = 3;
    return few;
}

} // namespace

SCENARIO(exact_profiled_searches) {
    Setup setup = exactly(run);
    setup.config.tileRows = run.pick(0, 3);
    auto index = Subject::make(run, setup);
    index->profileSearch(few(kAllPageable, 4));
    index->search(few(kAllDevice));
    if (!run.faulty()) {
        index->profileSearch(few(kToDevice));
        index->add(Memory::Device, 60);
    }
    index->profileSearch(few(kAllPinned));
}

SCENARIO(exact_searches_one_after_another) {
    auto index = Subject::make(run, exactly(run));
    index->search(few(kAllDevice));
    index->search(few(kAllPageable, 4));
    index->search(few(kToDevice));
    index->search(few(kAllPinned));
}

SCENARIO(exact_searches_by_a_scan) {
    searchInTurn(run, exactlyBy(ExactWay::Scan, run));
}

SCENARIO(exact_searches_by_a_scan_on_tensor_cores) {
    searchInTurn(run, exactlyBy(ExactWay::TensorScan, run));
}

SCENARIO(exact_searches_by_filters_in_two_rounds) {
    searchInTurn(run, exactlyBy(ExactWay::FusedFilter, run, 400));
}

SCENARIO(exact_searches_of_pieces_of_the_vectors) {
    Setup setup = exactlyBy(ExactWay::FusedFilter, run, 400);
    setup.config.exactVectors = 64;
    setup.config.exactCopied = 64;
    searchInTurn(run, setup);
}

SCENARIO(exact_searches_by_scores_in_memory) {
    searchInTurn(run, exactlyBy(ExactWay::Scores, run));
}

SCENARIO(exact_searches_in_tiles) {
    Setup setup = exactly(run, 200);
    setup.config.tileRows = 4;
    setup.config.pipelineDepth = run.pick(1, 3);
    auto index = Subject::make(run, setup);
    index->search(few(kAllPageable, 13));
    index->search(few(kAllPinned, 13));
    index->search(few(kAllDevice, 13));
}

SCENARIO(exact_searches_of_float16_vectors) {
    Setup setup = exactly(run);
    // With and without copies of the vectors; the latter whole loads.
    setup.dims = run.oneOf({5, 8});
    setup.float16 = true;
    setup.innerProduct = run.coin();
    auto index = Subject::make(run, setup);
    index->search(few(kAllDevice));
    index->search(few(kAllPageable));
}

SCENARIO(exact_searches_between_changes) {
    auto index = Subject::make(run, exactly(run, 20));
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
    auto index = Subject::make(run, exactly(run));
    index->search(few(kAllDevice));
    index->search(few(kAllPageable));
}

SCENARIO(the_first_exact_search_of_a_process) {
    faiss_ext::gpu::rememberSelfTest(0, std::nullopt);
    auto index = Subject::make(run, exactly(run, 20));
    index->search(few(kAllDevice));
    index->search(few(kAllPageable));
    index->destroy();
}

SCENARIO(an_index_that_goes_while_an_exact_search_is_in_flight) {
    auto index = Subject::make(run, exactly(run));
    index->search(few(kAllDevice));
    index->search(few(kToDevice));
    index->destroy();
}

SCENARIO(exact_searches_of_two_indexes_of_the_same_resources) {
    auto one = Subject::make(run, exactly(run));
    auto other = Subject::make(run, exactly(run, 150));
    one->search(few(kAllDevice));
    other->search(few(kAllDevice));
    one->search(few(kAllPageable));
    other->assign(Memory::Pageable, Memory::Device);
    other->destroy();
    one->search(few(kAllDevice));
}

THREADED_SCENARIO(exact_searches_of_many_threads) {
    auto index = Subject::make(run, exactly(run, 150));
    index->searchFromThreads(3, 2);
}
