"""What the tests of the native package share: the simulated CUDA runtime."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pathlib

import numpy as np
import pytest
from common_search import DIMS, K, N

BUILD = pathlib.Path(os.environ["FAISS_EXT_BUILD_DIR"])

#: cudaMemcpyDefault: the runtime tells the direction by the pointers.
DEFAULT = 4


class Simulator:
    """The control interface of the simulated runtime (tests/cuda_sim)."""

    def __init__(self):
        self.library = ctypes.CDLL(None)  # preloaded
        self.library.cuda_sim_report.restype = ctypes.c_char_p
        self.library.cuda_sim_check.restype = ctypes.c_size_t
        self.library.cuda_sim_counter.restype = ctypes.c_uint64
        self.library.cuda_sim_pending.restype = ctypes.c_size_t
        self.library.cuda_sim_calls.restype = ctypes.c_uint64
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self.library.cudaMemcpy.argtypes = [pointer, pointer, size, ctypes.c_int]
        self.library.cudaMemcpyAsync.argtypes = [
            pointer, pointer, size, ctypes.c_int, pointer
        ]

    def reset(self):
        self.library.cuda_sim_reset()

    def reset_counters(self):
        self.library.cuda_sim_reset_counters()

    def counter(self, name):
        value = self.library.cuda_sim_counter(name.encode())
        assert value != 2**64 - 1, f"no counter {name}"
        return value

    def calls(self, function):
        """How often a runtime function was called since the counters were
        reset."""
        return self.library.cuda_sim_calls(function.encode())

    def searches(self):
        """How many searches of Faiss' kernels or of the exact engine were
        enqueued, each tile counted."""
        return sum(self.calls("kernel:" + last) for last in (
            "bfKnnOnDevice", "exactWriteResults", "exactScanResults"))

    def waits(self):
        return sum(
            self.counter(f"waits_{kind}")
            for kind in (
                "event", "stream", "device", "memcpy", "pageable", "free"
            )
        )

    def bytes_up(self):
        return self.counter("bytes_h2d_pageable") + self.counter("bytes_h2d_pinned")

    def bytes_down(self):
        return self.counter("bytes_d2h_pageable") + self.counter("bytes_d2h_pinned")

    def pending(self):
        return self.library.cuda_sim_pending()

    def hold(self, stream):
        self.library.cuda_sim_hold_stream(ctypes.c_void_p(stream))

    def release(self, stream):
        self.library.cuda_sim_release_stream(ctypes.c_void_p(stream))

    def fail_call(self, function, nth, error):
        self.library.cuda_sim_fail_call(
            function.encode(), ctypes.c_uint64(nth), error
        )

    def reports(self):
        return [
            self.library.cuda_sim_report(ctypes.c_size_t(i)).decode()
            for i in range(self.library.cuda_sim_check())
        ]

    def synchronize(self):
        assert self.library.cudaDeviceSynchronize() == 0

    def current_gpu(self):
        device = ctypes.c_int()
        assert self.library.cudaGetDevice(ctypes.byref(device)) == 0
        return device.value

    @contextlib.contextmanager
    def on_gpu(self, number):
        """Another GPU is the current one."""
        before = self.current_gpu()
        assert self.library.cudaSetDevice(number) == 0
        try:
            yield
        finally:
            assert self.library.cudaSetDevice(before) == 0

    def copy(self, to, source, nbytes, stream):
        """Enqueue a copy between two addresses."""
        assert self.library.cudaMemcpyAsync(
            to, source, nbytes, DEFAULT, stream) == 0

    def download(self, address, like):
        """What lies at an address, once all work is done."""
        found = np.empty_like(like)
        self.synchronize()
        assert self.library.cudaMemcpy(
            found.ctypes.data, address, found.nbytes, DEFAULT) == 0
        return found

    def finish(self):
        """The work is done, and the arrays of the calls let go."""
        from faiss_ext._call import in_flight

        self.synchronize()
        in_flight.release_finished()

    def new_stream(self):
        stream = ctypes.c_void_p()
        assert self.library.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
        return stream.value


class GpuArray:
    """An array in GPU memory that offers the CUDA Array Interface, as CuPy's
    do; what it says of itself can be falsified."""

    def __init__(self, simulator, values, *, stream=None, **falsified):
        values = np.ascontiguousarray(values)
        self._library = simulator.library
        self.shape, self.dtype = values.shape, values.dtype
        self._pointer = ctypes.c_void_p()
        assert self._library.cudaMalloc(
            ctypes.byref(self._pointer), ctypes.c_size_t(max(values.nbytes, 1))
        ) == 0
        self.set(values)
        self._interface = {
            "version": 3,
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self._pointer.value, False),
            "strides": None,
            "stream": stream,
            **falsified,
        }

    @property
    def __cuda_array_interface__(self):
        return self._interface

    def set(self, values):
        self._copy(self._pointer, values.ctypes.data, values.nbytes)

    def get(self):
        values = np.empty(self.shape, self.dtype)
        self._copy(values.ctypes.data, self._pointer, values.nbytes)
        return values

    def _copy(self, to, source, size):
        assert self._library.cudaDeviceSynchronize() == 0
        assert self._library.cudaMemcpy(to, source, size, DEFAULT) == 0
        assert self._library.cudaDeviceSynchronize() == 0

    def __del__(self):
        self._library.cudaDeviceSynchronize()
        self._library.cudaFree(self._pointer)


@pytest.fixture(autouse=True)
def simulator():
    """A clean simulator, which must have nothing to report at the end."""
    from faiss_ext._call import in_flight

    sim = Simulator()
    sim.reset()
    yield sim
    reports = sim.reports()
    # What calls of this test kept is given up here, not in the next one, and
    # while the devices are those of this test.
    sim.library.cuda_sim_release_all()
    in_flight.finish()
    # An index in a cycle, such as that of a caught exception with its frames:
    # Faiss ends the process where it frees memory that is gone.
    gc.collect(1)
    sim.reset()
    assert not reports, "\n".join(reports)


@pytest.fixture
def gpu_array(simulator):
    """Makes a `GpuArray` of the values of a NumPy array."""

    def make(values, **options):
        return GpuArray(simulator, values, **options)

    return make


@pytest.fixture(scope="session")
def faiss_ext():
    import faiss_ext

    assert faiss_ext.native_problem is None
    return faiss_ext


@pytest.fixture(scope="session")
def resources(faiss_ext):
    return faiss_ext.StandardGpuResources()


@pytest.fixture
def vectors():
    """Makes vectors of small integers, whose distances are exact in float32."""

    def make(n, d, seed):
        random = np.random.default_rng(seed)
        return random.integers(-7, 8, (n, d)).astype("float32")

    return make


@pytest.fixture
def index(faiss_ext, resources, vectors):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(vectors(200, DIMS, 1))
    return index


@pytest.fixture
def queries(vectors):
    return vectors(N, DIMS, 2)


@pytest.fixture
def expected(index, queries):
    return index.search(queries, K)
