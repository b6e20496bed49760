"""What `faiss.contrib.torch_utils` and the array entry see of PyTorch, on NumPy
and the simulated CUDA runtime.

`install()` puts it under the name ``torch``. Only what they use is there, with
PyTorch's names and behaviour; a tensor is row-major.
"""

from __future__ import annotations

import ctypes
import math
import sys
import types

import numpy as np
from dlpack_capsules import CPU, CUDA, Loan

DEFAULT = 4  # cudaMemcpyDefault
runtime = ctypes.CDLL("libcudart.so.13")
runtime.cudaMemcpyAsync.argtypes = [
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
]

float32, float16, int64, int32, uint8 = (
    np.dtype(name) for name in ("float32", "float16", "int64", "int32", "uint8"))


class device(str):
    def __new__(cls, kind, number=None):
        return super().__new__(cls, kind.partition(":")[0])


class Storage:
    def __init__(self, address):
        self._address = address

    def data_ptr(self):
        return self._address


class Tensor:
    """Row-major, on the host or on GPU 0."""

    def __init__(self, shape, dtype, where):
        self.shape, self.dtype, self.device = tuple(shape), dtype, device(where)
        self.is_cuda = self.device == "cuda"
        size = math.prod(self.shape) * dtype.itemsize
        if self.is_cuda:
            pointer = ctypes.c_void_p()
            assert runtime.cudaMalloc(
                ctypes.byref(pointer), ctypes.c_size_t(max(size, 1))) == 0
            self._address = pointer.value
        else:
            self._values = np.empty(self.shape, dtype)
            self._address = self._values.ctypes.data
        self.nbytes = size

    def __del__(self):
        if self.is_cuda:
            runtime.cudaDeviceSynchronize()
            runtime.cudaFree(ctypes.c_void_p(self._address))

    __module__ = "torch"

    def _fill(self, source):
        assert runtime.cudaMemcpyAsync(
            self._address, source, self.nbytes, DEFAULT,
            cuda.current_stream().cuda_stream) == 0
        runtime.cudaStreamSynchronize(
            ctypes.c_void_p(cuda.current_stream().cuda_stream))
        return self

    def cuda(self):
        return Tensor(self.shape, self.dtype, "cuda")._fill(self._address)

    def cpu(self):
        return Tensor(self.shape, self.dtype, "cpu")._fill(self._address)

    def numpy(self):
        if self.is_cuda:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use "
                "Tensor.cpu() to copy the tensor to host memory first.")
        return self._values

    def __array__(self, dtype=None, copy=None):
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __getitem__(self, which):
        return self.numpy()[which]

    def storage(self):
        return Storage(self._address)

    untyped_storage = storage

    def storage_offset(self):
        return 0

    def size(self):
        return self.shape

    def is_contiguous(self):
        return True

    def new_empty(self, shape, dtype):
        return Tensor(shape, dtype, self.device)

    @property
    def __cuda_array_interface__(self):
        if not self.is_cuda:
            raise AttributeError("a tensor on the host has none")
        return {"version": 2, "shape": self.shape, "typestr": self.dtype.str,
                "data": (self._address, False)}

    def __dlpack_device__(self):
        return (CUDA if self.is_cuda else CPU, 0)

    def __dlpack__(self, stream=None):
        if self.is_cuda and stream not in (None, -1):
            event = ctypes.c_void_p()
            runtime.cudaEventCreate(ctypes.byref(event))
            runtime.cudaEventRecord(
                event, ctypes.c_void_p(cuda.current_stream().cuda_stream))
            runtime.cudaStreamWaitEvent(ctypes.c_void_p(stream), event, 0)
            runtime.cudaEventDestroy(event)
        code = {"f": 2, "i": 0, "u": 1}[self.dtype.kind]
        self._loan = Loan(
            self._address, self.shape, device=self.__dlpack_device__(),
            dtype=(code, self.dtype.itemsize * 8, 1))
        return self._loan.capsule()


def empty(*shape, device="cpu", dtype=float32):
    return Tensor(shape[0] if isinstance(shape[0], tuple) else shape, dtype, device)


def from_numpy(values):
    return Tensor(values.shape, values.dtype, "cpu")._fill(
        np.ascontiguousarray(values).ctypes.data)


class _Stream:
    def __init__(self):
        handle = ctypes.c_void_p()
        assert runtime.cudaStreamCreateWithFlags(ctypes.byref(handle), 1) == 0
        self.cuda_stream = handle.value


class cuda:
    _stream = None

    @classmethod
    def current_stream(cls, device=None):
        if cls._stream is None:
            cls._stream = _Stream()
        return cls._stream

    @staticmethod
    def current_device():
        return 0


def install():
    """Make `import torch` give this."""
    module = types.ModuleType("torch")
    for name in ("Tensor", "device", "empty", "from_numpy", "cuda", "float32",
                 "float16", "int64", "int32", "uint8"):
        setattr(module, name, globals()[name])
    sys.modules["torch"] = module
    return module
