"""A stand-in for CuPy on the simulated GPU: what the tests and the examples use
of it, with the meaning that its documentation gives."""

import math

import numpy as np
import simulated_gpu

from . import cuda, random

get_default_memory_pool = cuda.get_default_memory_pool
float32, int64 = np.dtype("float32"), np.dtype("int64")

__all__ = ["arange", "asarray", "asnumpy", "cuda", "empty", "ndarray", "random"]


class ndarray:
    """C-contiguous, in memory of the current allocator and device."""

    __module__ = "cupy"

    def __init__(self, shape, dtype=float32, memptr=None):
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self.device = cuda.Device()
        self.data = memptr or cuda.get_allocator()(max(self.nbytes, 1))

    @property
    def __cuda_array_interface__(self):
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": None,
            "stream": cuda.get_current_stream().ptr or 1,
        }

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        begin, end, step = rows.indices(len(self))
        assert step == 1
        row = self.nbytes // len(self)
        return ndarray((end - begin, *self.shape[1:]), self.dtype,
                       self.data + begin * row)

    def get(self):
        return simulated_gpu.download(
            self.data.ptr, self.shape, self.dtype, cuda.get_current_stream().ptr)


def empty(shape, dtype=float32):
    return ndarray(shape, dtype)


def asarray(values):
    values = np.ascontiguousarray(values)
    made = empty(values.shape, values.dtype)
    simulated_gpu.upload(made.data.ptr, values, cuda.get_current_stream().ptr)
    return made


def asnumpy(array):
    return array.get()


def arange(n):
    return asarray(np.arange(n))
