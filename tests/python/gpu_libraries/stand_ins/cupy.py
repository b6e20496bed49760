"""As much of CuPy as the tests use."""

import types

import memory_of_gpu as gpu
import numpy as np


class ndarray(gpu.GpuMemory):
    @property
    def __cuda_array_interface__(self):
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


cuda = types.SimpleNamespace(Stream=lambda non_blocking: gpu.on_new_stream())
