"""Arrays and streams of another GPU than the index's, or than the current one."""

from __future__ import annotations

import ctypes
import sys
import types

import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import CUDA, INT64, Loan

LEGACY = 1


class Gpus:
    """Two, each with a current stream, as CuPy and PyTorch have them."""

    def __init__(self, simulator, own):
        self.simulator, self.library = simulator, simulator.library
        self.current, self.on = simulator.current_gpu, simulator.on_gpu
        self.library.cuda_sim_set_device_count(2)
        self.streams = {}
        for gpu in (0, 1):
            with self.on(gpu):
                self.streams[gpu] = simulator.new_stream() if own else LEGACY

    def copy(self, to, source, gpu):
        """In the order of the current stream of that GPU."""
        with self.on(gpu):
            self.simulator.copy(
                to.memory._pointer, source.memory._pointer,
                source.values.nbytes, self.streams[gpu])

    def finish(self):
        for gpu in (0, 1):
            with self.on(gpu):
                self.simulator.synchronize()


class Memory:
    """Of GPU 1."""

    def __init__(self, gpus, gpu_array, values):
        self.gpus, self.values = gpus, np.ascontiguousarray(values)
        with gpus.on(1):
            self.memory = gpu_array(self.values)

    def get(self):
        self.gpus.finish()
        return self.memory.get()


class Offered(Memory):
    """By the CUDA Array Interface, which names the stream of the GPU that is
    current when it is asked (CuPy)."""

    @property
    def __cuda_array_interface__(self):
        return {**self.memory.__cuda_array_interface__,
                "stream": self.gpus.streams[self.gpus.current()]}


class Lent(Memory):
    """By DLPack, on its own GPU alone (PyTorch); `cuda.current_stream` of its
    library tells the stream."""

    def __dlpack_device__(self):
        return CUDA, 1

    def __dlpack__(self, *, stream):
        if self.gpus.current() != 1:
            raise BufferError("on another device")
        event = ctypes.c_void_p()
        library, ours = self.gpus.library, self.gpus.streams[1]
        assert library.cudaEventCreateWithFlags(ctypes.byref(event), 2) == 0
        assert library.cudaEventRecord(event, ctypes.c_void_p(ours)) == 0
        assert library.cudaStreamWaitEvent(ctypes.c_void_p(stream), event, 0) == 0
        assert library.cudaEventDestroy(event) == 0
        self.loan = Loan(
            self.memory._pointer.value, self.values.shape, device=(CUDA, 1),
            **({"dtype": INT64} if self.values.dtype == "int64" else {}))
        return self.loan.capsule()


@pytest.fixture(params=["own streams", "default streams"])
def gpus(request, simulator):
    return Gpus(simulator, request.param == "own streams")


@pytest.fixture(params=["own", "legacy"])
def make_index(request, faiss_ext, vectors, gpus):
    """Makes an index on a GPU, which works on a stream of Faiss' or on the
    legacy default stream: that of each GPU has the same handle."""

    def make(gpu):
        resources = faiss_ext.StandardGpuResources()
        if request.param == "legacy":
            resources.setDefaultNullStreamAllDevices()
        config = faiss_ext.GpuIndexFlatConfig()
        config.device = gpu
        index = faiss_ext.GpuIndexFlatL2(resources, DIMS, config)
        index.add(vectors(200, DIMS, 1))
        # The first search of a process on a GPU tests its tensor cores, for which
        # rows go up.
        index.search(vectors(1, DIMS, 2), 1)
        return index

    return make


@pytest.fixture
def library_of_lent(gpus, monkeypatch):
    """The module of `Lent`, whose current streams are those of the GPUs."""
    module = types.ModuleType("lending")
    module.cuda = types.SimpleNamespace(
        current_stream=lambda gpu: types.SimpleNamespace(
            cuda_stream=gpus.streams[gpu]))
    monkeypatch.setitem(sys.modules, "lending", module)
    monkeypatch.setattr(Lent, "__module__", "lending")


