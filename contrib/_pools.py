"""What the pools of other libraries have in common."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import faiss_ext


def library(name: str, product: str, wanted_by: str) -> ModuleType:
    """Import a library.

    Raises
    ------
    ModuleNotFoundError
        With one line that says what is missing, for what.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f"{wanted_by} is for {product}, and there is no module {name!r}",
            name=name,
        ) from None


def gpu_resources(pool: Any) -> Any:
    """Resources on the methods `allocate` and `deallocate` of `pool`, which
    they keep.

    Raises
    ------
    RuntimeError
        Where there is no native part.
    """
    if not faiss_ext.has_native:
        raise RuntimeError(
            "GPU resources need the native part of faiss_ext: "
            f"{faiss_ext.native_problem}"
        )
    return faiss_ext.PooledGpuResources(pool.allocate, pool.deallocate)


class StreamHandle:
    """A stream as the CUDA stream protocol shows it."""

    def __init__(self, handle: int):
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        """Version of the protocol, and cudaStream_t."""
        return 0, self._handle
