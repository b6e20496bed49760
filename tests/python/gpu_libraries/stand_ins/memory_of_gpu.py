"""What the stand-ins are made of: arrays in the memory of the simulated CUDA
runtime, its GPUs, and streams."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import math
import threading

import numpy as np

_cuda = ctypes.CDLL(None)  # preloaded
_pointer = ctypes.c_void_p
_cuda.cudaMalloc.argtypes = [_pointer, ctypes.c_size_t]
_cuda.cudaFree.argtypes = [_pointer]
_cuda.cudaHostAlloc.argtypes = [_pointer, ctypes.c_size_t, ctypes.c_uint]
_cuda.cudaMemcpyAsync.argtypes = [
    _pointer, _pointer, ctypes.c_size_t, ctypes.c_int, _pointer
]
_cuda.cudaStreamSynchronize.argtypes = [_pointer]
_cuda.cuda_sim_check.restype = ctypes.c_size_t
_cuda.cuda_sim_report.restype = ctypes.c_char_p
_DEFAULT_KIND = 4


class _Streams(threading.local):
    """The current streams of each GPU in a thread, the last one in use; 0 is the
    legacy default stream."""

    def __init__(self):
        self.of = collections.defaultdict(lambda: [0])


_current = _Streams()


#: Memory of arrays that are gone. Freed after the test: a free that waits would
#: order what should be ordered by others.
_given_up = []


def pinned(values):
    """A copy in pinned memory, which is not freed."""
    memory = _pointer()
    assert _cuda.cudaHostAlloc(ctypes.byref(memory), values.nbytes, 0) == 0
    made = np.frombuffer(
        (ctypes.c_char * values.nbytes).from_address(memory.value), values.dtype
    ).reshape(values.shape)
    made[...] = values
    return made


def gpu_count():
    count = ctypes.c_int()
    assert _cuda.cudaGetDeviceCount(ctypes.byref(count)) == 0
    return count.value


def current_gpu():
    gpu = ctypes.c_int()
    assert _cuda.cudaGetDevice(ctypes.byref(gpu)) == 0
    return gpu.value


@contextlib.contextmanager
def on_gpu(gpu):
    """A GPU is the current one."""
    before = current_gpu()
    assert _cuda.cudaSetDevice(gpu) == 0
    try:
        yield
    finally:
        assert _cuda.cudaSetDevice(before) == 0


def current_stream(gpu=None):
    """That of the GPU, by default the current one."""
    return _current.of[current_gpu() if gpu is None else gpu][-1]


def new_stream(gpu):
    """A stream of a GPU that does not join the legacy default stream."""
    stream = ctypes.c_void_p()
    with on_gpu(gpu):
        assert _cuda.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
    return stream.value


@contextlib.contextmanager
def on_stream(stream, gpu=None):
    """A stream is the current one of its GPU, by default of the current one."""
    gpu = current_gpu() if gpu is None else gpu
    _current.of[gpu].append(stream)
    try:
        yield
    finally:
        _current.of[gpu].pop()


def allocate(nbytes):
    """The address of memory that goes when the test ends."""
    address = ctypes.c_void_p()
    assert _cuda.cudaMalloc(ctypes.byref(address), max(nbytes, 1)) == 0
    return address.value


class Graph:
    """What a stream captured in CUDA's default mode, for replays."""

    def begin(self):
        self._stream = _pointer(new_stream(current_gpu()))
        assert _cuda.cudaStreamBeginCapture(self._stream, 0) == 0
        return self._stream.value

    def end(self):
        graph, self._replayed = _pointer(), _pointer()
        status = _cuda.cudaStreamEndCapture(self._stream, ctypes.byref(graph))
        if status:
            raise RuntimeError(f"the capture failed with error {status}")
        assert _cuda.cudaGraphInstantiate(
            ctypes.byref(self._replayed), graph, ctypes.c_ulonglong(0)
        ) == 0
        assert _cuda.cudaGraphDestroy(graph) == 0

    def replay(self):
        assert _cuda.cudaGraphLaunch(
            self._replayed, _pointer(current_stream())) == 0


def give_up(address):
    """Let memory go, at the end of the test."""
    _given_up.append(address)


class Owned:
    """Memory of the current GPU that goes with the last reference. (Without
    weakref.finalize: Python goes through all of these at its end, when threads may
    still make arrays.)"""

    def __init__(self, nbytes):
        self.address = allocate(nbytes)

    def __del__(self):
        give_up(self.address)


class GpuMemory:
    """An array on the GPU that is current when it is made; copies stand in the
    order of the current stream of the current GPU."""

    def __init__(self, shape, dtype):
        self.gpu = current_gpu()
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        # Shared by views.
        self._owned = Owned(self.nbytes)
        self.address = self._owned.address

    @classmethod
    def of(cls, values):
        values = np.ascontiguousarray(values)
        made = cls(values.shape, values.dtype)
        made._copy(made.address, values.ctypes.data)
        made._wait()
        return made

    def take(self, other):
        """Enqueue: the values of `other`, which has the same type."""
        assert (self.shape, self.dtype) == (other.shape, other.dtype)
        self._copy(self.address, other.address)

    def values(self):
        values = np.empty(self.shape, self.dtype)
        with on_gpu(self.gpu):
            self._copy(values.ctypes.data, self.address)
            self._wait()
        return values

    def interface(self, **more):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            **more,
        }

    def _copy(self, to, source):
        assert _cuda.cudaMemcpyAsync(
            to, source, self.nbytes, _DEFAULT_KIND, current_stream()
        ) == 0

    @staticmethod
    def _wait():
        assert _cuda.cudaStreamSynchronize(current_stream()) == 0


def end_test():
    """What the simulated runtime has found since the last time; frees memory."""
    reports = [
        _cuda.cuda_sim_report(ctypes.c_size_t(i)).decode()
        for i in range(_cuda.cuda_sim_check())
    ]
    _cuda.cuda_sim_clear_reports()
    synchronize()
    while _given_up:
        assert _cuda.cudaFree(_given_up.pop()) == 0
    return reports


def synchronize():
    """Wait for all GPUs."""
    for gpu in range(gpu_count()):
        with on_gpu(gpu):
            assert _cuda.cudaDeviceSynchronize() == 0


def order_before(stream):
    """What `stream` does from now on comes after the current stream's work."""
    event = ctypes.c_void_p()
    assert _cuda.cudaEventCreateWithFlags(ctypes.byref(event), 2) == 0
    assert _cuda.cudaEventRecord(event, ctypes.c_void_p(current_stream())) == 0
    assert _cuda.cudaStreamWaitEvent(ctypes.c_void_p(stream), event, 0) == 0
    assert _cuda.cudaEventDestroy(event) == 0
