"""Pinned host memory for NumPy arrays: a bounded pool, used again.

The GPU writes results straight into pinned memory, and memory that was used
before has no page faults; so searches that are given no output arrays return
views on blocks of this pool, labels first, then distances. A block returns when
the last view of it dies; beyond the bound the arrays lie in ordinary memory. A
fork copies the memory, as it does any other; Linux before 5.9 cannot do that
safely, and there the arrays lie in ordinary memory too.
"""

from __future__ import annotations

import math
import operator
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from .._gpus import gpu_number
from .._native import swigfaiss_ext as native

#: Bound of the pool in bytes, unless the environment says otherwise: the results
#: of 890,000 queries with k = 100. Pinned memory is taken from the whole
#: machine, so more must be asked for.
_DEFAULT_BOUND = 1 << 30

_BOUND_VARIABLE = "FAISS_EXT_PINNED_BYTES"


#: More bytes than this no array has.
_MOST = sys.maxsize


class _Pool:
    """The pool of this process, made when it is first needed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked process: the pool is its parent's, and so is
        whoever may hold the lock."""
        self._lock = threading.Lock()
        self._pool: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._pool is None:
                self._pool = native.PinnedBlockPool(_bound())
                # Searches in C++ take it, too.
                native.use_pinned_results_c(self._pool)
            return self._pool

    def block(self, nbytes: int) -> npt.NDArray[Any] | None:
        """An array of bytes in pinned memory, or None where the bound does not
        allow it."""
        memory = native.pinned_memory_c(self.get(), nbytes)
        return None if memory is None else np.frombuffer(memory, "uint8")


def _bound() -> int:
    text = os.environ.get(_BOUND_VARIABLE)
    if text is None:
        return _DEFAULT_BOUND
    if not text.isdecimal():
        raise ValueError(
            f"{_BOUND_VARIABLE}: {text!r}; a number of bytes is needed"
        )
    return int(text)


_the_pool = _Pool()
os.register_at_fork(after_in_child=_the_pool.forget)


def pinned_empty(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: npt.DTypeLike = "float32",
) -> npt.NDArray[Any]:
    """An uninitialised NumPy array in pinned memory of the pool.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype, optional
        Without Python objects in it.

    Returns
    -------
    numpy.ndarray
        C-contiguous and writable. Its memory returns to the pool when the last
        view of it dies. (Ordinary memory on Linux before 5.9.)

    Raises
    ------
    TypeError, ValueError
        If `shape` is none, or the dtype has Python objects.
    MemoryError
        If the bound of the pool (``FAISS_EXT_PINNED_BYTES``, by default 1 GiB)
        does not allow it.
    InvalidDevice
        If this process sees no GPU.
    RuntimeError
        If CUDA cannot pin so much, or this process was forked from one that
        had used CUDA.

    Notes
    -----
    Pinning new memory costs up to a millisecond a MiB; memory that has been in
    the pool before costs nothing.

    Examples
    --------
    >>> D = faiss.pinned_empty((2, 3))
    >>> D.shape, D.dtype
    ((2, 3), dtype('float32'))
    """
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise ValueError(f"dtype: {dtype} holds Python objects; numbers are needed")
    extents = _extents(shape)
    nbytes = math.prod(extents) * dtype.itemsize
    if nbytes == 0 or not native.PinnedBlockPool.has_memory():
        return np.empty(extents, dtype)
    try:
        block = _the_pool.block(nbytes) if nbytes <= _MOST else None
    except RuntimeError:
        gpu_number(0, "pinned_empty: device")
        raise
    if block is None:
        stats = pinned_pool_stats()
        raise MemoryError(
            f"shape: {nbytes} bytes of pinned memory do not fit beside the "
            f"{stats['pinned_bytes']} in use; the bound is {stats['bound']}: raise "
            f"it by {_BOUND_VARIABLE}, or drop arrays and call trim()"
        )
    return block.view(dtype).reshape(extents)


def _extents(shape: Any) -> tuple[int, ...]:
    try:
        extents = tuple(map(operator.index, (
            (shape,) if isinstance(shape, (int, np.integer)) else shape
        )))
    except TypeError:
        raise TypeError(
            f"shape: {shape!r}; an int or several are needed"
        ) from None
    if any(extent < 0 for extent in extents):
        raise ValueError(f"shape: {shape!r}; an extent is negative")
    return extents


def pinned_pool_stats() -> dict[str, int]:
    """The state of the pool.

    Returns
    -------
    dict of str to int
        `bound`; `pinned_bytes`, used or idle, counted as they were pinned:
        results of up to 2 KiB share 64 KiB; `allocations`, how often memory was
        pinned. A forked process begins with none.

    Examples
    --------
    >>> sorted(faiss.pinned_pool_stats())
    ['allocations', 'bound', 'pinned_bytes']
    """
    pool = _the_pool.get()
    return {
        "bound": pool.capacity(),
        "pinned_bytes": pool.pinned_bytes(),
        "allocations": pool.allocations(),
    }


def trim() -> None:
    """Unpin the memory of the pool that no array uses.

    Examples
    --------
    >>> array = faiss.pinned_empty(1 << 16, "uint8")
    >>> del array
    >>> faiss.trim()
    """
    _the_pool.get().trim()


def empty_results(
    n: int, k: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
    """Uninitialised memory for the results of a search.

    Returns
    -------
    distances, labels : numpy.ndarray
        float32 and int64, shape [n, k]: views on one block, labels first; it is
        pinned; ordinary memory beyond the bound of the pool, or where CUDA pins
        no more.
    address : int
        Of the block.
    """
    count = n * k
    both = _results_block(count * 12) if count else None
    if both is None:
        both = np.empty(count * 12, "uint8")
    labels = both[: count * 8].view("int64").reshape(n, k)
    distances = both[count * 8 :].view("float32").reshape(n, k)
    return distances, labels, both.ctypes.data


def empty_array(
    shape: tuple[int, ...], dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """An uninitialised NumPy array in pinned memory of the pool, or in ordinary
    memory where `empty_results` gives that."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    block = _results_block(nbytes) if 0 < nbytes <= _MOST else None
    if block is None:
        return np.empty(shape, dtype)
    return block.view(dtype).reshape(shape)


def _results_block(nbytes: int) -> npt.NDArray[Any] | None:
    """Pinned memory, or None where there is none."""
    try:
        return _the_pool.block(nbytes)
    except RuntimeError:
        # Pinned memory is only faster. A GPU that has failed says so again.
        return None
