"""`knn_gpu` and `pairwise_distance_gpu` take any array."""

from __future__ import annotations

import contextlib
import itertools

import faiss as stock
import numpy as np
import pytest
from common_search import values_of

from faiss_ext._call import call as calls
from faiss_ext._index import classes as index_classes
from faiss_ext._native import swigfaiss_ext as native

DIMS, NB, NQ, K = 8, 200, 40, 4


@pytest.fixture
def xb(vectors):
    return vectors(NB, DIMS, 1)


@pytest.fixture
def xq(vectors):
    return vectors(NQ, DIMS, 2)


def test_numpy_arrays_have_the_results_of_faiss(faiss_ext, resources, xq, xb):
    D, I = faiss_ext.knn_gpu(resources, xq, xb, K)
    expected = stock.knn_gpu(resources, xq, xb, K)
    np.testing.assert_array_equal(D, expected[0])
    np.testing.assert_array_equal(I, expected[1])


@pytest.mark.parametrize(
    "where", list(itertools.product(["host", "gpu", "none"], repeat=2)), ids="-".join)
@pytest.mark.parametrize("inputs", ["gpu-gpu", "gpu-host", "host-gpu"])
def test_every_mixture_of_host_and_gpu_arrays(
    faiss_ext, resources, xq, xb, gpu_array, where, inputs
):
    expected = stock.knn_gpu(resources, xq, xb, K)

    def place(values, side):
        return gpu_array(values) if side == "gpu" else values

    sides = inputs.split("-")
    D = None if where[0] == "none" else place(np.zeros((NQ, K), "float32"), where[0])
    I = None if where[1] == "none" else place(np.zeros((NQ, K), "int64"), where[1])
    got = faiss_ext.knn_gpu(
        resources, place(xq, sides[0]), place(xb, sides[1]), K, D, I)
    for given, found, values in zip((D, I), got, expected):
        assert given is None or found is given
        np.testing.assert_array_equal(values_of(found), values)


def test_gpu_in_and_out_waits_for_nothing(
    faiss_ext, resources, xq, xb, gpu_array, simulator
):
    xq, xb = gpu_array(xq), gpu_array(xb)
    faiss_ext.knn_gpu(resources, xq, xb, K)
    simulator.finish()
    simulator.reset_counters()
    D, I = faiss_ext.knn_gpu(resources, xq, xb, K)
    assert simulator.waits() == 0
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    assert type(D) is type(I) is faiss_ext.DeviceArray


def test_labels_may_be_int32(faiss_ext, resources, xq, xb, gpu_array):
    expected = stock.knn_gpu(resources, xq, xb, K)[1]
    I = gpu_array(np.zeros((NQ, K), "int32"))
    faiss_ext.knn_gpu(resources, gpu_array(xq), gpu_array(xb), K, I=I)
    np.testing.assert_array_equal(I.get(), expected)


def test_half_vectors_are_searched_as_float32(
    faiss_ext, resources, xq, xb, gpu_array, monkeypatch
):
    types = []
    from faiss_ext._loader import native_part
    stock_knn = native_part.native.bf_knn_c
    monkeypatch.setattr(native_part.native, "bf_knn_c", lambda provider, asked, device: (
        types.append((asked.queryType, asked.vectorType)),
        stock_knn(provider, asked, device)))
    expected = stock.knn_gpu(resources, xq, xb, K)[0]
    D, I = faiss_ext.knn_gpu(
        resources, gpu_array(xq.astype("float16")), gpu_array(xb.astype("float16")), K)
    np.testing.assert_array_equal(values_of(D), expected)
    # Also one of the two.
    D, I = faiss_ext.knn_gpu(resources, gpu_array(xq), gpu_array(xb.astype("float16")), K)
    np.testing.assert_array_equal(values_of(D), expected)
    # Faiss squares in float16 where it gets two such arrays.
    assert types == 2 * [(stock.DistanceDataType_F32, stock.DistanceDataType_F32)]


