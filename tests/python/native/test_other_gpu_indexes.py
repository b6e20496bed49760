"""GPU indexes that are Faiss' own take GPU memory where Faiss can; indexes that
hold others refuse it."""

from __future__ import annotations

import itertools
import threading

import faiss as stock
import numpy as np
import pytest
from common_search import values_of
from programs import run_program

from faiss_ext._index import classes as index_classes
from faiss_ext._native import swigfaiss_ext as native

DIMS, NB, N, K = 8, 200, 40, 4


@pytest.fixture
def base(vectors):
    return vectors(NB, DIMS, 1)


@pytest.fixture
def queries(vectors):
    return vectors(N, DIMS, 2)


@pytest.fixture
def make(faiss_ext, resources):
    """Makes an index whose C++ is Faiss' alone, with Python methods of ours."""
    return lambda: index_classes.class_of(stock.GpuIndexFlatL2)(resources, DIMS)


@pytest.fixture
def index(make, base):
    index = make()
    index.add(base)
    return index


@pytest.fixture
def expected(index, queries):
    return index.search(queries, K)


def test_it_is_faiss_own_index(index, faiss_ext):
    assert not isinstance(index, faiss_ext.GpuIndexFlat)
    assert isinstance(index, stock.GpuIndexFlatL2)
    assert not hasattr(index, "transfer_stats")


def test_every_gpu_class_of_faiss_has_these_methods(faiss_ext):
    for name in ("GpuIndexIVFFlat", "GpuIndexIVFPQ", "GpuIndexIVFScalarQuantizer"):
        made = getattr(faiss_ext, name)
        assert made is not getattr(stock, name) and issubclass(made, getattr(stock, name))
        for method in ("search", "add", "add_with_ids", "train", "assign"):
            assert getattr(made, method).__module__ == "faiss_ext._index.search"


@pytest.mark.parametrize(
    "where", list(itertools.product(["host", "gpu"], repeat=3)), ids="-".join)
def test_every_mixture_of_host_and_gpu_arrays(
    index, queries, expected, gpu_array, where
):
    def place(values, side):
        return gpu_array(values) if side == "gpu" else values.copy()

    D = place(np.full((N, K), -1, "float32"), where[1])
    I = place(np.full((N, K), -1, "int64"), where[2])
    got = index.search(place(queries, where[0]), K, D=D, I=I)
    assert got[0] is D and got[1] is I
    np.testing.assert_array_equal(values_of(D), expected[0])
    np.testing.assert_array_equal(values_of(I), expected[1])


def test_gpu_in_and_out_moves_nothing_and_waits_for_nothing(
    faiss_ext, index, queries, expected, gpu_array, simulator
):
    x = gpu_array(queries)
    index.search(x, K)
    simulator.synchronize()
    simulator.reset_counters()
    D, I = index.search(x, K)
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    assert type(D) is type(I) is faiss_ext.DeviceArray
    np.testing.assert_array_equal(values_of(I), expected[1])
    np.testing.assert_array_equal(values_of(index.assign(x, K)), expected[1])


def test_vectors_are_added_and_trained_from_the_gpu(
    make, base, queries, expected, gpu_array, simulator
):
    index = make()
    x = gpu_array(base)
    simulator.reset_counters()
    index.train(x)
    index.add(x)
    assert simulator.bytes_up() == 0
    np.testing.assert_array_equal(index.search(queries, K)[1], expected[1])


@pytest.mark.parametrize("kind", ["float16", "int8", "float64", "int64"])
def test_conversions_are_made_there(index, queries, expected, gpu_array, kind):
    I = index.search(gpu_array(queries.astype(kind)), K, cast=True)[1]
    np.testing.assert_array_equal(values_of(I), expected[1])


def test_narrow_distances_and_labels(
    faiss_ext, index, queries, expected, gpu_array
):
    for place in (gpu_array, lambda x: x):
        D = place(np.zeros((N, K), "float16"))
        index.search(queries, K, D=D)
        np.testing.assert_array_equal(values_of(D), expected[0].astype("float16"))
        # Its labels may be ids of the caller's, beyond 32 bits.
        with pytest.raises(faiss_ext.InvalidArray, match="I: dtype int32"):
            index.search(queries, K, I=place(np.zeros((N, K), "int32")))


