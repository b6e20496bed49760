"""Faiss' GPU memory from the pool of an array library (`faiss_ext.contrib`)."""

import pytest
from small_search import DIMS, K


@pytest.fixture
def pooled(library):
    """Resources on the library's pool."""
    if library.pooled_resources is None:
        pytest.skip("no pool of this library is integrated")
    return library.pooled_resources()


def test_searches_on_the_librarys_pool_are_right(
    library, faiss_ext, pooled, stored, queries, expect_neighbours
):
    index = faiss_ext.GpuIndexFlatL2(pooled, DIMS)
    index.add(library.to_gpu(stored))
    D, I = index.search(library.to_gpu(queries), K)
    expect_neighbours(library.to_host(D), library.to_host(I), queries)
    expect_neighbours(*index.search(queries, K), queries)


def test_results_outlive_an_index_on_a_pool(
    library, faiss_ext, pooled, stored, queries, expect_neighbours
):
    index = faiss_ext.GpuIndexFlatL2(pooled, DIMS)
    index.add(stored)
    D, I = index.search(library.to_gpu(queries), K)
    del index, pooled
    expect_neighbours(library.to_host(D), library.to_host(I), queries)