def test_column_major_vectors_are_taken(faiss_ext, resources, xq, xb, gpu_array):
    expected = stock.knn_gpu(resources, xq, xb, K)[1]

    def columns(x):
        return gpu_array(
            np.ascontiguousarray(x.T), shape=x.shape, strides=(4, 4 * len(x)))

    I = faiss_ext.knn_gpu(resources, columns(xq), columns(xb), K)[1]
    np.testing.assert_array_equal(values_of(I), expected)
    rows = gpu_array(np.repeat(xq, 2, axis=0), shape=xq.shape, strides=(64, 4))
    I = faiss_ext.knn_gpu(resources, rows, columns(xb), K)[1]
    np.testing.assert_array_equal(values_of(I), expected)


def test_producers_come_first_and_go_on_after(
    faiss_ext, resources, xq, xb, gpu_array, simulator
):
    expected = stock.knn_gpu(resources, xq, xb, K)[1]
    stream = simulator.new_stream()
    source = gpu_array(xq)
    x = gpu_array(np.zeros_like(xq), stream=stream)
    I = gpu_array(np.zeros((NQ, K), "int64"), stream=stream)
    copy = gpu_array(np.zeros((NQ, K), "int64"))
    base = gpu_array(xb)
    simulator.copy(x._pointer, source._pointer, xq.nbytes, stream)
    faiss_ext.knn_gpu(resources, x, base, K, I=I)
    simulator.copy(copy._pointer, I._pointer, NQ * K * 8, stream)
    np.testing.assert_array_equal(copy.get(), expected)


@pytest.mark.parametrize("out", ["host", "gpu", "none"])
def test_all_distances(faiss_ext, resources, xq, xb, gpu_array, out):
    expected = ((xq[:, None] - xb[None]) ** 2).sum(axis=2)
    D = {"host": np.zeros_like(expected), "gpu": gpu_array(np.zeros_like(expected)),
         "none": None}[out]
    got = faiss_ext.pairwise_distance_gpu(resources, gpu_array(xq), gpu_array(xb), D)
    assert D is None or got is D
    np.testing.assert_array_equal(values_of(got), expected)


def test_the_gpu_of_the_queries_does_the_work(
    faiss_ext, xq, xb, gpu_array, simulator
):
    expected = stock.knn_gpu(faiss_ext.StandardGpuResources(), xq, xb, K)[1]
    simulator.library.cuda_sim_set_device_count(2)
    resources = faiss_ext.StandardGpuResources()
    with simulator.on_gpu(1):
        xq, xb = gpu_array(xq), gpu_array(xb)
    I = faiss_ext.knn_gpu(resources, xq, xb, K)[1]
    assert I.__dlpack_device__() == (2, 1)
    np.testing.assert_array_equal(values_of(I), expected)


@pytest.mark.parametrize("where", ["host", "gpu 0", "gpu 1"])
def test_the_gpu_that_is_asked_for_does_the_work(
    faiss_ext, xq, xb, gpu_array, simulator, where
):
    expected = stock.knn_gpu(faiss_ext.StandardGpuResources(), xq, xb, K)[1]
    simulator.library.cuda_sim_set_device_count(2)
    resources = faiss_ext.StandardGpuResources()
    x = xq
    if where != "host":
        with simulator.on_gpu(int(where[-1])):
            x = gpu_array(xq, stream=1)
    I = np.zeros((NQ, K), "int64")
    simulator.reset_counters()
    faiss_ext.knn_gpu(resources, x, xb, K, I=I, device=1)
    np.testing.assert_array_equal(I, expected)
    all_distances = faiss_ext.pairwise_distance_gpu(
        resources, x, xb, np.zeros((NQ, NB), "float32"), device=1)
    np.testing.assert_array_equal(
        all_distances, ((xq[:, None] - xb[None]) ** 2).sum(axis=2))


