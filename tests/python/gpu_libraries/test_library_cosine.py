"""Cosine similarities of GPU arrays, and arrays that are normalised in place."""

import numpy as np
import pytest
from small_search import DIMS, K

from faiss_ext._interop.unit_vectors import normalized


@pytest.fixture
def index(faiss_ext, resources, library, stored):
    index = faiss_ext.GpuIndexFlatCosine(resources, DIMS)
    index.add(library.to_gpu(stored))
    return index


def test_an_index_of_gpu_arrays(library, index, stored, queries):
    np.testing.assert_array_equal(index.reconstruct_n(0, index.ntotal), normalized(stored))
    x = library.to_gpu(queries)
    D, I = index.search(x, K)
    assert library.is_own(D) and library.is_own(I)
    expected = index.search(queries, K)
    np.testing.assert_array_equal(library.to_host(D), expected[0])
    cosines = normalized(queries) @ normalized(stored).T
    nearest = -np.sort(-cosines, axis=1)[:, :K]
    np.testing.assert_allclose(library.to_host(D), nearest, atol=1e-6)
    np.testing.assert_array_equal(library.to_host(x), queries)


def test_knn_gpu_by_cosine(faiss_ext, library, resources, stored, queries):
    xq, xb = library.to_gpu(queries), library.to_gpu(stored)
    D, I = faiss_ext.knn_gpu(resources, xq, xb, K, metric="cosine")
    assert library.is_own(D) and library.is_own(I)
    cosines = normalized(queries) @ normalized(stored).T
    nearest = -np.sort(-cosines, axis=1)[:, :K]
    np.testing.assert_allclose(library.to_host(D), nearest, atol=1e-6)
    np.testing.assert_array_equal(library.to_host(xq), queries)
    np.testing.assert_array_equal(library.to_host(xb), stored)


def test_arrays_are_normalised_in_place(faiss_ext, library, queries):
    x = library.to_gpu(queries * np.float32(1e30))
    if library.immutable:
        with pytest.raises(faiss_ext.InvalidArray, match="^x: "):
            faiss_ext.normalize_L2(x)
        return
    faiss_ext.normalize_L2(x)
    np.testing.assert_array_equal(
        library.to_host(x), normalized(queries * np.float32(1e30)))


def test_it_is_in_the_order_of_the_librarys_stream(faiss_ext, library, busy, queries):
    x, copy = library.to_gpu(queries * 0), library.to_gpu(queries * 0)
    values = library.to_gpu(queries)
    with library.stream():
        busy()
        library.overwrite(x, values)
        faiss_ext.normalize_L2(x)
        library.overwrite(copy, x)
        found = library.to_host(copy)
    np.testing.assert_array_equal(found, normalized(queries))
