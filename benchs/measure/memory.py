"""Where the arrays of a benchmark lie."""

from __future__ import annotations

import math
import mmap
import os
import pathlib
import tempfile
import weakref

import numpy as np


def touched(shape, dtype):
    """Pageable memory whose pages are there."""
    array = np.empty(shape, dtype)
    array.view("u1")[...] = 1
    return array


def fresh(shape, dtype):
    """Pageable memory no page of which was ever touched: what a caller who
    allocates for each search gives. From mmap and not from malloc, which hands
    out touched memory again."""
    return _on_mapping(shape, dtype, -1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def mapped_file(shape, dtype):
    """A shared mapping of a file that is deleted already, on the file system of
    temporary files."""
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), max(_nbytes(shape, dtype), 1))
        return _on_mapping(shape, dtype, file.fileno(), mmap.MAP_SHARED)


def _nbytes(shape, dtype):
    return math.prod(shape) * np.dtype(dtype).itemsize


def _on_mapping(shape, dtype, file, flags):
    mapping = mmap.mmap(file, max(_nbytes(shape, dtype), 1), flags)
    return np.frombuffer(mapping, dtype, math.prod(shape)).reshape(shape)


class _PinnedBytes:
    """What pinned arrays have as their base."""

    def __init__(self, native, nbytes):
        address = native.malloc_pinned(nbytes)
        weakref.finalize(self, native.cuda, "cudaFreeHost", address)
        self.__array_interface__ = {
            "version": 3,
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (address, False),
        }


def pinned(native, shape, dtype):
    """Pinned memory of its own, not of a pool."""
    nbytes = _nbytes(shape, dtype)
    array = np.asarray(_PinnedBytes(native, max(nbytes, 1)))
    array[...] = 1
    return array[:nbytes].view(dtype).reshape(shape)


class OnGpu:
    """An array in GPU memory that offers the CUDA Array Interface."""

    def __init__(self, native, shape, dtype):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.nbytes = _nbytes(shape, dtype)
        self._native = native
        self._address = native.malloc(self.nbytes)
        weakref.finalize(self, native.cuda, "cudaFree", self._address)
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._address, False),
            "strides": None,
            "stream": None,
        }

    @classmethod
    def of(cls, native, values):
        """A copy of a NumPy array."""
        values = np.ascontiguousarray(values)
        made = cls(native, values.shape, values.dtype)
        native.memcpy(made._address, values.ctypes.data, values.nbytes)
        return made

    def get(self, rows=None):
        """The content, or its first `rows`, as a NumPy array; waits."""
        length = self.shape[0] if rows is None else min(rows, self.shape[0])
        values = np.empty((length, *self.shape[1:]), self.dtype)
        self._native.memcpy(values.ctypes.data, self._address, values.nbytes)
        return values

    def poison(self):
        """NaN and absurd labels, after whatever the GPU still does."""
        self._native.synchronize()
        self._native.cuda("cudaMemset", self._address, 0xFF, self.nbytes)
        self._native.synchronize()


def poison(*arrays):
    """NaN as float, -1 as an integer, in host or GPU memory; in GPU memory of
    another library in the order of its stream."""
    for array in arrays:
        if isinstance(array, OnGpu):
            array.poison()
        elif isinstance(array, np.ndarray):
            array.view("u1")[...] = 0xFF
        else:
            array[...] = float("nan") if "float" in str(array.dtype) else -1


def host_available() -> int:
    """Bytes of host memory that are to be had without swapping: of the machine,
    or of the container where that has less."""
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(
            int(line.split()[1]) * 1024 for line in file
            if line.startswith("MemAvailable:")
        )
    try:
        limit, used = (
            int(pathlib.Path("/sys/fs/cgroup", name).read_text())
            for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError):
        # No control group, or "max".
        return available
    return min(available, max(limit - used, 0))
