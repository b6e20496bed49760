"""Searches stand in the order of the library's current stream, without a wait
that anybody writes."""

import os

import numpy as np
import pytest
from small_search import K, QUERIES

#: Bytes that keep a stream busy for a while, and how often they are copied. The
#: simulated runtime is as late as possible anyway.
BUSY_BYTES, BUSY_TIMES = 64 << 20, 40
if os.environ.get("FAISS_EXT_STAND_INS") == "1":
    BUSY_BYTES, BUSY_TIMES = 4096, 2


@pytest.fixture
def busy(library):
    """Enqueues work of milliseconds on the current stream; a call that does not
    wait for it is ahead of it by far."""
    if library.stream is None:
        pytest.skip("no current stream in this library")
    one = library.to_gpu(np.zeros(BUSY_BYTES // 4, "float32"))
    two = library.to_gpu(np.zeros(BUSY_BYTES // 4, "float32"))

    def enqueue():
        for _ in range(BUSY_TIMES):
            library.overwrite(one, two)

    return enqueue


def test_queries_are_read_after_what_their_stream_holds(
    library, busy, index, queries, expect_neighbours
):
    right = library.to_gpu(queries)
    x = library.to_gpu(np.zeros_like(queries))
    with library.stream():
        busy()
        library.overwrite(x, right)
        D, I = index.search(x, K)
        found = library.to_host(D), library.to_host(I)
    expect_neighbours(*found, queries)


def test_the_stream_goes_on_after_the_search_has_read(
    library, busy, index, queries, expect_neighbours
):
    x = library.to_gpu(queries)
    wrong = library.to_gpu(np.zeros_like(queries))
    with library.stream():
        busy()
        D, I = index.search(x, K)
        library.overwrite(x, wrong)
        found = library.to_host(D), library.to_host(I)
    expect_neighbours(*found, queries)


def test_results_are_read_after_they_are_written(
    library, busy, index, queries, expect_neighbours
):
    x = library.to_gpu(queries)
    D = library.to_gpu(np.full((QUERIES, K), np.nan, "float32"))
    I = library.to_gpu(np.full((QUERIES, K), -7, "int64"))
    copies = library.to_gpu(np.full((QUERIES, K), np.nan, "float32"))
    with library.stream():
        busy()
        index.search(x, K, D=D, I=I)
        library.overwrite(copies, D)
        found = library.to_host(copies), library.to_host(I)
    expect_neighbours(*found, queries)


def test_vectors_are_added_after_what_their_stream_holds(
    library, busy, index, stored, queries, expect_neighbours
):
    right = library.to_gpu(stored)
    vectors = library.to_gpu(np.zeros_like(stored))
    index.reset()
    with library.stream():
        busy()
        library.overwrite(vectors, right)
        index.add(vectors)
    expect_neighbours(*index.search(queries, K), queries)
