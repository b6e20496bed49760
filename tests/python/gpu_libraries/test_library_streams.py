"""Searches stand in the order of the library's current stream, without a wait
that anybody writes."""

import numpy as np
from small_search import K, QUERIES

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
