"""CuPy: its memory for Faiss.

CuPy's arrays need nothing of this: indexes take and give them as they are.

    resources = cupy_interop.gpu_resources()
    index = faiss_ext.GpuIndexFlatL2(resources, d)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._pools import (
    StreamHandle as _StreamHandle,
    gpu_resources as _gpu_resources,
    library as _library,
)

cupy = _library("cupy", "CuPy", __name__)

__all__ = ["gpu_resources"]


class _Pool:
    """An allocator of CuPy's, which allocates on CuPy's current stream."""

    def __init__(self, allocator: Callable[[int], Any]):
        self._allocator = allocator
        #: By address: CuPy frees what nobody refers to. The stream too, because
        #: some allocators free on it only while it lives.
        self._lent: dict[int, tuple[Any, Any]] = {}

    def allocate(self, nbytes: int, device: int, stream: int) -> int:
        current = _as_cupy(stream, device)
        with current:
            memory = self._allocator(nbytes)
        self._lent[memory.ptr] = memory, current
        address: int = memory.ptr
        return address

    def deallocate(
        self, address: int, nbytes: int, device: int, stream: int
    ) -> None:
        memory, current = self._lent.pop(address)
        with current:
            del memory


def _as_cupy(stream: int, device: int) -> Any:
    """A stream by its handle; CuPy 14 has a new way and warns of the old."""
    from_external = getattr(cupy.cuda.Stream, "from_external", None)
    if from_external:
        return from_external(_StreamHandle(stream))
    return cupy.cuda.ExternalStream(stream, device)


def gpu_resources(allocator: Callable[[int], Any] | None = None) -> Any:
    """Resources whose GPU memory comes from CuPy.

    Parameters
    ----------
    allocator : callable, optional
        Such as ``cupy.cuda.MemoryPool().malloc``. By default the one that CuPy
        uses now (``cupy.cuda.get_allocator()``), so its default memory pool.

    Returns
    -------
    faiss_ext.PooledGpuResources

    Raises
    ------
    RuntimeError
        Where there is no native part of faiss_ext.

    Notes
    -----
    CuPy's pool gives what a stream has given back to that stream alone, until
    the pool's memory runs out. So scratch shares the blocks of your arrays
    where Faiss works in their stream::

        stream = cupy.cuda.get_current_stream()
        resources.setDefaultStream(cupy.cuda.Device().id, stream.ptr)

    The stream must live as long as that holds. By default Faiss has streams of
    its own. Out of memory, ``cupy.cuda.memory.OutOfMemoryError`` becomes a
    RuntimeError with its text.

    Examples
    --------
    >>> from faiss_ext.contrib import cupy_interop
    >>> index = faiss.GpuIndexFlatL2(cupy_interop.gpu_resources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.search(np.eye(4, dtype="float32")[:2], 1)[1].ravel()
    array([0, 1])
    """
    return _gpu_resources(_Pool(allocator or cupy.cuda.get_allocator()))