@pytest.mark.parametrize("kind", [Offered, Lent])
@pytest.mark.parametrize("current", [0, 1])
@pytest.mark.parametrize("where", [0, 1])
def test_the_current_stream_of_the_arrays_gpu_is_joined(
    make_index, gpus, gpu_array, library_of_lent, queries, expected, kind,
    current, where,
):
    check_order(make_index(where), gpus, gpu_array, queries, expected, kind,
                current, 1)


@pytest.mark.parametrize("where", [0, 1])
def test_the_stream_that_an_interface_names_is_joined_on_the_current_gpu_too(
    make_index, gpus, gpu_array, queries, expected, where
):
    # GPU 0 works on memory of GPU 1.
    check_order(make_index(where), gpus, gpu_array, queries, expected, Offered,
                0, 0)


def check_order(index, gpus, gpu_array, queries, expected, kind, current, worker):
    """The stream of the GPU `worker` writes the queries, reads the results and
    writes over the queries; none of it is ahead of, or behind, the search."""
    right = Memory(gpus, gpu_array, queries)
    wrong = Memory(gpus, gpu_array, np.zeros_like(queries))
    x = kind(gpus, gpu_array, np.zeros_like(queries))
    D = kind(gpus, gpu_array, np.zeros((N, K), "float32"))
    I = kind(gpus, gpu_array, np.zeros((N, K), "int64"))
    later = Memory(gpus, gpu_array, np.zeros((N, K), "int64"))
    gpus.finish()
    gpus.simulator.reset_counters()
    gpus.copy(x, right, worker)
    copied = gpus.simulator.counter("bytes_d2d")
    with gpus.on(current):
        index.search(x, K, D=D, I=I)
        assert gpus.current() == current
    if index.getDevice() == 1:
        assert gpus.simulator.counter("bytes_d2d") == copied
    assert gpus.simulator.bytes_up() == gpus.simulator.bytes_down() == 0
    gpus.copy(later, I, worker)
    gpus.copy(x, wrong, worker)
    assert gpus.simulator.waits() == 0
    np.testing.assert_array_equal(later.get(), expected[1])
    np.testing.assert_array_equal(D.get(), expected[0])


def test_a_stream_of_its_own_belongs_to_the_gpu_of_the_array(
    make_index, gpus, gpu_array, queries, expected
):
    # The same stream whichever GPU is current, as a DeviceArray has it.
    x = Memory(gpus, gpu_array, np.zeros_like(queries))
    D = Memory(gpus, gpu_array, np.zeros((N, K), "float32"))
    I = Memory(gpus, gpu_array, np.zeros((N, K), "int64"))
    later = Memory(gpus, gpu_array, np.zeros((N, K), "int64"))
    right = Memory(gpus, gpu_array, queries)
    gpus.finish()
    gpus.copy(x, right, 1)
    for array in (x, D, I):
        array.memory._interface["stream"] = gpus.streams[1]
    index = make_index(0)
    index.search(x.memory, K, D=D.memory, I=I.memory)
    gpus.copy(later, I, 1)
    np.testing.assert_array_equal(later.get(), expected[1])
    np.testing.assert_array_equal(D.get(), expected[0])
    # With results that are made.
    labels = index.search(x.memory, K)[1]
    np.testing.assert_array_equal(labels.copy_to_host(), expected[1])


def test_managed_memory_is_on_the_stream_of_the_current_gpu(
    make_index, gpus, gpu_array, queries, expected
):
    index = make_index(0)
    pointer = ctypes.c_void_p()
    assert gpus.library.cudaMallocManaged(
        ctypes.byref(pointer), ctypes.c_size_t(queries.nbytes), 1) == 0
    x = Offered(gpus, gpu_array, np.zeros_like(queries))
    x.memory._pointer, kept = pointer, x.memory._pointer
    x.memory._interface["data"] = (pointer.value, False)
    right = Memory(gpus, gpu_array, queries)
    gpus.finish()
    gpus.copy(x, right, 1)
    with gpus.on(1):
        I = index.search(x, K)[1]
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])
    gpus.finish()
    assert gpus.library.cudaFree(pointer) == 0
    x.memory._pointer = kept
