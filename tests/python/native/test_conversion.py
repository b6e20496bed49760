"""Half, 8-bit and strided arrays become float32 on the GPU they are on."""

from __future__ import annotations

import numpy as np
import pytest
from dlpack_capsules import Loan

DIMS, N, K = 8, 40, 4


@pytest.fixture
def queries(vectors):
    return vectors(N, DIMS, 2)


@pytest.fixture
def index(faiss_ext, resources, vectors):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(vectors(200, DIMS, 1))
    return index


@pytest.fixture
def expected(index, queries):
    return index.search(queries, K)


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
    assert simulator.library.cudaMemcpyAsync(
        x._pointer, source._pointer, queries.nbytes // 2, 4, stream) == 0
    I = index.search(x, K)[1]
    simulator.release(stream)
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


def test_outputs_are_not_converted(faiss_ext, index, queries, gpu_array):
    x = gpu_array(queries)
    with pytest.raises(faiss_ext.InvalidArray, match="D: dtype float16; float32"):
        index.search(x, K, D=gpu_array(np.zeros((N, K), "float16")))
    with pytest.raises(faiss_ext.InvalidArray, match="I: strides"):
        index.search(x, K, I=gpu_array(np.zeros((K, N), "int64"),
                                       shape=(N, K), strides=(8, 8 * N)))


def test_a_strided_array_on_another_gpu_is_refused_with_the_mend(
    faiss_ext, vectors, queries, gpu_array, simulator
):
    simulator.library.cuda_sim_set_device_count(2)
    index = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), DIMS)
    index.add(vectors(50, DIMS, 1))
    assert simulator.library.cudaSetDevice(1) == 0
    try:
        x = gpu_array(queries.astype("float16"))
        with pytest.raises(faiss_ext.InvalidArray, match="on GPU 1; the work is"):
            index.search(x, K)
        del x
    finally:
        simulator.library.cudaSetDevice(0)


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
    simulator.fail_call("kernel:toFloat32Kernel", 1, 2)
    with pytest.raises(RuntimeError, match="launchToFloat32"):
        index.search(x, K)
    I = index.search(x, K)[1]
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])
