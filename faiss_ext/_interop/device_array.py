"""Arrays in GPU memory for results that come without arrays of the caller's."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._native import swigfaiss_ext as native
from ..errors import InvalidArray
from .dlpack import CPU, CUDA


class DeviceArray:
    """A C-contiguous array in GPU memory.

    It has the CUDA Array Interface, version 3, with the stream that its
    content is ordered on, and DLPack; CuPy, PyTorch, JAX and Numba take it as
    it is (``cupy.asarray(a)``, ``torch.from_dlpack(a)``). It holds its memory
    and the stream, not the index.

    Examples
    --------
    As results for queries whose library makes none that can be written, such as
    JAX:

    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> D, I = index.search(gpu_queries, k=1)
    >>> I
    DeviceArray(shape=(2, 1), dtype=int64)
    >>> I.copy_to_host().ravel()
    array([0, 1])
    """

    def __init__(self, buffer: Any, shape: tuple[Any, ...], dtype: Any):
        buffer.share()
        self._buffer = buffer
        self.shape: tuple[int, ...] = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)

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
            "stream": self._buffer.stream_c() or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """(2, number): CUDA, and which GPU."""
        return CUDA, self._buffer.device()

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule of the array.

        Parameters
        ----------
        stream : int, optional
            The stream of this GPU that will use the array: 1 legacy default (so
            None), 2 per-thread default, a handle above 2, or -1 for no
            ordering. It comes after the array's pending work; no host waits.
        max_version : (int, int), optional
            (1, 0) or higher: a ``dltensor_versioned`` capsule.
        dl_device : (int, int), optional
            This GPU, or (1, 0), the host: then `stream` must be None, and the
            call waits for the copy.
        copy : bool, optional
            True: of a copy. False: never of one.

        Raises
        ------
        BufferError
            If another GPU is asked for, or a copy is needed and forbidden.
        ValueError
            If the stream is none.
        """
        versioned = max_version is not None and max_version[0] >= 1
        shape = (ord(self.dtype.kind), self.dtype.itemsize * 8, self.shape)
        device = self.__dlpack_device__()
        target = device if dl_device is None else tuple(map(int, dl_device))
        if target[0] == CPU:
            if stream is not None:
                raise ValueError(
                    f"stream: {stream!r}; None is needed for an array on the "
                    "host"
                )
            if copy is False:
                raise BufferError(
                    "copy: False; the array is in GPU memory, and on the host it "
                    "is a copy"
                )
            return native.export_host_copy_c(self._buffer, *shape, versioned)
        if target != device:
            raise BufferError(
                f"dl_device: {target}; the array is on {device}: copy it there "
                "with the library that takes it"
            )
        if stream is None:
            stream = 1
        if not isinstance(stream, int) or stream < -1 or stream == 0:
            raise ValueError(
                f"stream: {stream!r}; 1 is the legacy default stream, 2 the "
                "per-thread one, -1 asks for no ordering"
            )
        buffer = self._buffer.copy() if copy else self._buffer
        if stream != -1:
            native.order_streams_c(
                buffer.stream_c(), device[1], stream, device[1]
            )
        return native.export_buffer_c(buffer, *shape, versioned, bool(copy))

    def copy_to_host(self) -> np.ndarray:
        """The content as a NumPy array; waits for it.

        Examples
        --------
        >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
        >>> index.add(np.eye(4, dtype="float32"))
        >>> index.assign(gpu_queries).copy_to_host().ravel()
        array([0, 1])
        """
        values = np.empty(self.shape, self.dtype)
        self._buffer.copy_to_host_c(values.ctypes.data)
        return values

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        """Refuses: a copy to the host is asked for by `copy_to_host`."""
        raise InvalidArray(
            f"{self!r} is in GPU memory, and NumPy and CPU indexes work on host "
            "memory: give .copy_to_host(), or search an index on the GPU "
            "(index_cpu_to_gpu)"
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"
