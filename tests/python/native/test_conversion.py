"""Half, 8-bit and strided arrays become float32 on the GPU they are on."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from common_search import DIMS, K, N, values_of
from dlpack_capsules import Loan

from faiss_ext._call import in_flight, scratch


class BFloat:
    """bfloat16, which only DLPack can name."""

    def __init__(self, gpu_array, values):
        bits = np.ascontiguousarray(values, "float32").view("uint32")
        assert not (bits & 0xFFFF).any(), "not exact as bfloat16"
        self.memory = gpu_array((bits >> 16).astype("uint16"))
        self.loans = []

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        self.loans.append(
            Loan(self.memory._pointer, self.memory.shape, dtype=(4, 16, 1)))
        return self.loans[-1].capsule()


def make(gpu_array, kind, values):
    return BFloat(gpu_array, values) if kind == "bfloat16" else gpu_array(
        values.astype(kind))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8", "uint8"])
def test_every_type_is_searched_and_added_without_the_host(
    faiss_ext, resources, index, queries, vectors, gpu_array, simulator, kind
):
    if kind == "uint8":
        queries = queries + 200
    expected = index.search(queries, K)
    x = make(gpu_array, kind, queries)
    simulator.reset_counters()
    D, I = index.search(x, K)
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    assert simulator.waits() == 0
    np.testing.assert_array_equal(D.copy_to_host(), expected[0])
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])
    own = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    own.add(x)
    np.testing.assert_array_equal(own.reconstruct_n(0, N), queries)


LAYOUTS = {
    # rows in memory, strides, first element
    "padded rows": lambda x: (np.pad(x, ((0, 0), (0, 5))), (52, 4), 0),
    "column-major": lambda x: (np.ascontiguousarray(x.T), (4, 4 * N), 0),
    "every other column": lambda x: (np.repeat(x, 2, axis=1), (64, 8), 0),
    "reversed rows": lambda x: (x[::-1].copy(), (-32, 4), 32 * (N - 1)),
    "reversed columns": lambda x: (x[:, ::-1].copy(), (32, -4), 28),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_arrays_are_compacted_on_the_gpu(
    index, queries, expected, gpu_array, simulator, layout
):
    values, strides, first = LAYOUTS[layout](queries)
    x = gpu_array(values, shape=(N, DIMS), strides=strides)
    x._interface["data"] = (x._pointer.value + first, False)
    simulator.reset_counters()
    I = index.search(x, K)[1]
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


def test_one_row_repeated_by_a_stride_of_zero(index, queries, expected, gpu_array):
    x = gpu_array(queries[3], shape=(N, DIMS), strides=(0, 4))
    I = index.search(x, K)[1].copy_to_host()
    np.testing.assert_array_equal(I, np.tile(expected[1][3], (N, 1)))


def test_it_happens_after_the_producers_work(
    index, queries, expected, gpu_array, simulator
):
    stream = simulator.new_stream()
    source = gpu_array(queries.astype("float16"))
    x = gpu_array(np.zeros_like(queries, "float16"), stream=stream)
    simulator.hold(stream)
    simulator.copy(x._pointer, source._pointer, queries.nbytes // 2, stream)
    I = index.search(x, K)[1]
    simulator.release(stream)
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


NUMBERS = ["float64", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("kind", NUMBERS)
def test_other_numbers_are_converted_where_the_caller_says_so(
    faiss_ext, resources, index, queries, gpu_array, simulator, kind
):
    if kind.startswith("u"):
        queries = queries + 300
    expected = index.search(queries, K)
    x = gpu_array(queries.astype(kind))
    simulator.reset_counters()
    D, I = index.search(x, K, cast=True)
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    assert simulator.waits() == 0
    np.testing.assert_array_equal(D.copy_to_host(), expected[0])
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])
    own = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    own.train(x, cast=True)
    own.add(x, cast=True)
    np.testing.assert_array_equal(own.reconstruct_n(0, N), queries)


def test_casting_takes_the_nearest_float32(faiss_ext, resources, gpu_array):
    values = np.array([[1 / 3, 1e-50, 1e300, -1e300, 2**24 + 1, np.nan, -0.0, 1]])
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(gpu_array(values), cast=True)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            index.reconstruct(0), values[0].astype("float32"))
    whole = np.array([[2**24 + 1, 2**24 + 3, -(2**62) - 1, 5, 0, -1, 7, 8]])
    index.add(gpu_array(whole), cast=True)
    np.testing.assert_array_equal(index.reconstruct(1), whole[0].astype("float32"))


def test_every_method_that_takes_vectors_casts(index, queries, gpu_array):
    x, ids = gpu_array(queries.astype("float64")), gpu_array(np.arange(N))
    expected = index.search(queries, K)[1]
    for labels in (
        index.search(x, K, cast=True)[1],
        index.assign(x, K, cast=True),
        index.search_and_reconstruct(x, K, cast=True)[1],
    ):
        np.testing.assert_array_equal(labels.copy_to_host(), expected)
    residuals = index.compute_residual_n(N, x, None, ids, cast=True)
    np.testing.assert_array_equal(
        residuals.copy_to_host(), queries - index.reconstruct_n(0, N))
    one = index.compute_residual(
        gpu_array(queries[3].astype("int32")), key=5, cast=True)
    np.testing.assert_array_equal(
        one.copy_to_host(), queries[3] - index.reconstruct(5))


def test_host_arrays_are_always_converted(index, queries, expected):
    for cast in (False, True):
        I = index.search(queries.astype("float64"), K, cast=cast)[1]
        np.testing.assert_array_equal(I, expected[1])


@pytest.mark.parametrize("place", ["gpu", "strided", "host"])
def test_labels_may_be_int32(index, gpu_array, place, queries):
    keys = np.array([3, 7, -1, 199], "int32")
    wanted = index.reconstruct_n(0, 200)[keys]
    wanted[2] = 0
    given = {
        "gpu": lambda: gpu_array(keys),
        "strided": lambda: gpu_array(
            np.repeat(keys.astype("int64"), 2), shape=(4,), strides=(16,)),
        "host": lambda: keys,
    }[place]()
    found = index.reconstruct_batch(given)
    np.testing.assert_array_equal(values_of(found), wanted)
    residuals = index.compute_residual_n(4, gpu_array(queries[:4]), None, given)
    np.testing.assert_array_equal(
        residuals.copy_to_host()[[0, 1, 3]], (queries[:4] - wanted)[[0, 1, 3]])


@pytest.mark.parametrize("side", ["gpu", "host"])
def test_results_may_be_asked_for_in_narrower_types(
    index, queries, expected, gpu_array, simulator, side
):
    place = gpu_array if side == "gpu" else lambda x: x
    D, I = place(np.zeros((N, K), "float16")), place(np.zeros((N, K), "int32"))
    simulator.reset_counters()
    got = index.search(gpu_array(queries), K, D=D, I=I)
    if side == "gpu":
        assert simulator.bytes_down() == 0
    assert got[0] is D and got[1] is I
    np.testing.assert_array_equal(values_of(D), expected[0].astype("float16"))
    np.testing.assert_array_equal(values_of(I), expected[1])
    labels = place(np.zeros((N, K), "int32"))
    assert index.assign(queries, K, labels) is labels
    np.testing.assert_array_equal(values_of(labels), expected[1])
    R = place(np.zeros((N, K, DIMS), "float32"))
    D2, I2, R2 = index.search_and_reconstruct(queries, K, D=D, I=I, R=R)
    assert D2 is D and I2 is I and R2 is R
    np.testing.assert_array_equal(values_of(I), expected[1])


def test_half_distances_beyond_their_range_are_infinite(
    faiss_ext, resources, gpu_array
):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(np.full((1, DIMS), 1000, "float32"))
    for place in (gpu_array, lambda x: x):
        D = place(np.zeros((1, 1), "float16"))
        index.search(np.zeros((1, DIMS), "float32"), 1, D=D)
        assert np.isposinf(values_of(D)).all()


def test_outputs_of_other_layouts_are_not_converted(
    faiss_ext, index, queries, gpu_array
):
    x = gpu_array(queries)
    for dtype in ("int64", "int32"):
        size = np.dtype(dtype).itemsize
        with pytest.raises(faiss_ext.InvalidArray, match="I: with gaps or column-major"):
            index.search(x, K, I=gpu_array(np.zeros((K, N), dtype),
                                           shape=(N, K), strides=(size, size * N)))
    with pytest.raises(faiss_ext.InvalidArray, match="R: dtype float16; .* float32"):
        index.search_and_reconstruct(
            x, K, R=gpu_array(np.zeros((N, K, DIMS), "float16")))


@pytest.fixture
def second_gpu(simulator):
    """Makes arrays on GPU 1, while GPU 0 stays current."""
    simulator.library.cuda_sim_set_device_count(2)

    def on_gpu_1(make, *arguments, **options):
        with simulator.on_gpu(1):
            return make(*arguments, **options)

    return on_gpu_1


@pytest.mark.parametrize("layout", ["half", "double", *LAYOUTS])
def test_arrays_on_another_gpu_are_copied_over_and_converted(
    faiss_ext, vectors, queries, gpu_array, simulator, second_gpu, layout
):
    index = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), DIMS)
    index.add(vectors(200, DIMS, 1))
    expected = index.search(queries, K)
    stream = second_gpu(simulator.new_stream)
    if layout in LAYOUTS:
        values, strides, first = LAYOUTS[layout](queries)
        x = second_gpu(gpu_array, values, shape=(N, DIMS), strides=strides, stream=stream)
        x._interface["data"] = (x._pointer.value + first, False)
    else:
        kind = {"half": "float16", "double": "float64"}[layout]
        values = queries.astype(kind)
        x = second_gpu(gpu_array, values, stream=stream)
    content = x.get()
    x.set(np.zeros_like(content))
    source = second_gpu(gpu_array, content)
    # The producer's work is on its way when the search is called.
    second_gpu(
        simulator.copy, x._pointer, source._pointer, content.nbytes, stream)
    simulator.reset_counters()
    D = np.zeros((N, K), "float32")
    I = np.zeros((N, K), "int64")
    index.search(x, K, D=D, I=I, cast=True)
    assert simulator.bytes_up() == 0
    np.testing.assert_array_equal(I, expected[1])
    np.testing.assert_array_equal(D, expected[0])


def test_narrower_results_on_another_gpu_get_there(
    faiss_ext, vectors, queries, gpu_array, second_gpu, simulator
):
    index = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), DIMS)
    index.add(vectors(200, DIMS, 1))
    expected = index.search(queries, K)
    D = second_gpu(gpu_array, np.zeros((N, K), "float16"), stream=1)
    I = second_gpu(gpu_array, np.zeros((N, K), "int32"), stream=1)
    index.search(gpu_array(queries), K, D=D, I=I)
    np.testing.assert_array_equal(second_gpu(I.get), expected[1])
    np.testing.assert_array_equal(
        second_gpu(D.get), expected[0].astype("float16"))


def test_conversions_of_later_calls_take_no_memory_and_wait_for_nothing(
    index, queries, gpu_array, simulator
):
    x = gpu_array(queries.astype("float16"))
    D = gpu_array(np.zeros((N, K), "float16"))
    I = gpu_array(np.zeros((N, K), "int32"))
    index.search(x, K, D=D, I=I)
    simulator.synchronize()
    simulator.reset_counters()
    before = simulator.counter("live_device")
    for _ in range(3):
        index.search(x, K, D=D, I=I)
    assert simulator.calls("cudaMalloc") == 0
    assert simulator.waits() == 0
    assert simulator.counter("live_device") == before


def test_calls_in_flight_do_not_share_scratch_memory(
    index, queries, expected, gpu_array, simulator
):
    x = [gpu_array(np.roll(queries, i, 0).astype("float16")) for i in range(3)]
    outs = [gpu_array(np.zeros((N, K), "int64")) for _ in x]
    index.search(x[0], K, I=outs[0])
    stream = index.default_stream_c()
    simulator.hold(stream)
    for a, I in zip(x, outs):
        index.search(a, K, I=I)
    simulator.release(stream)
    for i, I in enumerate(outs):
        np.testing.assert_array_equal(I.get(), np.roll(expected[1], i, 0))


def test_conversions_of_one_call_do_not_share_scratch_memory(
    faiss_ext, resources, queries, gpu_array
):
    x, y = (gpu_array(a.astype("int8")) for a in (queries, queries[::-1]))
    for _ in range(2):
        I = faiss_ext.knn_gpu(resources, x, y, 1)[1].copy_to_host()
        np.testing.assert_array_equal(queries[::-1][I[:, 0]], queries)


def test_threads_convert_at_the_same_time(index, queries, expected, gpu_array):
    arrays = [gpu_array(np.roll(queries, i, 0).astype("float16")) for i in range(4)]
    wrong = []

    def work(i):
        for _ in range(5):
            I = index.search(arrays[i], K)[1].copy_to_host()
            if not np.array_equal(I, np.roll(expected[1], i, 0)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_scratch_memory_goes_with_the_index(
    faiss_ext, resources, queries, gpu_array, simulator
):
    x = gpu_array(queries.astype("float16"))
    before = simulator.counter("live_device")
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(x)
    assert simulator.counter("live_device") > before
    del index
    simulator.synchronize()
    in_flight.release_finished()
    assert simulator.counter("live_device") == before


def test_large_scratch_memory_is_not_kept(
    faiss_ext, resources, vectors, queries, expected, gpu_array, simulator, monkeypatch
):
    monkeypatch.setattr(scratch, "KEPT", 100)
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(vectors(200, DIMS, 1))
    x = gpu_array(queries.astype("float16"))
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    index.search(queries, K, D=D, I=I)
    before = simulator.counter("live_device")
    simulator.reset_counters()
    index.search(x, K, D=D, I=I)
    # Freeing it now would wait for the search.
    assert simulator.waits() == 0
    np.testing.assert_array_equal(I.get(), expected[1])
    in_flight.release_finished()
    assert simulator.counter("live_device") == before


def test_scratch_memory_is_lent_behind_a_changed_default_stream(
    faiss_ext, queries, gpu_array, vectors, simulator
):
    resources = faiss_ext.StandardGpuResources()
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(vectors(200, DIMS, 1))
    expected = index.search(queries, K)[1]
    x = gpu_array(queries.astype("float16"))
    D, I = (gpu_array(np.zeros((N, K), t)) for t in ("float32", "int64"))
    index.search(x, K, D=D, I=I)
    # What the old stream still reads is written on the new one after that.
    resources.setDefaultNullStreamAllDevices()
    other = gpu_array(np.roll(queries, 1, 0).astype("float16"))
    labels = index.search(other, K)[1]
    np.testing.assert_array_equal(I.get(), expected)
    np.testing.assert_array_equal(labels.copy_to_host(), np.roll(expected, 1, 0))


def test_no_memory_for_the_copy_is_an_error_and_passes(
    index, queries, expected, gpu_array, simulator
):
    x = gpu_array(queries.astype("float16"))
    simulator.fail_call("cudaMalloc", 1, 2)
    with pytest.raises(RuntimeError):
        index.search(x, K)
    I = index.search(x, K)[1]
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


def test_a_launch_that_fails_is_an_error_and_passes(
    index, queries, expected, gpu_array, simulator
):
    x = gpu_array(queries.astype("float16"))
    simulator.fail_call("kernel:convertRowsKernel", 1, 2)
    with pytest.raises(RuntimeError, match="launchConvertRows"):
        index.search(x, K)
    I = index.search(x, K)[1]
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


def test_an_index_may_compare_as_its_user_likes(
    faiss_ext, resources, vectors, queries, expected, gpu_array
):
    class Mine(faiss_ext.GpuIndexFlatL2):
        def __eq__(self, other):
            return True

    mine = [Mine(resources, DIMS) for _ in range(2)]
    mine[0].add(vectors(200, DIMS, 1))
    I = mine[0].search(gpu_array(queries.astype("float16")), K)[1].copy_to_host()
    np.testing.assert_array_equal(I, expected[1])
    assert scratch.scratch_of(mine[0], None) is not scratch.scratch_of(
        mine[1], resources.getResources())
