"""Every method takes any array, host or GPU."""

from __future__ import annotations

import array
import gc

import numpy as np
import pytest
from common_search import DIMS, K, N, values_of


@pytest.fixture
def base(vectors):
    return vectors(200, DIMS, 1)


HOST = {
    "ndarray": lambda x: x,
    "list": lambda x: x.tolist(),
    "memoryview": lambda x: memoryview(x),
    "float64": lambda x: x.astype("float64"),
    "int": lambda x: x.astype("int64"),
    "strided": lambda x: np.asfortranarray(x),
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "object": lambda x: type("A", (), {
        "__array__": lambda self, dtype=None, copy=None: x})(),
    "interface": lambda x: type("A", (), {
        "__array_interface__": x.__array_interface__, "keep": x})(),
}


@pytest.mark.parametrize("kind", HOST)
def test_host_arrays_are_converted_as_faiss_does(
    faiss_ext, resources, index, base, queries, expected, kind
):
    other = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    other.add(HOST[kind](base))
    for x, on in ((HOST[kind](queries), index), (queries, other)):
        D, I = on.search(x, K)
        assert isinstance(I, np.ndarray)
        np.testing.assert_array_equal(I, expected[1])
        np.testing.assert_array_equal(D, expected[0])


def test_a_buffer_is_an_output(index, queries):
    expected = index.search(queries, K)
    labels = array.array("q", [0] * (N * K))
    out = memoryview(labels).cast("B").cast("q", (N, K))
    index.search(queries, K, I=out)
    np.testing.assert_array_equal(np.array(out), expected[1])


def test_one_vector_is_refused_with_the_fix(faiss_ext, index, queries, gpu_array):
    x = gpu_array(queries[0])
    for call in (lambda: index.search(x, K), lambda: index.add(x),
                 lambda: index.assign(x, K), lambda: index.train(x)):
        with pytest.raises(faiss_ext.InvalidArray, match=r"x\)?\[None, :\]"):
            call()


@pytest.mark.parametrize("side", ["host", "gpu"])
def test_every_method(index, base, queries, gpu_array, side, faiss_ext):
    place = gpu_array if side == "gpu" else lambda x: x
    x = place(queries)
    expected = index.search(queries, K)
    R = base[expected[1]]
    got = index.search_and_reconstruct(x, K)
    for found, wanted in zip(got, (*expected, R)):
        np.testing.assert_array_equal(values_of(found), wanted)
    np.testing.assert_array_equal(values_of(index.assign(x, K)), expected[1])
    keys = np.array([3, 199, 0, -1])
    wanted = base[keys]
    wanted[3] = 0
    batch = index.reconstruct_batch(place(keys))
    np.testing.assert_array_equal(values_of(batch), wanted)
    ids = np.arange(N)
    residuals = index.compute_residual_n(N, x, None, place(ids))
    np.testing.assert_array_equal(values_of(residuals), queries - base[:N])
    one = index.compute_residual(place(queries[5]), key=7)
    np.testing.assert_array_equal(values_of(one), queries[5] - base[7])
    index.train(x)
    kind = np.ndarray if side == "host" else faiss_ext.DeviceArray
    for found in (*got, batch, residuals, one):
        assert type(found) is kind
    index.add(x)
    assert index.ntotal == 200 + N


@pytest.mark.parametrize("side", ["host", "gpu"])
def test_every_method_fills_what_is_given(index, base, queries, gpu_array, side):
    place = gpu_array if side == "gpu" else lambda x: x

    def out(shape, dtype="float32"):
        return place(np.zeros(shape, dtype))

    expected = index.search(queries, K)
    D, I, R = out((N, K)), out((N, K), "int64"), out((N, K, DIMS))
    got = index.search_and_reconstruct(place(queries), K, D=D, I=I, R=R)
    assert got[0] is D and got[1] is I and got[2] is R
    np.testing.assert_array_equal(values_of(R), base[expected[1]])
    for call, shape, wanted in (
        (lambda x: index.reconstruct(4, x), (DIMS,), base[4]),
        (lambda x: index.reconstruct_n(3, 5, x), (5, DIMS), base[3:8]),
        (lambda x: index.reconstruct_batch(place(np.arange(5)), x), (5, DIMS), base[:5]),
        (lambda x: index.compute_residual(place(queries[0]), x, 2), (DIMS,),
         queries[0] - base[2]),
        (lambda x: index.compute_residual_n(
            5, place(queries[:5]), x, place(np.arange(5))), (5, DIMS),
         queries[:5] - base[:5]),
    ):
        given = out(shape)
        assert call(given) is given
        np.testing.assert_array_equal(values_of(given), wanted)


def test_residuals_take_faiss_pointers_too(faiss_ext, index, base, queries):
    out = np.empty(DIMS, "float32")
    index.compute_residual(
        faiss_ext.swig_ptr(queries[0]), faiss_ext.swig_ptr(out), 3)
    np.testing.assert_array_equal(out, queries[0] - base[3])


