"""Results come back by the array library of the queries."""

from __future__ import annotations

import ctypes
import sys
import types

import numpy as np
import pytest
from common_search import DIMS, K
from dlpack_capsules import CUDA, FLOAT32, INT64, Loan


@pytest.fixture
def library(monkeypatch):
    """An array library that was imported, with nothing in it."""
    made = types.ModuleType("fake_arrays")
    monkeypatch.setitem(sys.modules, "fake_arrays", made)
    return made


def of(library, array, name="ndarray", **members):
    """Make an array one of the library's."""
    array.__class__ = type(
        name, (type(array),), {"__module__": "fake_arrays._core", **members})
    return array


class Tensor:
    """A tensor as PyTorch has them: DLPack, and an interface without stream."""

    __module__ = "fake_arrays"

    def __init__(self, gpu_array, values):
        self.gpu_array = gpu_array
        self.memory = gpu_array(values)
        self.values = values
        self.loans = []

    __cuda_array_interface__ = property(
        lambda self: {**self.memory.__cuda_array_interface__, "version": 2})

    def __dlpack_device__(self):
        return (CUDA, 0)

    def __dlpack__(self, stream=None, **new):
        if new:
            raise TypeError("unexpected keyword")
        assert stream > 0
        dtype = {"float32": FLOAT32, "int64": INT64}[str(self.values.dtype)]
        # Each outlives what borrows from it, and so the next one.
        self.loans.append(
            Loan(self.memory._pointer, self.values.shape, dtype=dtype))
        return self.loans[-1].capsule()

    def new_empty(self, shape, dtype):
        assert isinstance(dtype, types.SimpleNamespace)
        return Tensor(self.gpu_array, np.empty(shape, dtype.name))

    def get(self):
        return self.memory.get()


def test_tensors_make_results_by_new_empty(
    index, queries, expected, gpu_array, library
):
    library.float32 = types.SimpleNamespace(name="float32")
    library.int64 = types.SimpleNamespace(name="int64")
    x = Tensor(gpu_array, queries)
    D, I = index.search(x, K)
    assert type(D) is type(I) is Tensor
    np.testing.assert_array_equal(D.get(), expected[0])
    np.testing.assert_array_equal(I.get(), expected[1])
    assert type(index.assign(x, K)) is Tensor


def test_the_device_of_a_tensor_is_not_entered(
    index, queries, expected, gpu_array, library
):
    class Device:
        def __enter__(self):
            raise AssertionError("a mode that all functions of PyTorch pass")

        def __exit__(self, *why):
            pass

    library.float32 = types.SimpleNamespace(name="float32")
    library.int64 = types.SimpleNamespace(name="int64")
    x = Tensor(gpu_array, queries)
    x.device = Device()
    for _ in range(2):
        D, I = index.search(x, K)
        assert type(D) is type(I) is Tensor
        np.testing.assert_array_equal(I.get(), expected[1])


def test_libraries_with_empty_make_results_on_the_device_of_the_queries(
    index, queries, expected, gpu_array, library
):
    current = []

    class Device:
        def __enter__(self):
            current.append("queries'")

        def __exit__(self, *why):
            current.pop()

    def empty(shape, dtype):
        assert current == ["queries'"] and isinstance(dtype, np.dtype)
        return of(library, gpu_array(np.empty(shape, dtype)))

    library.empty = empty
    x = of(library, gpu_array(queries), device=Device())
    D, I = index.search(x, K)
    assert type(D).__name__ == type(I).__name__ == "ndarray"
    np.testing.assert_array_equal(D.get(), expected[0])
    np.testing.assert_array_equal(I.get(), expected[1])


def test_libraries_with_cuda_device_array_make_results(
    index, queries, expected, gpu_array, library
):
    library.cuda = types.SimpleNamespace(
        device_array=lambda shape, dtype: of(
            library, gpu_array(np.empty(shape, dtype)), "DeviceNDArray"))
    I = index.search(of(library, gpu_array(queries)), K)[1]
    assert type(I).__name__ == "DeviceNDArray"
    np.testing.assert_array_equal(I.get(), expected[1])


@pytest.fixture
def two_gpus(simulator):
    simulator.library.cuda_sim_set_device_count(2)


@pytest.mark.parametrize("managed", [False, True])
def test_results_are_made_on_the_gpu_of_the_queries_whichever_is_current(
    two_gpus, index, queries, expected, gpu_array, library, simulator, managed
):
    made_on = []

    def device_array(shape, dtype):
        made_on.append(simulator.current_gpu())
        return of(library, gpu_array(np.empty(shape, dtype)), "DeviceNDArray")

    library.cuda = types.SimpleNamespace(device_array=device_array)
    with simulator.on_gpu(1):
        x = of(library, gpu_array(queries))
        if managed:
            # Any GPU may use it.
            simulator.synchronize()
            assert simulator.library.cudaFree(x._pointer) == 0
            assert simulator.library.cudaMallocManaged(
                ctypes.byref(x._pointer), ctypes.c_size_t(queries.nbytes), 1) == 0
            x._interface["data"] = x._pointer.value, False
            x.set(queries)
    # The second time, the library's way is known.
    for _ in range(2):
        D, I = index.search(x, K)
        assert simulator.current_gpu() == 0
        assert type(D).__name__ == type(I).__name__ == "DeviceNDArray"
        np.testing.assert_array_equal(I.get(), expected[1])
    assert set(made_on) == {0 if managed else 1}


@pytest.mark.parametrize("empty", [
    None,
    lambda shape, dtype: np.empty(shape, dtype),
    lambda shape, dtype: 1 // 0,
    lambda shape: None,
    lambda shape, dtype: None,
], ids=["none", "host", "raises", "signature", "nothing"])
def test_a_library_that_cannot_gets_an_array_of_ours(
    faiss_ext, index, queries, expected, gpu_array, library, empty
):
    if empty:
        library.empty = empty
    D, I = index.search(of(library, gpu_array(queries)), K)
    assert type(D) is type(I) is faiss_ext.DeviceArray
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


def test_immutable_families_get_an_array_of_ours(
    faiss_ext, index, queries, expected, gpu_array, library
):
    def empty(shape, dtype):
        array = gpu_array(np.empty(shape, dtype))
        array._interface["data"] = (array._pointer.value, True)
        return array

    library.empty = empty
    I = index.search(of(library, gpu_array(queries)), K)[1]
    assert type(I) is faiss_ext.DeviceArray
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


def test_ours_stay_ours(faiss_ext, index, gpu_array, queries):
    x = index.search(gpu_array(queries), DIMS)[0]
    D, I = index.search(x, K)
    assert type(D) is type(I) is faiss_ext.DeviceArray


def test_results_on_another_gpu_than_the_queries_are_not_taken(
    faiss_ext, vectors, queries, expected, gpu_array, library, simulator
):
    simulator.library.cuda_sim_set_device_count(2)
    index = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), DIMS)
    index.add(vectors(200, DIMS, 1))

    def empty(shape, dtype):
        with simulator.on_gpu(1):
            return gpu_array(np.empty(shape, dtype))

    library.empty = empty
    I = index.search(of(library, gpu_array(queries)), K)[1]
    assert type(I) is faiss_ext.DeviceArray
    assert I.__dlpack_device__() == (CUDA, 0)
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])
