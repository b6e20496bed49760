"""As much of CuPy as the tests use."""

import types

import memory_of_gpu as gpu
import numpy as np


class ndarray(gpu.GpuMemory):
    @property
    def device(self):
        return Device(self.gpu)

    @property
    def __cuda_array_interface__(self):
        # That of the current GPU, as CuPy's.
        return self.interface(version=3, stream=gpu.current_stream() or 1)

    def __setitem__(self, where, values):
        assert where is ...
        self.take(values)


def asarray(values):
    return ndarray.of(values)


def asnumpy(array):
    return array.values()


def empty(shape, dtype="float64"):
    return ndarray(shape, dtype)


def zeros(shape):
    return ndarray.of(np.zeros(shape))


class MemoryPointer:
    """Memory that goes with the last reference."""

    def __init__(self, nbytes):
        self._owned = gpu.Owned(nbytes)
        self.ptr = self._owned.address


class Device:
    """May be entered again and again, the same one too."""

    def __init__(self, number=None):
        self.id = gpu.current_gpu() if number is None else number
        self._entered = []

    def __enter__(self):
        self._entered.append(gpu.on_gpu(self.id))
        self._entered[-1].__enter__()

    def __exit__(self, *why):
        self._entered.pop().__exit__(*why)


cuda = types.SimpleNamespace(
    Device=Device,
    runtime=types.SimpleNamespace(getDeviceCount=gpu.gpu_count),
    Stream=lambda non_blocking: gpu.on_stream(
        gpu.new_stream(gpu.current_gpu())),
    ExternalStream=lambda handle, device: _External(handle),
    get_allocator=lambda: MemoryPointer,
)


class _External:
    """May be entered again and again."""

    def __init__(self, handle):
        self._handle, self._entered = handle, []

    def __enter__(self):
        self._entered.append(gpu.on_stream(self._handle))
        self._entered[-1].__enter__()

    def __exit__(self, *why):
        self._entered.pop().__exit__(*why)
