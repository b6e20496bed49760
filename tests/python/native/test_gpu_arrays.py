"""Arrays that offer the CUDA Array Interface are used where they are."""

import itertools

import numpy as np
import pytest
from common_search import DIMS, K, N


@pytest.mark.parametrize(
    "where", list(itertools.product(["host", "gpu"], repeat=3)), ids="-".join
)
def test_every_mixture_of_host_and_gpu_arrays(
    index, queries, expected, gpu_array, where
):
    def place(values, side):
        return gpu_array(values) if side == "gpu" else values.copy()

    x = place(queries, where[0])
    D = place(np.full((N, K), -1, "float32"), where[1])
    I = place(np.full((N, K), -1, "int64"), where[2])
    got = index.search(x, K, D=D, I=I)
    assert got[0] is D and got[1] is I
    for array, values in zip((D, I), expected):
        found = array if isinstance(array, np.ndarray) else array.get()
        np.testing.assert_array_equal(found, values)


def test_gpu_in_and_out_moves_nothing_and_waits_for_nothing(
    index, queries, expected, gpu_array, simulator
):
    x = gpu_array(queries)
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    simulator.reset_counters()
    index.search(x, K, D=D, I=I)
    assert simulator.pending() > 0
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    assert simulator.counter("bytes_d2d") == 0
    assert simulator.waits() == 0
    np.testing.assert_array_equal(I.get(), expected[1])


def test_results_for_gpu_queries_lie_on_the_gpu(
    faiss_ext, index, queries, expected, gpu_array, simulator
):
    D, I = index.search(gpu_array(queries), K)
    labels = index.assign(gpu_array(queries), K)
    for array, values in ((D, expected[0]), (I, expected[1]), (labels, expected[1])):
        assert isinstance(array, faiss_ext.DeviceArray)
        interface = array.__cuda_array_interface__
        assert interface["version"] == 3
        assert interface["stream"] == index.default_stream_c()
        assert interface["typestr"] == values.dtype.str
        assert array.shape == values.shape
        np.testing.assert_array_equal(
            simulator.download(interface["data"][0], values), values)


def test_a_device_array_is_taken_as_queries_and_outlives_its_index(
    faiss_ext, resources, vectors, index, queries, gpu_array
):
    D, I = index.search(gpu_array(queries), DIMS)
    again = index.search(D, 1)
    assert again[1].shape == (N, 1)
    own = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), DIMS)
    own.add(vectors(20, DIMS, 1))
    D, I = own.search(gpu_array(queries), DIMS)
    del own, I
    assert index.search(D, 1)[1].shape == (N, 1)


def test_add_takes_gpu_arrays(faiss_ext, resources, vectors, queries, expected,
                              gpu_array, simulator):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    base = gpu_array(vectors(200, DIMS, 1))
    simulator.reset_counters()
    index.add(base)
    assert simulator.bytes_up() == 0
    np.testing.assert_array_equal(index.search(queries, K)[1], expected[1])


def test_reconstruct_fills_gpu_arrays(index, vectors, gpu_array, simulator):
    base = vectors(200, DIMS, 1)
    one = gpu_array(np.zeros(DIMS, "float32"))
    some = gpu_array(np.zeros((30, DIMS), "float32"))
    simulator.reset_counters()
    assert index.reconstruct(7, one) is one
    assert index.reconstruct_n(5, 30, some) is some
    assert simulator.bytes_down() == 0
    np.testing.assert_array_equal(one.get(), base[7])
    np.testing.assert_array_equal(some.get(), base[5:35])


