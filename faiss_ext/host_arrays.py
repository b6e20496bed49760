"""Host memory: what NumPy makes an array of."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import ArrayView, attribute
from .errors import InvalidArray


def is_array_like(array: Any) -> bool:
    """Whether NumPy knows what the object offers: an array interface, a buffer,
    or a way to convert itself."""
    for name in ("__array_interface__", "__array__", "__array_struct__"):
        if attribute(array, name) is not None:
            return True
    return offers_buffer(array) or isinstance(array, (list, tuple))


def offers_buffer(array: Any) -> bool:
    """Whether the object offers the buffer protocol."""
    try:
        memoryview(array).release()
    except (TypeError, BufferError, ValueError):
        return False
    return True


def view(array: Any, name: str, writable: bool) -> ArrayView:
    """Describe host memory. An input is whatever NumPy converts; an output must
    share its memory with NumPy's array."""
    if writable and not isinstance(array, np.ndarray) and not (
        attribute(array, "__array_interface__") is not None
        or offers_buffer(array)
    ):
        raise InvalidArray(
            f"{name}: {type(array).__name__}; a NumPy array, or one that offers "
            "the CUDA Array Interface, DLPack or a buffer, is needed"
        )
    if np.ma.is_masked(array):
        raise InvalidArray(
            f"{name}: masked values, which would be taken as numbers; fill it "
            f"first ({name}.filled(...))"
        )
    try:
        values = np.asarray(array)
    except Exception as error:
        raise InvalidArray(
            f"{name}: {type(array).__name__} is no array: {error}"
        ) from error
    if writable and not values.flags.writeable:
        raise InvalidArray(
            f"{name}: read-only, but results are written to it; it must be "
            "C-contiguous and writable"
        )
    low, high = (
        np.lib.array_utils.byte_bounds(values)
        if hasattr(np.lib, "array_utils")
        else np.byte_bounds(values)
    )
    return ArrayView(
        pointer=values.ctypes.data,
        shape=values.shape,
        strides=values.strides,
        dtype=str(values.dtype),
        readonly=not values.flags.writeable,
        nbytes=values.nbytes,
        contiguous=values.flags.c_contiguous,
        lowest=low,
        span=high - low if values.size else 0,
        on_gpu=False,
        device=-1,
        ready_after=(),
        used_next_on=(),
        owner=values,
    )


class _Memory:
    """Host memory of another library, in the form that NumPy takes."""

    def __init__(self, view: ArrayView):
        self._owner = view.owner
        self.__array_interface__ = {
            "version": 3,
            "shape": view.shape,
            "typestr": np.dtype(view.dtype).str,
            "strides": view.strides,
            "data": (view.pointer, view.readonly),
        }


def as_numpy(view: ArrayView, name: str) -> np.ndarray:
    """The memory of a view of host memory as a NumPy array, which keeps the
    owner; no copy."""
    if isinstance(view.owner, np.ndarray):
        return view.owner
    try:
        dtype = np.dtype(view.dtype)
    except TypeError:
        raise InvalidArray(
            f"{name}: dtype {view.dtype} in host memory; NumPy has no such type"
        ) from None
    try:
        if not view.span:
            return np.empty(view.shape, dtype)
        return np.asarray(_Memory(view))
    except ValueError as error:
        # NumPy has fewer dimensions, and bounds on empty arrays too.
        raise InvalidArray(
            f"{name}: shape {view.shape} in host memory: {error}"
        ) from None