def test_what_faiss_refuses_stays_its_refusal(faiss_ext, index, queries, gpu_array):
    with pytest.raises(RuntimeError, match="remove_ids"):
        index.remove_ids(np.array([1, 2]))
    with pytest.raises(RuntimeError, match="remove_ids"):
        index.remove_ids([1, 2])
    with pytest.raises(RuntimeError, match="remove_ids"):
        index.remove_ids(faiss_ext.IDSelectorRange(0, 3))
    with pytest.raises(faiss_ext.InvalidArray, match="^x: in GPU memory; .*remove_ids takes host memory"):
        index.remove_ids(gpu_array(np.array([1, 2])))
    for x, ids in ((queries, np.arange(N)), (gpu_array(queries), gpu_array(np.arange(N)))):
        with pytest.raises(RuntimeError):
            index.add_with_ids(x, ids)
    with pytest.raises(RuntimeError, match="out of bounds"):
        index.reconstruct_batch([200])


@pytest.mark.parametrize("dtype", ["float64", "int16", "int32", "uint32", "int64"])
def test_other_numbers_on_the_gpu_are_refused_with_the_mend(
    faiss_ext, index, queries, gpu_array, dtype
):
    with pytest.raises(faiss_ext.InvalidArray,
                       match=rf"x: dtype {dtype}; float32 .*cast=True"):
        index.search(gpu_array(queries.astype(dtype)), K)


@pytest.mark.parametrize("dtype", ["complex64", "bool"])
@pytest.mark.parametrize("cast", [False, True])
def test_what_is_no_real_number_is_refused_with_the_mend(
    faiss_ext, index, queries, gpu_array, dtype, cast
):
    with pytest.raises(faiss_ext.InvalidArray,
                       match=rf"x: dtype {dtype}; float32 .*astype"):
        index.search(gpu_array(queries.astype(dtype)), K, cast=cast)


@pytest.mark.parametrize("interface, text", [
    ("text", "a dict is needed"),
    ({}, "version None"),
    ({"version": 4}, "version 4"),
    ({"version": 3}, "has no 'typestr'"),
    ({"version": 3, "typestr": "<f4", "shape": (1, 8)}, "has no 'data'"),
    ({"version": 3, "typestr": "nonsense", "shape": (1, 8), "data": (8, False)}, "typestr"),
    ({"version": 3, "typestr": "<f4", "shape": (1.5, 8), "data": (8, False)}, "tuple of int"),
    ({"version": 3, "typestr": "<f4", "shape": 8, "data": (8, False)}, "tuple of int"),
    ({"version": 3, "typestr": "<f4", "shape": (2**70, 8), "data": (8, False)}, "64 bits"),
    ({"version": 3, "typestr": "<f4", "shape": (2**62, 2**62), "data": (8, False)}, "memory can hold"),
    ({"version": 3, "typestr": "<f4", "shape": (1, 8), "data": 8}, "pointer"),
    ({"version": 3, "typestr": "<f4", "shape": (1, 8), "data": (-8, False)}, "address"),
    ({"version": 3, "typestr": "<f4", "shape": (1, 8), "data": ("8", False)}, "address"),
    ({"version": 3, "typestr": "<f4", "shape": (2, 8), "data": (8, False), "strides": (33, 4)}, "multiples"),
    ({"version": 3, "typestr": "<f4", "shape": (2, 8), "data": (8, False), "strides": (4,)}, "1 strides"),
    ({"version": 3, "typestr": "<f4", "shape": (2, 8), "data": (64, False), "strides": (-4096, 4)}, "address space"),
    ({"version": 3, "typestr": "<f4", "shape": (2, 8), "data": (2**63, False)}, "no memory of a GPU"),
    ({"version": 3, "typestr": "<f4", "shape": (2, 8), "data": (8, False)}, "no memory of a GPU"),
    ({"version": 3, "typestr": "<f4", "shape": (2, 8), "data": (8, False), "stream": "7"}, "handle"),
    ({"version": 3, "typestr": "<f4", "shape": (2, 8), "data": (8, False), "stream": -3}, "handle"),
    ({"version": 3, "typestr": "|V4", "shape": (2, 8), "data": (8, False)}, "kind 'V'"),
    ({"version": 3, "typestr": "<M8[s]", "shape": (2, 8), "data": (8, False)}, "kind 'M'"),
    ({"version": 3, "typestr": "|O", "shape": (2, 8), "data": (8, False)}, "kind 'O'"),
], ids=str)
def test_interfaces_that_lie_are_refused(faiss_ext, index, interface, text):
    x = type("Liar", (), {"__cuda_array_interface__": interface})()
    with pytest.raises(faiss_ext.InvalidArray, match=f"^x: .*{text}"):
        index.search(x, K)