def test_producers_come_first_and_go_on_after(
    index, queries, expected, gpu_array, simulator
):
    stream = simulator.new_stream()
    source = gpu_array(queries)
    x = gpu_array(np.zeros_like(queries), stream=stream)
    D = gpu_array(np.zeros((N, K), "float32"), stream=stream)
    I = gpu_array(np.zeros((N, K), "int64"), stream=stream)
    copy = gpu_array(np.zeros((N, K), "int64"))
    simulator.copy(x._pointer, source._pointer, queries.nbytes, stream)
    index.search(x, K, D=D, I=I)
    simulator.copy(copy._pointer, I._pointer, N * K * 8, stream)
    np.testing.assert_array_equal(copy.get(), expected[1])


def test_results_in_pinned_memory_are_complete(
    faiss_ext, index, queries, expected, gpu_array
):
    # Faiss 1.7.3 itself returns before they are.
    D = faiss_ext.pinned_empty((N, K))
    I = faiss_ext.pinned_empty((N, K), "int64")
    D[:], I[:] = -1, -1
    index.search(gpu_array(queries), K, D=D, I=I)
    np.testing.assert_array_equal(I, expected[1])
    np.testing.assert_array_equal(D, expected[0])


def test_arrays_on_another_gpu(
    base, queries, expected, gpu_array, simulator, faiss_ext
):
    simulator.library.cuda_sim_set_device_count(2)
    index = index_classes.class_of(stock.GpuIndexFlatL2)(
        faiss_ext.StandardGpuResources(), DIMS)
    index.add(base)
    with simulator.on_gpu(1):
        for kind in ("float32", "float16"):
            x = gpu_array(queries.astype(kind), stream=1)
            I = gpu_array(np.zeros((N, K), "int64"), stream=1)
            index.search(x, K, I=I)
            np.testing.assert_array_equal(I.get(), expected[1])
            del x, I


def test_threads_share_the_resources(make, base, queries, expected, gpu_array):
    # Faiss' own indexes on one resources object are for one thread at a time;
    # calls with GPU arrays take turns.
    indexes = [make() for _ in range(3)]
    for index in indexes:
        index.add(base)
    arrays = [gpu_array(queries) for _ in indexes]
    wrong = []

    def work(index, x):
        for _ in range(5):
            if not np.array_equal(values_of(index.search(x, K)[1]), expected[1]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=a) for a in zip(indexes, arrays)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_faiss_works_under_the_lock_of_the_resources(make, base, gpu_array):
    index = make()
    taken = threading.Event()
    lock = native.ResourcesLock(index.getResources())

    def take():
        lock.acquire()
        taken.set()
        lock.release()

    other = threading.Thread(target=take)
    its_own = type(index).add_c

    def add_c(self, n, x):
        other.start()
        assert not taken.wait(0.2)
        its_own(self, n, x)

    type(index).add_c = add_c
    try:
        index.add(gpu_array(base))
    finally:
        del type(index).add_c
        other.join()
    assert taken.is_set() and index.ntotal == NB


A_SEARCH_UNDER_THE_LOCK = """
import threading, time
import faiss
import faiss_ext
import numpy as np
from faiss_ext._index import classes as index_classes
from stand_ins import simulated_gpu

class OnTheGpu:
    __cuda_array_interface__ = {
        "version": 3, "shape": (100, 8), "typestr": "<f4", "stream": 1,
        "data": (simulated_gpu.malloc(3200), False),
    }

x = np.arange(800, dtype="float32").reshape(100, 8)
simulated_gpu.upload(OnTheGpu.__cuda_array_interface__["data"][0], x)
simulated_gpu.synchronize()
resources = faiss_ext.StandardGpuResources()
quantizer = faiss_ext.GpuIndexFlatL2(resources, 8)
quantizer.add(x)
found = {}

def search(i):
    found[i] = quantizer.search(x[i : i + 1], 1)[1][0, 0]

others = [threading.Thread(target=search, args=(i,)) for i in (1, 2)]
Stock = index_classes.class_of(faiss.GpuIndexFlatL2)

class Searching(Stock):
    # As one of inverted lists does, in C++.
    def add_c(self, n, x):
        for other in others:
            other.start()
        # Until one has its turn and waits for the lock.
        time.sleep(0.5)
        assert not found
        search(0)
        super().add_c(n, x)

index = Searching(resources, 8)
index.add(OnTheGpu())
for other in others:
    other.join()
assert index.ntotal == 100 and found == {0: 0, 1: 1, 2: 2}
print("done", flush=True)
"""