def test_the_producers_stream_comes_first_and_goes_on_after(
    index, queries, expected, gpu_array, simulator
):
    stream = simulator.new_stream()
    source = gpu_array(queries)
    x = gpu_array(np.zeros_like(queries), stream=stream)
    D = gpu_array(np.zeros((N, K), "float32"), stream=stream)
    I = gpu_array(np.zeros((N, K), "int64"), stream=stream)
    copy = gpu_array(np.zeros((N, K), "int64"))

    simulator.hold(stream)
    simulator.reset_counters()
    simulator.copy(x._pointer, source._pointer, queries.nbytes, stream)
    index.search(x, K, D=D, I=I)
    simulator.copy(copy._pointer, I._pointer, N * K * 8, stream)
    assert simulator.waits() == 0
    simulator.release(stream)
    np.testing.assert_array_equal(copy.get(), expected[1])


def test_version_2_arrays_are_read_after_the_legacy_default_stream(
    index, queries, expected, gpu_array, simulator
):
    source = gpu_array(queries)
    x = gpu_array(np.zeros_like(queries), version=2)
    simulator.copy(x._pointer, source._pointer, queries.nbytes, None)
    D = np.empty((N, K), "float32")
    I = np.empty((N, K), "int64")
    index.search(x, K, D=D, I=I)
    np.testing.assert_array_equal(I, expected[1])


@pytest.mark.parametrize(
    "falsified, error, text",
    [
        ({"version": 1}, ValueError, "version 1; version 2 or 3 is needed"),
        ({"mask": object()}, ValueError, "masked"),
        ({"stream": 0}, ValueError, "stream 0, which the interface forbids"),
        ({"typestr": ">f4"}, TypeError, "needed"),
        ({"shape": (N, DIMS + 1)}, ValueError, r"needed \(n, 8\)"),
        ({"shape": (DIMS,)}, ValueError, r"x\[None, :\]"),
        ({"shape": (N, -DIMS)}, ValueError, "not one of an array"),
        ({"strides": (DIMS * 8, 4)}, ValueError, "shorter|no memory"),
        ({"strides": (-DIMS * 4, 4)}, ValueError, "shorter|no memory"),
        ({"data": (0, False)}, ValueError, "null pointer"),
        ({"shape": (2 * N, DIMS)}, ValueError, "x is shorter"),
    ],
)
def test_queries_that_break_the_rules_are_refused(
    index, queries, expected, gpu_array, falsified, error, text
):
    with pytest.raises(error, match=text):
        index.search(gpu_array(queries, **falsified), K)
    np.testing.assert_array_equal(index.search(queries, K)[1], expected[1])


def test_strides_that_say_contiguous_are_taken(index, queries, expected, gpu_array):
    x = gpu_array(queries, strides=(DIMS * 4, 4))
    D = np.empty((N, K), "float32")
    I = np.empty((N, K), "int64")
    index.search(x, K, D=D, I=I)
    np.testing.assert_array_equal(I, expected[1])


def test_outputs_that_cannot_take_results_are_refused(
    index, queries, gpu_array
):
    x = gpu_array(queries)
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    readonly = gpu_array(np.zeros((N, K), "float32"))
    readonly._interface["data"] = (readonly._pointer.value, True)
    with pytest.raises(ValueError, match="D: read-only"):
        index.search(x, K, D=readonly, I=I)
    with pytest.raises(TypeError, match="I: dtype int16; .*int64 or int32"):
        index.search(x, K, D=D, I=np.empty((N, K), "int16"))
    with pytest.raises(TypeError, match="D: dtype float64; .*float32 or float16"):
        index.search(x, K, D=np.empty((N, K)), I=I)
    with pytest.raises(ValueError, match="I: shape"):
        index.search(x, K, D=D, I=np.empty((N, K + 1), "int64"))
    with pytest.raises(ValueError, match="C-contiguous and writable"):
        index.search(x, K, D=D, I=np.empty((K, N), "int64").T)
    with pytest.raises(TypeError, match="D: list"):
        index.search(x, K, D=[[0.0]], I=I)
    over_x = gpu_array(np.zeros((N, K), "float32"), data=x.__cuda_array_interface__["data"])
    with pytest.raises(ValueError, match="D and x overlap"):
        index.search(x, K, D=over_x, I=I)
