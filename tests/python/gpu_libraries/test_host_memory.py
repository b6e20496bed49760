"""Host memory of every kind, pageable and pinned, with what Faiss' own code does on
a GPU: complete when a call returns, and safe in any number of threads. Needs no
array library."""

from __future__ import annotations

import os
import threading

import faiss as stock
import numpy as np
import pytest

#: On a GPU, results large enough that their copy takes longer than Python needs
#: to look at them. The simulated runtime is as late as possible anyway.
SIMULATED = os.environ.get("FAISS_EXT_STAND_INS") == "1"
NB, NQ, DIMS, K = (120, 40, 8, 4) if SIMULATED else (20_000, 4096, 64, 64)
THREADS, ROUNDS = (8, 4) if SIMULATED else (8, 25)
POISON = -7


def integers(shape, seed):
    """Small ones, so that all distances are exact."""
    return np.random.default_rng(seed).integers(0, 5, shape).astype("float32")


@pytest.fixture(scope="module")
def base():
    return integers((NB, DIMS), 1)


@pytest.fixture(scope="module")
def queries():
    return integers((NQ, DIMS), 2)


@pytest.fixture(scope="module")
def every(base, queries):
    """All distances, exact in float32."""
    return (
        np.square(queries).sum(1)[:, None] - 2 * queries @ base.T
        + np.square(base).sum(1)[None]
    )


@pytest.fixture(scope="module")
def nearest(every):
    return np.sort(np.partition(every, K - 1, axis=1)[:, :K], axis=1)


@pytest.fixture(params=["pinned", "pageable", "pinned D", "pinned I"])
def outputs(request, faiss_ext):
    """Makes poisoned D and I."""

    def make():
        made = []
        for name, dtype in (("D", "float32"), ("I", "int64")):
            pinned = request.param in ("pinned", f"pinned {name}")
            empty = faiss_ext.pinned_empty if pinned else np.empty
            made.append(empty((NQ, K), dtype))
            made[-1][:] = POISON
        return made

    return make


def pinned(faiss_ext, values):
    made = faiss_ext.pinned_empty(values.shape, values.dtype)
    made[:] = values
    return made


def expect(found, every, nearest):
    """Looks at once, at the last rows first: what is not there yet is poison."""
    I = np.array(found[1][::-1])[::-1]
    D = np.array(found[0][::-1])[::-1]
    np.testing.assert_array_equal(D, nearest)
    np.testing.assert_array_equal(np.take_along_axis(every, I, axis=1), D)


@pytest.mark.parametrize("source", ["pageable", "pinned"])
def test_brute_force_is_complete_when_it_returns(
    faiss_ext, resources, base, queries, every, nearest, outputs, source
):
    put = (lambda x: x.copy()) if source == "pageable" else (
        lambda x: pinned(faiss_ext, x))
    for _ in range(3):
        D, I = outputs()
        xq, xb = put(queries), put(base)
        found = faiss_ext.knn_gpu(resources, xq, xb, K, D=D, I=I)
        # The caller may write its arrays again.
        xq[:], xb[:] = POISON, POISON
        assert found[0] is D and found[1] is I
        expect(found, every, nearest)
        expect(faiss_ext.knn_gpu(resources, put(queries), put(base), K),
               every, nearest)


def test_all_distances_are_complete_too(faiss_ext, resources, base, queries, every):
    D = faiss_ext.pinned_empty(every.shape)
    for _ in range(3):
        D[:] = POISON
        faiss_ext.pairwise_distance_gpu(resources, queries, base, D=D)
        found = np.array(D[::-1])[::-1]
        np.testing.assert_array_equal(found, every)


def own_index(faiss_ext, resources, base):
    """One whose C++ is Faiss' alone."""
    from faiss_ext._index import classes as index_classes

    index = index_classes.class_of(stock.GpuIndexFlatL2)(resources, DIMS)
    index.add(base)
    return None, index


def of_kmeans(faiss_ext, resources, base):
    """The same as Faiss makes it; with several GPUs, replicas."""
    means = faiss_ext.Kmeans(DIMS, 2, gpu=True, niter=1, min_points_per_centroid=1)
    means.train(base[:100])
    means.index.reset()
    means.index.add(base)
    return means, means.index


def idmap(faiss_ext, resources, base):
    _, index = own_index(faiss_ext, resources, base[:0])
    outer = faiss_ext.IndexIDMap(index)
    outer.add_with_ids(base, np.arange(NB))
    return index, outer


def transformed(faiss_ext, resources, base):
    _, index = own_index(faiss_ext, resources, base)
    same = faiss_ext.LinearTransform(DIMS, DIMS, False)
    faiss_ext.copy_array_to_vector(np.eye(DIMS, dtype="float32").ravel(), same.A)
    same.is_trained = True
    return (index, same), faiss_ext.IndexPreTransform(same, index)


def ours(faiss_ext, resources, base):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(base)
    return None, index


@pytest.mark.parametrize("make", [own_index, of_kmeans, idmap, transformed, ours])
def test_indexes_are_complete_when_they_return(
    faiss_ext, resources, base, queries, every, nearest, outputs, make
):
    keep, index = make(faiss_ext, resources, base)
    x = pinned(faiss_ext, queries)
    for _ in range(3):
        D, I = outputs()
        found = index.search(x, K, D=D, I=I)
        assert found[0] is D and found[1] is I
        expect(found, every, nearest)
        I[:] = POISON
        labels = index.assign(x, K, I)
        assert labels is I
        np.testing.assert_array_equal(
            np.take_along_axis(every, np.array(I), axis=1), nearest)
    if make in (own_index, ours):
        out = pinned(faiss_ext, np.full_like(base, POISON))
        assert index.reconstruct_n(0, NB, out) is out
        np.testing.assert_array_equal(np.array(out[::-1])[::-1], base)
    del keep


def test_what_is_added_from_pinned_memory_may_be_overwritten(
    faiss_ext, resources, base, queries, every, nearest
):
    for make in (own_index, of_kmeans, idmap, ours):
        keep, index = make(faiss_ext, resources, base)
        index.reset()
        x = pinned(faiss_ext, base)
        if isinstance(index, faiss_ext.IndexIDMap):
            index.add_with_ids(x, np.arange(NB))
        else:
            index.add(x)
        x[:] = POISON
        expect(index.search(queries, K), every, nearest)
        del keep


def test_threads_share_resources(faiss_ext, resources, base, queries, every, nearest):
    _, own = own_index(faiss_ext, resources, base)
    wrong = []

    def work(thread):
        try:
            D = pinned(faiss_ext, np.full((NQ, K), POISON, "float32"))
            I = pinned(faiss_ext, np.full((NQ, K), POISON, "int64"))
            for i in range(ROUNDS):
                rows = slice(thread * NQ // THREADS // 2, None)
                if (thread + i) % 2:
                    found = faiss_ext.knn_gpu(
                        resources, queries[rows], base, K, D=D[rows], I=I[rows])
                else:
                    found = own.search(queries[rows], K, D=D[rows], I=I[rows])
                expect(found, every[rows], nearest[rows])
                D[:], I[:] = POISON, POISON
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
