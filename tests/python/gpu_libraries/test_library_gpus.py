"""Arrays of a library on GPU 1, an index there or on GPU 0, either of them the
current one. Everything here is skipped where there is one GPU."""

import numpy as np
import pytest
from libraries import gpu_of
from small_search import DIMS, K, QUERIES, moved

#: The GPU of the arrays.
OTHER = 1


@pytest.fixture(autouse=True)
def two_gpus(library):
    if library.gpus() < 2:
        pytest.skip("one GPU here; two are needed")


@pytest.fixture(scope="module", params=["own stream", "default stream"])
def resources(request, faiss_ext):
    """Those of the index: it works on a stream of Faiss' own or on the legacy
    default stream, whose handle is the same on every GPU."""
    resources = faiss_ext.StandardGpuResources()
    if request.param == "default stream":
        resources.setDefaultNullStreamAllDevices()
    return resources


@pytest.fixture(params=[0, OTHER], ids=["index on GPU 0", "index on GPU 1"])
def index(request, faiss_ext, resources, stored):
    config = faiss_ext.GpuIndexFlatConfig()
    config.device = request.param
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS, config)
    index.add(stored)
    return index


@pytest.fixture(params=[0, OTHER], ids=["GPU 0 current", "GPU 1 current"])
def current(request, library):
    """The number of the GPU that the library uses, before the test and after."""
    with library.on(request.param):
        yield request.param
        assert library.current() in (request.param, None)


def outputs(library):
    return {
        "D": library.to_gpu(np.full((QUERIES, K), np.nan, "float32"), OTHER),
        "I": library.to_gpu(np.full((QUERIES, K), -7, "int64"), OTHER),
    }


def test_results_are_right_and_on_the_gpu_of_the_queries(
    library, index, current, queries, expect_neighbours
):
    D, I = index.search(library.to_gpu(queries, OTHER), K)
    for array in (D, I):
        assert library.is_own(array) or not library.follows
        assert gpu_of(array) == (OTHER if library.follows else index.getDevice())
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


@pytest.mark.parametrize("of_queries", [0, OTHER])
def test_given_outputs_on_another_gpu_are_filled(
    library, index, current, queries, expect_neighbours, of_queries
):
    if library.immutable:
        pytest.skip("this library's arrays cannot be written")
    given = outputs(library)
    D, I = index.search(library.to_gpu(queries, of_queries), K, **given)
    assert D is given["D"] and I is given["I"]
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_host_outputs_for_queries_on_another_gpu(
    library, index, current, queries, expect_neighbours
):
    D = np.full((QUERIES, K), np.nan, "float32")
    I = np.full((QUERIES, K), -7, "int64")
    index.search(library.to_gpu(queries, OTHER), K, D=D, I=I)
    expect_neighbours(D, I, queries)


def test_bytes_go_to_another_gpu_only_where_they_must(
    library, index, current, queries
):
    x = library.to_gpu(queries, OTHER)
    given = {} if library.immutable else outputs(library)
    index.search(x, K, **given)
    index.reset_transfer_stats()
    D, I = index.search(x, K, **given)
    stats = index.transfer_stats()
    elsewhere = 0 if index.getDevice() == OTHER else queries.nbytes + sum(
        QUERIES * K * size for size, array in ((4, D), (8, I))
        if gpu_of(array) == OTHER)
    assert stats["bytes_across_devices"] == elsewhere
    assert not any(n for name, n in moved(stats).items() if "across" not in name), stats


def test_half_queries_on_another_gpu_are_searched_as_float32(
    library, index, current, queries, expect_neighbours
):
    if not library.halves:
        pytest.skip("no float16 arrays in this library")
    D, I = index.search(library.to_gpu(queries.astype("float16"), OTHER), K)
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_an_index_filled_with_arrays_of_another_gpu(
    library, index, current, stored, queries, expect_neighbours
):
    index.reset()
    index.add(library.to_gpu(stored, OTHER))
    expect_neighbours(*index.search(queries, K), queries)


def test_a_search_stands_in_the_order_of_the_stream_of_the_other_gpu(
    library, busy, index, current, queries, expect_neighbours
):
    right = library.to_gpu(queries, OTHER)
    wrong = library.to_gpu(np.zeros_like(queries), OTHER)
    x = library.to_gpu(np.zeros_like(queries), OTHER)
    given, later = outputs(library), outputs(library)
    with library.stream(OTHER):
        busy(OTHER)
        library.overwrite(x, right)
        index.search(x, K, **given)
        library.overwrite(x, wrong)
        for name, array in later.items():
            library.overwrite(array, given[name])
        found = [library.to_host(later[name]) for name in "DI"]
    expect_neighbours(*found, queries)


def test_new_results_stand_in_the_order_of_the_stream_of_the_other_gpu(
    library, busy, index, current, queries, expect_neighbours
):
    x = library.to_gpu(queries, OTHER)
    later = outputs(library)
    with library.stream(OTHER):
        busy(OTHER)
        found = dict(zip("DI", index.search(x, K)))
        for name, array in later.items():
            library.overwrite(array, found[name])
        copies = [library.to_host(later[name]) for name in "DI"]
    expect_neighbours(*copies, queries)
