"""Fewer vectors than neighbours: what Faiss' flat index on the CPU gives, whatever
searches, so that a merge ranks what is missing last."""

from __future__ import annotations

import faiss as stock
import numpy as np
import pytest

from faiss_ext._index import classes as index_classes

DIMS, K = 4, 5
METRICS = {
    "L2": stock.METRIC_L2, "IP": stock.METRIC_INNER_PRODUCT, "L1": stock.METRIC_L1,
    "Linf": stock.METRIC_Linf, "Canberra": stock.METRIC_Canberra,
}
#: From 20 on Faiss 1.7.3 computes in another way.
QUERIES = np.random.default_rng(2).integers(-5, 5, (23, DIMS)).astype("float32")


def expected(metric, vectors, k=K):
    """By a flat index on the CPU, query by query: in Faiss 1.7.3 an empty one
    leaves the results of many as they are."""
    index = stock.IndexFlat(DIMS, metric)
    index.add(vectors)
    rows = [index.search(q[None], k) for q in QUERIES]
    return tuple(np.concatenate(found) for found in zip(*rows))


def shards(faiss_ext):
    options = faiss_ext.GpuMultipleClonerOptions()
    options.shard = True
    return options


def built_by_hand(faiss_ext, flat, resources, holder):
    for _ in range(2):
        part = faiss_ext.GpuIndexFlat(resources, DIMS, flat.metric_type)
        kept(holder, part)
        (holder.add_shard if hasattr(holder, "add_shard") else holder.addIndex)(part)
    return holder


def kept(outer, inner):
    # Where Faiss does so itself; later versions take no other attribute.
    before = getattr(outer, "referenced_objects", [])
    outer.referenced_objects = [*before, inner]
    return outer


MAKERS = {
    "flat": lambda f, flat, r: f.GpuIndexFlat(r, DIMS, flat.metric_type),
    "clone": lambda f, flat, r: f.index_cpu_to_gpu(r, 0, flat),
    "float16": lambda f, flat, r: f.GpuIndexFlat(
        r, DIMS, flat.metric_type, _half(f)),
    "stock": lambda f, flat, r: index_classes.class_of(stock.GpuIndexFlat)(
        r, DIMS, flat.metric_type),
    "CPU": lambda f, flat, r: flat,
    "IDMap": lambda f, flat, r: f.index_cpu_to_gpu(r, 0, kept(f.IndexIDMap(flat), flat)),
    "replicas": lambda f, flat, r: f.index_cpu_to_gpus_list(flat, gpus=[0, 0]),
    "shards": lambda f, flat, r: f.index_cpu_to_gpus_list(
        flat, co=shards(f), gpus=[0, 0]),
    "shards by hand": lambda f, flat, r: built_by_hand(
        f, flat, r, f.IndexShards(DIMS, False, True)),
    "shards of any d": lambda f, flat, r: built_by_hand(f, flat, r, f.IndexShards()),
    "replicas by hand": lambda f, flat, r: built_by_hand(
        f, flat, r, f.IndexReplicas(DIMS, False)),
}


def _half(faiss_ext):
    config = faiss_ext.GpuIndexFlatConfig()
    config.useFloat16 = True
    return config


@pytest.mark.parametrize("n", [0, 1, 3, 7])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", MAKERS)
def test_every_index_pads_as_the_flat_one_on_the_cpu(
    faiss_ext, resources, kind, metric, n
):
    if kind == "stock" and n == 0 and metric == "IP":
        pytest.skip("Faiss' own kernels fill in the greatest float")
    vectors = QUERIES[:n] + np.arange(DIMS)
    wanted = expected(METRICS[metric], vectors)
    index = MAKERS[kind](
        faiss_ext, faiss_ext.IndexFlat(DIMS, METRICS[metric]), resources)
    if kind == "IDMap":
        index.add_with_ids(vectors, np.arange(n))
    else:
        index.add(vectors)
    D, I = np.full((23, K), np.nan, "float32"), np.full((23, K), 99)
    for found in (index.search(QUERIES, K), index.search(QUERIES, K, D=D, I=I)):
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)
        # Of equally near ones any may be named.
        np.testing.assert_array_equal(found[1] < 0, wanted[1] < 0)
        assert (found[1] < n).all()
    np.testing.assert_array_equal(index.assign(QUERIES, K) < 0, wanted[1] < 0)


@pytest.mark.parametrize("place", ["host", "gpu", "pinned"])
@pytest.mark.parametrize("metric", ["L2", "IP", "L1"])
@pytest.mark.parametrize("n", [0, 2])
def test_brute_force_and_every_kind_of_output(
    faiss_ext, resources, gpu_array, simulator, place, metric, n
):
    vectors = QUERIES[:n]
    wanted = expected(METRICS[metric], vectors)

    def pinned(values):
        made = faiss_ext.pinned_empty(values.shape, values.dtype)
        made[:] = values
        return made

    put = {"host": lambda x: x, "gpu": gpu_array, "pinned": pinned}[place]
    index = faiss_ext.GpuIndexFlat(resources, DIMS, METRICS[metric])
    index.add(vectors)
    for labels in ("int64", "int32"):
        D, I = put(np.full((23, K), -7, "float32")), put(np.full((23, K), -7, labels))
        for search in (
            lambda: faiss_ext.knn_gpu(
                resources, put(QUERIES), put(vectors), K, D=D, I=I,
                metric=METRICS[metric]),
            lambda: index.search(put(QUERIES), K, D=D, I=I),
        ):
            found = [np.array(getattr(x, "get", lambda x=x: x)()) for x in search()]
            np.testing.assert_array_equal(found[0], wanted[0])
            np.testing.assert_array_equal(found[1] < 0, wanted[1] < 0)
    assert not simulator.reports()


def test_an_empty_index_answers_gpu_queries_without_a_wait(
    faiss_ext, resources, gpu_array, simulator
):
    index = faiss_ext.GpuIndexFlatIP(resources, DIMS)
    x = gpu_array(QUERIES)
    D, I = gpu_array(np.zeros((23, K), "float32")), gpu_array(np.zeros((23, K), "int64"))
    index.search(x, K, D=D, I=I)
    simulator.synchronize()
    simulator.reset_counters()
    index.search(x, K, D=D, I=I)
    assert simulator.waits() == 0
    assert (I.get() == -1).all()
    assert (D.get() == -np.finfo("float32").max).all()


def test_no_vectors_on_the_cpu(faiss_ext):
    # Of twenty queries or more, Faiss 1.7.3 leaves the results as they are.
    for metric in (stock.METRIC_L2, stock.METRIC_INNER_PRODUCT):
        wanted = expected(metric, QUERIES[:0])
        index = faiss_ext.IndexFlat(DIMS, metric)
        D, I, R = index.search_and_reconstruct(QUERIES, K)
        for found in ((D, I), faiss_ext.knn(QUERIES, [], K, metric)):
            np.testing.assert_array_equal(found[0], wanted[0])
            np.testing.assert_array_equal(found[1], wanted[1])
        assert np.isnan(R).all() and R.shape == (23, K, DIMS)
