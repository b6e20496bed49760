"""Searches while PyTorch captures CUDA graphs, in its default mode "global", in
another thread and in this one: no capture is spoilt, and no search fails but
those that would be a part of one."""

import os
import threading

import libraries
import numpy as np
import pytest
from small_search import DIMS, K, QUERIES

from faiss_ext._interop import unit_vectors

#: The simulated runtime shows in the first what a GPU shows in some of them.
ROUNDS, SEARCHES = (
    (1, 1) if os.environ.get("FAISS_EXT_STAND_INS") == "1" else (30, 5)
)


@pytest.fixture(scope="session")
def library(faiss_ext):
    try:
        return libraries.load("torch")
    except libraries.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def outputs(library):
    return {
        "D": library.to_gpu(np.full((QUERIES, K), np.nan, "float32")),
        "I": library.to_gpu(np.full((QUERIES, K), -7, "int64")),
    }


class Capture:
    """A copy that is captured, and replayed when the capture has ended."""

    def __init__(self, library):
        self.library = library
        self.values = np.arange(64, dtype="float32")
        self.source = library.to_gpu(self.values)
        self.target = library.to_gpu(np.zeros_like(self.values))

    def run(self, meanwhile):
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.library.overwrite(self.target, self.source)
            meanwhile()
        graph.replay()
        torch.cuda.synchronize()
        np.testing.assert_array_equal(
            self.library.to_host(self.target), self.values
        )


def capture_elsewhere(library, meanwhile):
    """Call `meanwhile` in this thread while another one captures."""
    begun, over = threading.Event(), threading.Event()
    problems = []

    def wait():
        begun.set()
        assert over.wait(60)

    def body():
        try:
            Capture(library).run(wait)
        except BaseException as problem:
            problems.append(problem)
        finally:
            begun.set()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        assert begun.wait(60)
        meanwhile()
    finally:
        over.set()
        thread.join()
    if problems:
        raise problems[0]


@pytest.mark.parametrize("where", ["host", "gpu"])
def test_captures_and_searches_of_two_threads_do_not_disturb_each_other(
    library, index, queries, outputs, expect_neighbours, where
):
    x = queries if where == "host" else library.to_gpu(queries)
    given = {} if where == "host" else outputs
    index.search(x, K, **given)
    for _ in range(ROUNDS):
        found = []
        capture_elsewhere(
            library, lambda: found.extend(
                index.search(x, K, **given) for _ in range(SEARCHES))
        )
        for D, I in found:
            if where == "gpu":
                D, I = library.to_host(D), library.to_host(I)
            expect_neighbours(D, I, queries)


def test_captures_and_other_calls_of_two_threads_do_not_disturb_each_other(
    faiss_ext, library, resources, stored, queries, expect_neighbours
):
    halves = stored.astype("float16")
    on_gpu = library.to_gpu(stored[:10])
    as_halves = library.to_gpu(halves[:10])

    def make_change_and_drop():
        index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
        index.add(stored)
        index.add(on_gpu)
        index.add(as_halves)
        index.reconstruct_n(0, 5)
        index.reset()
        index.add(stored)
        found.append(index.search(queries, K))

    for _ in range(ROUNDS):
        found = []
        capture_elsewhere(library, make_change_and_drop)
        expect_neighbours(*found[0], queries)


@pytest.fixture(params=["table", "methods"])
def way(request, monkeypatch):
    import torch

    if request.param == "methods":
        name = "__dlpack_c_exchange_api__"
        for offering in {
            torch.Tensor, type(torch.from_numpy(np.zeros(1, "float32")))
        }:
            monkeypatch.delattr(offering, name, raising=False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_search_of_gpu_arrays_in_a_capture_is_refused_and_harms_nothing(
    library, index, queries, outputs, expect_neighbours, dtype
):
    x = library.to_gpu(queries.astype(dtype))

    def search():
        with pytest.raises(RuntimeError, match="^x: .* captured .* unharmed"):
            index.search(x, K, **outputs)

    Capture(library).run(search)
    D, I = index.search(x, K, **outputs)
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_a_search_of_host_arrays_in_a_capture_is_made_at_once(
    library, index, queries, expect_neighbours
):
    found = []
    Capture(library).run(lambda: found.extend(index.search(queries, K)))
    expect_neighbours(*found, queries)


def test_an_array_of_a_stream_in_a_capture_is_not_normalised(
    faiss_ext, library, queries
):
    x = library.to_gpu(queries)

    def normalize():
        with pytest.raises(RuntimeError, match="^x: .* captured .* unharmed"):
            faiss_ext.normalize_L2(x)

    Capture(library).run(normalize)
    np.testing.assert_array_equal(library.to_host(x), queries)


def test_arrays_are_normalised_while_another_thread_captures(
    faiss_ext, library, queries
):
    x = library.to_gpu(queries)
    capture_elsewhere(library, lambda: faiss_ext.normalize_L2(x))
    np.testing.assert_array_equal(library.to_host(x), unit_vectors.normalized(queries))