def test_an_index_of_ours_is_searched_by_faiss_while_other_threads_search_it():
    # Faiss' call holds the lock, and the other threads' searches wait for it.
    run_program(A_SEARCH_UNDER_THE_LOCK)


def test_what_faiss_does_on_the_host_refuses_gpu_memory(
    faiss_ext, index, queries, gpu_array
):
    x = gpu_array(queries)
    for call, name in (
        (lambda: index.search_and_reconstruct(x, K), "x"),
        (lambda: index.reconstruct(3, gpu_array(np.zeros(DIMS, "float32"))), "x"),
        (lambda: index.reconstruct_batch(gpu_array(np.arange(3))), "key"),
        (lambda: index.range_search(x, 3.0), "x"),
        (lambda: index.remove_ids(gpu_array(np.arange(3))), "x"),
        (lambda: index.compute_residual(gpu_array(queries[0]), key=1), "x"),
        (lambda: index.sa_encode(x), "x"),
    ):
        with pytest.raises(
            faiss_ext.InvalidArray,
            match=rf"^{name}: in GPU memory; .* takes host memory: give a copy there$",
        ):
            call()


def holders(f, resources, base):
    """Indexes that hold GPU ones, of the module `f`; on these resources, or
    where they are None, each on its own."""
    def flat(vectors):
        made = f.GpuIndexFlatL2(resources or f.StandardGpuResources(), DIMS)
        made.add(vectors)
        return made

    shards = f.IndexShards(DIMS, False, True)
    for half in (base[:100], base[100:]):
        shards.add_shard(flat(half))
    yield "IndexShards", shards
    replicas = f.IndexReplicas(DIMS)
    for _ in range(2):
        replicas.addIndex(flat(base))
    yield "IndexReplicas", replicas
    proxy = f.IndexProxy(DIMS)
    proxy.addIndex(flat(base))
    yield "IndexProxy", proxy
    mapped = f.IndexIDMap(flat(base[:0]))
    mapped.add_with_ids(base, np.arange(NB) + 1000)
    yield "IndexIDMap", mapped
    turned = f.IndexPreTransform(
        f.NormalizationTransform(DIMS), flat(base[:0]))
    turned.add(base)
    yield "IndexPreTransform", turned


def test_holders_of_our_indexes_do_what_holders_of_faiss_own_do(
    faiss_ext, resources, base, queries
):
    ours = dict(holders(faiss_ext, resources, base))
    # Replicas are searched by a thread each, and Faiss' own indexes may not share
    # resources then.
    theirs = dict(holders(stock, None, base))
    for name, index in ours.items():
        for found, wanted in zip(
            index.search(queries, K), theirs[name].search(queries, K)
        ):
            # The exact engine has other last bits.
            np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=name)


def test_holders_refuse_gpu_memory(
    faiss_ext, resources, base, queries, gpu_array, index
):
    x = gpu_array(queries)
    result = index.search(x, K)[0]
    D, I = gpu_array(np.zeros((N, K), "float32")), gpu_array(np.zeros((N, K), "int64"))
    for name, holder in holders(faiss_ext, resources, base):
        for call in (
            lambda: holder.search(x, K),
            lambda: holder.search(result, K),
            lambda: holder.search(queries, K, D=D),
            lambda: holder.search(queries, K, I=I),
            lambda: holder.add(x),
            lambda: holder.train(x),
            lambda: holder.assign(x, K),
        ):
            with pytest.raises(faiss_ext.InvalidArray, match="in GPU memory; "):
                call()
        assert holder.search(queries, K)[1].shape == (N, K)
