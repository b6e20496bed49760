"""The array libraries, each behind the same few functions.

`load(name)` imports one and gives its adapter, or raises Missing. An adapter
has:

gpus()              how many GPUs it sees
to_gpu(values, gpu=0)   an array, on a GPU, of a NumPy array
to_host(array)      the reverse; waits
is_own(array)       whether an array is of the library, so in the family
on(gpu)             a context in which the library uses a GPU
current()           the number of the GPU that it uses, or None where it has no
                    current one
follows             whether it makes arrays on the GPU of another array
stream(gpu=0)       a context in which the library uses a stream of its own on a
                    GPU, whichever it uses; or None where it has no current stream
overwrite(a, b)     enqueue, on the current stream of their GPU: a takes the
                    values of b
halves              whether its arrays may be float16
immutable           whether its arrays cannot be written
pooled_resources()  resources on its memory pool, or None
"""

from __future__ import annotations

import contextlib
import importlib
import os

import numpy as np

NAMES = ("cupy", "torch", "jax", "numba")


class Missing(Exception):
    """The library is not installed, or sees no GPU."""


class Cupy:
    """Results by ``cupy.empty``; ordered by the interface's stream."""

    halves = True
    immutable = False
    follows = True

    def __init__(self):
        self._cupy = _import("cupy")
        try:
            self._cupy.zeros(1)
        except Exception as error:
            raise Missing(f"cupy sees no GPU: {error}") from None

    def gpus(self):
        return self._cupy.cuda.runtime.getDeviceCount()

    def to_gpu(self, values, gpu=0):
        with self.on(gpu):
            return self._cupy.asarray(values)

    def to_host(self, array):
        with array.device:
            return self._cupy.asnumpy(array)

    def is_own(self, array):
        return isinstance(array, self._cupy.ndarray)

    def on(self, gpu):
        return self._cupy.cuda.Device(gpu)

    def current(self):
        return self._cupy.cuda.Device().id

    @contextlib.contextmanager
    def stream(self, gpu=0):
        with contextlib.ExitStack() as stack:
            # A stream is entered on its own GPU, and remains the one of that.
            with self.on(gpu):
                stack.enter_context(self._cupy.cuda.Stream(non_blocking=True))
            yield

    def overwrite(self, array, values):
        with array.device:
            array[...] = values

    def pooled_resources(self):
        from faiss_ext.contrib import cupy_interop

        return cupy_interop.gpu_resources()


class Torch:
    """Results by ``new_empty``; ordered by the current stream that DLPack's
    table of C functions names (2.10 and newer), else by ``__dlpack__``."""

    halves = True
    immutable = False
    follows = True

    def __init__(self):
        self._torch = _import("torch")
        if not self._torch.cuda.is_available():
            raise Missing("torch sees no GPU")

    def gpus(self):
        return self._torch.cuda.device_count()

    def to_gpu(self, values, gpu=0):
        return self._torch.from_numpy(values).cuda(gpu)

    def to_host(self, array):
        return array.cpu().numpy()

    def is_own(self, array):
        return isinstance(array, self._torch.Tensor)

    def on(self, gpu):
        return self._torch.cuda.device(gpu)

    def current(self):
        return self._torch.cuda.current_device()

    @contextlib.contextmanager
    def stream(self, gpu=0):
        cuda, before = self._torch.cuda, self.current()
        # PyTorch makes the GPU of a stream the current one.
        with cuda.stream(cuda.Stream(gpu)), self.on(before):
            yield

    def overwrite(self, array, values):
        array.copy_(values)

    def pooled_resources(self):
        from faiss_ext.contrib import torch_interop

        return torch_interop.gpu_resources()


class Jax:
    """Its arrays are immutable, so results are `DeviceArray`, which JAX takes by
    ``from_dlpack``."""

    halves = True
    immutable = True
    follows = False
    stream = None
    pooled_resources = None

    def __init__(self):
        # Otherwise JAX takes most of the GPU's memory when it starts.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self._jax = _import("jax")
        try:
            self._gpus = self._jax.devices("gpu")
        except Exception as error:
            raise Missing(f"jax sees no GPU: {error}") from None

    def gpus(self):
        return len(self._gpus)

    def on(self, gpu):
        return contextlib.nullcontext()

    def current(self):
        return None

    def to_gpu(self, values, gpu=0):
        if values.dtype == "int64":
            raise TypeError("JAX has no int64 unless it is switched on")
        return self._jax.device_put(values, self._gpus[gpu])

    def to_host(self, array):
        if isinstance(array, self._jax.Array):
            return np.asarray(array)
        if array.dtype == np.dtype("int64"):
            return array.copy_to_host()
        return np.asarray(self._jax.dlpack.from_dlpack(array))

    def is_own(self, array):
        import faiss_ext

        return isinstance(array, faiss_ext.DeviceArray)


class Numba:
    """Results by ``cuda.device_array``; its interface has a stream where the
    array was made on one, and otherwise nothing is ordered but by a wait."""

    halves = False
    immutable = False
    follows = True
    stream = None
    pooled_resources = None

    def __init__(self):
        try:
            self._cuda = _import("numba.cuda")
            available = self._cuda.is_available()
        except Missing:
            raise
        except Exception as error:
            raise Missing(f"numba: {error}") from None
        if not available:
            raise Missing("numba sees no GPU")

    def gpus(self):
        return len(self._cuda.gpus)

    @contextlib.contextmanager
    def on(self, gpu):
        before = self.current()
        with self._cuda.gpus[gpu]:
            yield
        # Numba goes on with the GPU whose context was left last.
        with self._cuda.gpus[before]:
            pass

    def current(self):
        return self._cuda.get_current_device().id

    def to_gpu(self, values, gpu=0):
        with self.on(gpu):
            return self._cuda.to_device(values)

    def to_host(self, array):
        for gpu in range(self.gpus()):
            with self.on(gpu):
                self._cuda.synchronize()
        with self.on(gpu_of(array)):
            return array.copy_to_host()

    def is_own(self, array):
        return type(array).__module__.startswith("numba")


def gpu_of(array):
    """The number of the GPU that an array lies on, as CUDA has it."""
    from faiss_ext._native import swigfaiss_ext as native

    address = array.__cuda_array_interface__["data"][0]
    return native.placement_c("array", address, 1)[1]


_ADAPTERS = dict(zip(NAMES, (Cupy, Torch, Jax, Numba)))


def load(name):
    """The adapter of a library; raises Missing."""
    return _ADAPTERS[name]()


def _import(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} is not installed: {error}") from None