def test_gpus_do_not_share_the_memory_of_conversions(
    faiss_ext, xq, xb, gpu_array, simulator
):
    expected = stock.knn_gpu(faiss_ext.StandardGpuResources(), xq, xb, K)[1]
    simulator.library.cuda_sim_set_device_count(2)
    resources = faiss_ext.StandardGpuResources()
    arrays = {}
    for device in (0, 1):
        with simulator.on_gpu(device):
            arrays[device] = [gpu_array(a.astype("int8"), stream=1) for a in (
                xq if device == 0 else xq[::-1], xb)]
    stream = native.resources_stream_c(resources.getResources(), 0)
    simulator.hold(stream)
    first = faiss_ext.knn_gpu(resources, *arrays[0], K)[1]
    with simulator.on_gpu(1):
        second = faiss_ext.knn_gpu(resources, *arrays[1], K)[1].copy_to_host()
    simulator.release(stream)
    np.testing.assert_array_equal(second, expected[::-1])
    np.testing.assert_array_equal(first.copy_to_host(), expected)


def test_neighbours_beyond_the_limit_of_faiss_are_refused(
    faiss_ext, resources, xq, xb, gpu_array
):
    # Faiss would end the process.
    for convert in (gpu_array, np.copy):
        with pytest.raises(faiss_ext.InvalidArray, match="k: 2049; 1 to 2048"):
            faiss_ext.knn_gpu(resources, convert(xq), convert(xb), 2049)
    assert faiss_ext.knn_gpu(resources, xq, xb, 2048)[1].shape == (NQ, 2048)


def test_numpy_arrays_that_faiss_would_misread_are_refused(
    faiss_ext, resources, xq, xb
):
    masked = np.ma.masked_less(xq, 0)
    D = np.zeros((NQ, K), "float32")
    D.flags.writeable = False
    every = np.zeros((NQ, NB), "float32")
    every.flags.writeable = False
    for call, text in (
        (lambda: faiss_ext.knn_gpu(resources, masked, xb, K), "xq: masked"),
        (lambda: faiss_ext.knn_gpu(resources, xq, xb, K, D), "D: read-only"),
        (lambda: faiss_ext.knn_gpu(resources, xq, xb, K, D.T), "D: "),
        (lambda: faiss_ext.pairwise_distance_gpu(resources, masked, xb), "xq: masked"),
        (lambda: faiss_ext.pairwise_distance_gpu(resources, xq, xb, every),
         "D: read-only"),
    ):
        with pytest.raises(faiss_ext.InvalidArray, match=text):
            call()
    assert not D.any() and not every.any()


def test_a_refusal_names_the_array_that_decides_on_the_gpu(
    faiss_ext, resources, xq, gpu_array, xb
):
    lies = gpu_array(xb, data=(16, False))
    with pytest.raises(faiss_ext.InvalidArray, match="^xb: "):
        faiss_ext.knn_gpu(resources, xq, lies, K)


@pytest.mark.parametrize("kind", ["int8", "float64", "int64"])
def test_conversions_are_made_on_the_gpu(
    faiss_ext, resources, xq, xb, gpu_array, simulator, kind
):
    expected = stock.knn_gpu(resources, xq, xb, K)
    x = gpu_array(xq.astype(kind))
    y = gpu_array(xb.astype(kind))
    D = gpu_array(np.zeros((NQ, K), "float16"))
    simulator.reset_counters()
    I = faiss_ext.knn_gpu(resources, x, y, K, D=D, cast=True)[1]
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    np.testing.assert_array_equal(values_of(I), expected[1])
    np.testing.assert_array_equal(D.get(), expected[0].astype("float16"))


def test_what_later_faiss_takes_is_for_host_arrays(faiss_ext, resources, xq, xb, gpu_array):
    with pytest.raises(faiss_ext.InvalidArray, match="xq: in GPU memory; .*vectorsMemoryLimit"):
        faiss_ext.knn_gpu(resources, gpu_array(xq), xb, K, vectorsMemoryLimit=100)


