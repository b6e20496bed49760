"""PyTorch: its memory for Faiss, and searches inside modules.

Tensors need nothing of this: indexes take and give them as they are.

    resources = torch_interop.gpu_resources()
    index = faiss_ext.GpuIndexFlatL2(resources, d)
    distances, labels = torch_interop.search(index, features, k)
"""

from __future__ import annotations

from typing import Any

from ._pools import gpu_resources as _gpu_resources, library as _library

torch = _library("torch", "PyTorch", __name__)

__all__ = ["gpu_resources", "search"]


class _Pool:
    """PyTorch's caching allocator, which keeps a block's GPU and stream."""

    def allocate(self, nbytes: int, device: int, stream: int) -> int:
        address: int = torch.cuda.caching_allocator_alloc(
            nbytes, device, stream
        )
        return address

    def deallocate(
        self, address: int, nbytes: int, device: int, stream: int
    ) -> None:
        torch.cuda.caching_allocator_delete(address)


def gpu_resources() -> Any:
    """Resources whose GPU memory comes from PyTorch's caching allocator.

    Returns
    -------
    faiss_ext.PooledGpuResources

    Raises
    ------
    RuntimeError
        Where there is no GPU, or no native part of faiss_ext.

    Notes
    -----
    PyTorch gives what a stream has given back to that stream alone, until its
    memory runs out. So scratch shares the blocks of your tensors where Faiss
    works in their stream::

        stream = torch.cuda.current_stream()
        resources.setDefaultStream(stream.device.index, stream.cuda_stream)

    By default Faiss has streams of its own. Out of memory,
    ``torch.cuda.OutOfMemoryError`` becomes a RuntimeError with its text.

    Examples
    --------
    >>> from faiss_ext.contrib import torch_interop
    >>> index = faiss.GpuIndexFlatL2(torch_interop.gpu_resources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.search(np.eye(4, dtype="float32")[:2], 1)[1].ravel()
    array([0, 1])
    """
    torch.cuda.init()
    return _gpu_resources(_Pool())


def search(index: Any, x: Any, k: int, **options: Any) -> tuple[Any, Any]:
    """``index.search`` for a tensor that may be part of a graph.

    Parameters
    ----------
    index : faiss.Index
    x : torch.Tensor, shape [n, d]
        What the index takes: float32, half or bfloat16 on the GPU. It is used
        without a copy, and detached: a search has no gradient.
    k : int
    **options
        Those of ``index.search``.

    Returns
    -------
    distances, labels : torch.Tensor, shape [n, k]
        float32 and int64, on the device of `x`, without gradient. (For
        distances with one, gather the vectors by the labels and compute them.)

    Notes
    -----
    On a GPU, no host wait: the work is ordered after that of the current stream
    and before what comes next on it. For `x` on the host the call returns when
    the results are there. Errors are those of ``index.search``.

    Examples
    --------
    >>> from faiss_ext.contrib import torch_interop
    >>> index = faiss.GpuIndexFlatL2(torch_interop.gpu_resources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> x = torch.as_tensor(np.eye(4, dtype="float32")[:2])
    >>> D, I = torch_interop.search(index, x, 1)
    >>> I.shape
    (2, 1)
    """
    distances, labels = index.search(x.detach(), k, **options)
    return torch.as_tensor(distances), torch.as_tensor(labels)
