"""GPU resources whose device memory comes from a pool of the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss

from .._native import swigfaiss_ext as native


class PooledGpuResources(native.PooledGpuResources):
    """What ``faiss.StandardGpuResources`` is, with all GPU memory from a pool.

    It goes wherever Faiss' resources go (indexes, `index_cpu_to_gpu`,
    `knn_gpu`). What indexes store, scratch and everything else is asked of the
    pool and given back to it. Nothing is held back, where Faiss' own resources
    hold up to 1.5 GiB of scratch on each GPU; the blocks that an index keeps
    for the tiles of its next search go with the index. Streams and pinned
    memory are Faiss' own, and so is managed memory. For the pools of PyTorch,
    CuPy and RMM, see ``faiss_ext.contrib``.

    Parameters
    ----------
    allocate : callable
        ``allocate(nbytes, device, stream)``, all int, gives the address of so
        much memory on that GPU, aligned to 16 bytes and usable at once by what
        is enqueued on the stream (a handle; 0 is the legacy default stream).
        What it raises, `search` and the others raise as RuntimeError, with its
        text; then the call's scratch has gone back, and indexes answer as
        before.
    deallocate : callable
        ``deallocate(address, nbytes, device, stream)`` gives memory back, with
        the arguments that it was allocated with. It may be used again at once
        to work enqueued on that stream. It must not raise: what it raises is
        reported, as for a destructor, and goes no further.

    Notes
    -----
    Both are called with the GPU current, on whatever thread needs memory. They
    must not use indexes or wait for other threads that do. They are kept, and
    the pool with them, until the last index on these resources is gone; at the
    end of the process memory is not given back one by one.

    Scratch is allocated on the stream of the work: the one set by
    `setDefaultStream`, or Faiss' own. What outlives a call is allocated on a
    stream of these resources, and given back in its order, after all work of
    Faiss. No call waits for that.

    Examples
    --------
    (For pools of PyTorch, CuPy and RMM, `faiss_ext.contrib` has these functions.)

    >>> import ctypes
    >>> cudart = ctypes.CDLL(None)
    >>> def allocate(nbytes, device, stream):
    ...     address = ctypes.c_void_p()
    ...     assert not cudart.cudaMallocAsync(
    ...         ctypes.byref(address), ctypes.c_size_t(nbytes), ctypes.c_void_p(stream))
    ...     return address.value
    >>> def deallocate(address, nbytes, device, stream):
    ...     cudart.cudaFreeAsync(ctypes.c_void_p(address), ctypes.c_void_p(stream))
    >>> index = faiss.GpuIndexFlatL2(faiss.PooledGpuResources(allocate, deallocate), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.search(np.eye(4, dtype="float32")[:1], 1)[1].ravel()
    array([0])
    """

    def __init__(
        self,
        allocate: Callable[[int, int, int], int],
        deallocate: Callable[[int, int, int, int], Any],
    ):
        for name, value in ("allocate", allocate), ("deallocate", deallocate):
            if not callable(value):
                raise TypeError(f"{name}: {value!r}; a callable is needed")
        super().__init__(allocate, deallocate)

    def setTempMemory(self, size: int) -> None:
        """How many bytes of scratch Faiss plans with on each GPU. Nothing is
        reserved, and an index that needs more at once still gets it. By default
        an eighth of the GPU's memory, at most 1.5 GiB.

        Examples
        --------
        >>> resources = faiss.PooledGpuResources(lambda *_: 0, lambda *_: None)
        >>> resources.setTempMemory(64 << 20)
        """
        super().setTempMemory(size)

    def setDefaultStream(self, device: int, stream: Any) -> None:
        """Let Faiss' work on a GPU be done in a stream of the caller's, which
        must live until `revertDefaultStream` or the end of the resources.

        Parameters
        ----------
        device : int
        stream : int or cudaStream_t
            A handle (0: the legacy default stream), or what
            ``faiss.cast_integer_to_cudastream_t`` makes of it.

        Examples
        --------
        >>> resources = faiss.PooledGpuResources(lambda *_: 0, lambda *_: None)
        >>> resources.setDefaultStream(0, 0)
        """
        if isinstance(stream, int):
            # (A name that Faiss' stubs do not have.)
            stream = faiss.cast_integer_to_cudastream_t(  # type: ignore[attr-defined]
                stream
            )
        super().setDefaultStream(device, stream)

    def getMemoryInfo(self) -> dict[int, dict[str, tuple[int, int]]]:
        """What is in use now.

        Returns
        -------
        dict
            For each GPU used so far, by Faiss' name of the kind: how many
            allocations, and their bytes as they were asked of the pool.

        Examples
        --------
        >>> faiss.PooledGpuResources(lambda *_: 0, lambda *_: None).getMemoryInfo()
        {}
        """
        return {
            device: dict(kinds)
            for device, kinds in super().getMemoryInfo().items()
        }