def test_shapes_that_do_not_fit_are_refused(faiss_ext, resources, xq, xb, gpu_array):
    for bad, text in (
        (lambda: (gpu_array(xq), gpu_array(xb[:, :4].copy())), "xb: shape"),
        (lambda: (gpu_array(xq[0]), gpu_array(xb)), "xq: shape .*one vector"),
        (lambda: (gpu_array(xq.astype("float64")), gpu_array(xb)), "float64; float32 is needed"),
    ):
        with pytest.raises(faiss_ext.InvalidArray, match=text):
            faiss_ext.knn_gpu(resources, *bad(), K)
    with pytest.raises(faiss_ext.InvalidArray, match="k: 0"):
        faiss_ext.knn_gpu(resources, gpu_array(xq), gpu_array(xb), 0)


def test_numpy_shapes_that_do_not_fit_are_refused_by_name(faiss_ext, resources, xq, xb):
    narrow = xb[:, :3].copy()
    for call in (
        lambda: faiss_ext.knn_gpu(resources, xq, narrow, K),
        lambda: faiss_ext.pairwise_distance_gpu(resources, xq, narrow),
    ):
        with pytest.raises(faiss_ext.InvalidArray, match=r"xb: shape \(200, 3\)"):
            call()
    with pytest.raises(faiss_ext.InvalidArray, match="I: shape"):
        faiss_ext.knn_gpu(resources, xq, xb, K, I=np.empty((NQ, K + 1), "int64"))
    with pytest.raises(faiss_ext.InvalidArray, match="D: shape"):
        faiss_ext.pairwise_distance_gpu(
            resources, xq, xb, D=np.empty((NQ, NB - 1), "float32"))


@pytest.fixture
def under_lock(monkeypatch):
    """What is done under the lock of the resources, in order."""
    seen = []

    @contextlib.contextmanager
    def locked(resources):
        seen.append("lock")
        yield
        seen.append("unlock")

    monkeypatch.setattr(calls, "locked", locked)
    return seen


@pytest.mark.parametrize("place", ["numpy", "pinned", "gpu"])
def test_the_work_is_done_under_the_lock_of_the_resources(
    faiss_ext, resources, xq, xb, gpu_array, under_lock, monkeypatch, place
):
    # Threads that meet in Faiss' temporary memory end the process.
    work = native.bf_knn_c

    def noted(*args):
        under_lock.append("work")
        work(*args)

    def pinned(values):
        made = faiss_ext.pinned_empty(values.shape)
        made[:] = values
        return made

    monkeypatch.setattr(native, "bf_knn_c", noted)
    put = {"numpy": lambda x: x, "pinned": pinned, "gpu": gpu_array}[place]
    faiss_ext.knn_gpu(resources, put(xq), put(xb), K)
    faiss_ext.pairwise_distance_gpu(resources, put(xq), put(xb))
    assert under_lock == ["lock", "work", "unlock"] * 2


def test_other_gpu_indexes_work_under_it_too(resources, xq, xb, under_lock):
    index = index_classes.class_of(stock.GpuIndexFlatL2)(resources, DIMS)
    index.add(xb)
    index.search(xq, K)
    index.assign(xq, K)
    index.reconstruct_n(0, 5)
    index.search_and_reconstruct(xq, K)
    assert under_lock == ["lock", "unlock"] * 5


def test_results_of_numpy_queries_lie_in_the_pinned_pool(faiss_ext, resources, xq, xb):
    index = index_classes.class_of(stock.GpuIndexFlatL2)(resources, DIMS)
    index.add(xb)
    for call in (
        lambda: faiss_ext.knn_gpu(resources, xq, xb, K),
        lambda: (faiss_ext.pairwise_distance_gpu(resources, xq, xb),),
        lambda: index.search(xq, K),
        lambda: (index.assign(xq, K),),
    ):
        for found in call():
            kind = native.placement_c("found", found.ctypes.data, found.nbytes)[0]
            assert kind == "pinned"
