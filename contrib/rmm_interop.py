"""RMM: its memory resources for Faiss.

    rmm.mr.set_current_device_resource(pool)
    resources = rmm_interop.gpu_resources()
    index = faiss_ext.GpuIndexFlatL2(resources, d)
"""

from __future__ import annotations

from typing import Any

from ._pools import (
    StreamHandle as _StreamHandle,
    gpu_resources as _gpu_resources,
    library as _library,
)

rmm = _library("rmm", "RMM", __name__)
_Stream = _library("rmm.pylibrmm.stream", "RMM", __name__).Stream

__all__ = ["gpu_resources"]


class _Pool:
    """A memory resource for each GPU."""

    def __init__(self, resource: Any):
        self._resource = resource
        self._of_gpu: dict[int, Any] = {}

    def allocate(self, nbytes: int, device: int, stream: int) -> int:
        address: int = self._of(device).allocate(nbytes, _as_rmm(stream))
        return address

    def deallocate(
        self, address: int, nbytes: int, device: int, stream: int
    ) -> None:
        self._of(device).deallocate(address, nbytes, _as_rmm(stream))

    def _of(self, device: int) -> Any:
        """What was RMM's when the GPU was first used: memory goes back to the
        resource that it came from."""
        if self._resource is not None:
            return self._resource
        if device not in self._of_gpu:
            self._of_gpu[device] = rmm.mr.get_per_device_resource(device)
        return self._of_gpu[device]


def _as_rmm(stream: int) -> Any:
    return _Stream(_StreamHandle(stream))


def gpu_resources(resource: Any = None) -> Any:
    """Resources whose GPU memory comes from RMM, 25.12 or newer.

    Parameters
    ----------
    resource : rmm.mr.DeviceMemoryResource, optional
        For one GPU, the one that was current when it was made. By default each
        GPU's own (``rmm.mr.get_per_device_resource``), as it is when that GPU
        is first used through the result.

    Returns
    -------
    faiss_ext.PooledGpuResources

    Raises
    ------
    RuntimeError
        Where there is no native part of faiss_ext.
    ImportError
        If RMM is older: it cannot be told of a stream by its handle.

    Notes
    -----
    Memory is allocated and given back on the streams that
    `faiss_ext.PooledGpuResources` tells of. Out of memory, RMM's MemoryError
    becomes a RuntimeError with its text.

    Examples
    --------
    >>> from faiss_ext.contrib import rmm_interop
    >>> index = faiss.GpuIndexFlatL2(rmm_interop.gpu_resources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.search(np.eye(4, dtype="float32")[:2], 1)[1].ravel()
    array([0, 1])
    """
    try:
        _as_rmm(1)
    except TypeError as error:
        raise ImportError(
            f"{__name__} needs RMM 25.12 or newer, which knows the CUDA stream "
            f"protocol; this is {rmm.__version__}"
        ) from error
    return _gpu_resources(_Pool(resource))