def test_a_call_that_fails_leaves_the_streams_in_order(
    index, queries, gpu_array, simulator
):
    stream = simulator.new_stream()
    expected = index.search(queries, K)[1]
    x = gpu_array(queries, stream=stream)
    with pytest.raises(RuntimeError):
        index.search(x, 10**6)
    I = np.empty((N, K), "int64")
    index.search(x, K, I=I)
    np.testing.assert_array_equal(I, expected)


class Freeing:
    """An interface whose memory goes with it, without waiting for anyone."""

    def __init__(self, memory, freed):
        self.__cuda_array_interface__ = memory.__cuda_array_interface__
        self.memory, self.freed = memory, freed

    def __del__(self):
        self.freed.append(True)


def test_an_array_that_dies_at_once_is_kept_until_it_was_read(
    index, queries, gpu_array, simulator
):
    from faiss_ext._call import in_flight

    freed = []
    memory = gpu_array(queries)
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    gc.collect()
    stream = index.default_stream_c()
    simulator.hold(stream)
    index.search(Freeing(memory, freed), K, D=D, I=I)
    in_flight.release_finished()
    assert not freed
    simulator.release(stream)
    simulator.synchronize()
    in_flight.release_finished()
    assert freed


@pytest.mark.parametrize("error", [1, 900, 901, 906])
def test_an_error_of_a_question_is_no_end_of_the_work(
    index, queries, gpu_array, simulator, error
):
    from faiss_ext._call import in_flight

    freed = []
    memory = gpu_array(queries)
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    gc.collect()
    stream = index.default_stream_c()
    simulator.hold(stream)
    index.search(Freeing(memory, freed), K, D=D, I=I)
    simulator.fail_call("cudaEventQuery", 1, error)
    in_flight.release_finished()
    assert not freed
    simulator.release(stream)
    simulator.synchronize()
    in_flight.release_finished()
    assert freed


def test_a_call_asks_for_few_of_the_calls_in_flight(
    index, queries, gpu_array, simulator
):
    x = gpu_array(queries)
    stream = index.default_stream_c()
    simulator.hold(stream)
    kept = [index.search(x, K) for _ in range(30)]
    simulator.reset_counters()
    index.search(x, K)
    asked = simulator.calls("cudaEventQuery")
    assert asked < 10
    simulator.release(stream)
    simulator.synchronize()
    del kept


def test_what_later_versions_of_faiss_take_goes_to_faiss(
    faiss_ext, resources, base, queries, gpu_array
):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    cases = (
        ("add", (base,)), ("train", (base,)), ("search", (queries, K)),
    )
    for name, arguments in cases:
        method = getattr(index, name)
        with pytest.raises(TypeError, match="no_such_option"):
            method(*arguments, no_such_option=1)
        with pytest.raises(faiss_ext.InvalidArray, match="numeric_type.*: .*NumPy"):
            method(gpu_array(arguments[0]), *arguments[1:], numeric_type=1)
        with pytest.raises(faiss_ext.InvalidArray, match="^numeric_type: "):
            index.search(
                gpu_array(queries), K, params=faiss_ext.SearchParameters(),
                numeric_type=1)
        if hasattr(faiss_ext, "Float32"):
            method(*arguments, numeric_type=faiss_ext.Float32)
    if hasattr(faiss_ext, "Float32"):
        assert index.ntotal == len(base)
        found = index.search(queries, K, numeric_type=faiss_ext.Float32)
        np.testing.assert_array_equal(found, index.search(queries, K))


def test_a_needed_shape_of_one_extent_is_written_like_a_tuple(faiss_ext, resources):
    index = faiss_ext.GpuIndexFlatL2(resources, 8)
    index.add(np.ones((1, 8), "float32"))
    with pytest.raises(faiss_ext.InvalidArray, match=r"shape \(3,\); needed \(8,\)"):
        index.compute_residual(np.ones(3, "float32"), key=0)


@pytest.mark.parametrize("k", [1 << 20, 10**12, 2**62, 2**70])
def test_an_impossible_k_is_refused_before_memory_is_asked_for(
    faiss_ext, index, queries, gpu_array, k
):
    for x in (queries, gpu_array(queries)):
        with pytest.raises(faiss_ext.InvalidArray, match=f"^k: {k}; "):
            index.search(x, k)


def test_rows_that_are_not_there_are_refused(faiss_ext, index):
    for arguments in ((index.ntotal + 1,), (0, -2)):
        with pytest.raises(faiss_ext.InvalidArray, match="^n0: .*, ni: -"):
            index.reconstruct_n(*arguments)
    # Numbers of NumPy are numbers.
    np.testing.assert_array_equal(
        index.reconstruct_n(np.int64(1), np.int32(2)), index.reconstruct_n(1, 2))
