"""Arrays in GPU memory for results that come without arrays of the caller's."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .arrays import is_device_array


class DeviceArray:
    """A C-contiguous array in GPU memory.

    It offers the CUDA Array Interface, version 3, with the stream that its
    content is ordered on; CuPy, PyTorch and Numba take it as it is
    (``cupy.asarray(a)``). It holds its memory, not the index.
    """

    def __init__(self, buffer: Any, shape: tuple, dtype: Any, stream: int):
        self._buffer = buffer
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self._stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._buffer.address(), False),
            "strides": None,
            # A handle of 0 is CUDA's name of the legacy default stream; the
            # interface's is 1.
            "stream": self._stream or 1,
        }

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"


def empty_like_family(index: Any, like: Any, shape: tuple, dtype: str) -> Any:
    """An uninitialised GPU array of the library that `like` is from, if that
    library's `empty` makes one, else a `DeviceArray`.

    Parameters
    ----------
    index : faiss_ext.GpuIndexFlat or one of its kind
        Whose resources give the memory of a `DeviceArray`.
    like : object
        An array of the caller's.
    shape : tuple of int
    dtype : str
    """
    library = sys.modules.get(type(like).__module__.partition(".")[0])
    empty = getattr(library, "empty", None)
    if empty is not None:
        try:
            made = empty(shape, dtype=np.dtype(dtype))
        except (TypeError, ValueError):
            made = None
        if made is not None and is_device_array(made):
            return made
    bytes_needed = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    return DeviceArray(
        index.make_device_buffer_c(bytes_needed),
        shape,
        dtype,
        index.default_stream_c(),
    )
