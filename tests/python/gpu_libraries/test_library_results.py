"""GPU arrays in, arrays of the same library out."""

import numpy as np
import pytest
from small_search import DIMS, K, QUERIES


def test_results_are_right_and_in_the_family(
    library, index, queries, expect_neighbours
):
    D, I = index.search(library.to_gpu(queries), K)
    assert library.is_own(D) and library.is_own(I)
    assert tuple(D.shape) == tuple(I.shape) == (QUERIES, K)
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_labels_of_assign_are_in_the_family(library, index, queries):
    labels = index.assign(library.to_gpu(queries), 1)
    assert library.is_own(labels)
    np.testing.assert_array_equal(
        library.to_host(labels), index.assign(queries, 1)
    )


def test_an_index_filled_with_gpu_arrays(
    library, faiss_ext, resources, stored, queries, expect_neighbours
):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(library.to_gpu(stored))
    expect_neighbours(*index.search(queries, K), queries)


def test_given_outputs_are_filled_or_refused_where_immutable(
    library, faiss_ext, index, queries, expect_neighbours
):
    D = library.to_gpu(np.full((QUERIES, K), np.nan, "float32"))
    if library.immutable:
        with pytest.raises(faiss_ext.InvalidArray, match="^D: "):
            index.search(library.to_gpu(queries), K, D=D)
        return
    I = library.to_gpu(np.full((QUERIES, K), -7, "int64"))
    found = index.search(library.to_gpu(queries), K, D=D, I=I)
    assert found[0] is D and found[1] is I
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_host_outputs_for_gpu_queries(
    library, index, queries, expect_neighbours
):
    D = np.full((QUERIES, K), np.nan, "float32")
    I = np.full((QUERIES, K), -7, "int64")
    index.search(library.to_gpu(queries), K, D=D, I=I)
    expect_neighbours(D, I, queries)


def test_half_queries_are_searched_as_float32(
    library, index, queries, expect_neighbours
):
    if not library.halves:
        pytest.skip("no float16 arrays in this library")
    # Small integers are the same numbers in half precision.
    D, I = index.search(library.to_gpu(queries.astype("float16")), K)
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_knn_gpu_takes_and_gives_arrays_of_the_library(
    library, faiss_ext, resources, stored, queries, expect_neighbours
):
    D, I = faiss_ext.knn_gpu(
        resources, library.to_gpu(queries), library.to_gpu(stored), K
    )
    assert library.is_own(D) and library.is_own(I)
    expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_results_outlive_the_index(
    library, faiss_ext, resources, stored, queries, expect_neighbours
):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(stored)
    D, I = index.search(library.to_gpu(queries), K)
    del index
    expect_neighbours(library.to_host(D), library.to_host(I), queries)
