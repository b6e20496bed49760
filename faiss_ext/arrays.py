"""The array entry: what an argument offers, checked and described.

Host arrays go the way they go in Faiss. Arrays that offer the CUDA Array
Interface (versions 2 and 3) are used where they are. Which library an array is
from is never asked, and no array library but NumPy is imported.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np


class DeviceView(NamedTuple):
    """A C-contiguous array in GPU memory, as its interface describes it.

    The view owns nothing: `owner` must live until the work on it is done.
    """

    #: Address of the first element; 0 if the array is empty.
    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype
    readonly: bool
    #: Handle of the stream that the producer's work is on; None: nothing to
    #: wait for.
    stream: int | None
    owner: Any


def is_device_array(array: Any) -> bool:
    """Whether `array` offers the CUDA Array Interface."""
    # An attribute that raises (a tensor that requires grad) is not an offer.
    return getattr(array, "__cuda_array_interface__", None) is not None


def device_view(
    array: Any,
    name: str,
    shape: tuple[int | None, ...],
    dtype: str,
    *,
    writable: bool = False,
) -> DeviceView:
    """Describe a GPU array, or refuse it.

    Parameters
    ----------
    array : object with ``__cuda_array_interface__``
    name : str
        What the caller calls the argument; it stands in the error.
    shape : tuple of int or None
        What is wanted; None takes any extent.
    dtype : str
        What is wanted, such as ``"float32"``.
    writable : bool
        Whether the array is an output.

    Raises
    ------
    ValueError
        If the interface breaks its own rules, or the array has another shape,
        is not C-contiguous, is masked, or is read-only and an output.
    TypeError
        If it has another dtype.
    """
    interface = array.__cuda_array_interface__
    version = interface.get("version")
    if not isinstance(version, int) or version < 2:
        raise ValueError(
            f"{name}: CUDA Array Interface version {version!r}; "
            "version 2 or 3 is needed"
        )
    if interface.get("mask") is not None:
        raise ValueError(f"{name}: masked arrays are not taken; fill it first")
    found = tuple(interface["shape"])
    if not all(isinstance(extent, int) and extent >= 0 for extent in found):
        raise ValueError(f"{name}: shape {found} is not one of an array")
    if len(found) == 1 and len(shape) == 2:
        raise ValueError(
            f"{name}: one vector of shape {found}; "
            f"give [1, {found[0]}] (such as {name}[None, :])"
        )
    if len(found) != len(shape) or any(
        want is not None and want != have for want, have in zip(shape, found)
    ):
        wanted = ", ".join("n" if want is None else str(want) for want in shape)
        raise ValueError(f"{name}: shape {found}; needed ({wanted})")
    have = np.dtype(interface["typestr"])
    if have != np.dtype(dtype):
        raise TypeError(f"{name}: dtype {have}; {dtype} is needed")
    strides = interface.get("strides")
    if strides is not None and not _compact(found, tuple(strides), have.itemsize):
        raise ValueError(
            f"{name}: strides {tuple(strides)} of shape {found} are not "
            "C-contiguous; make a contiguous copy first"
        )
    pointer, readonly = interface["data"]
    size = math.prod(found)
    if size and not pointer:
        raise ValueError(f"{name}: {size} elements at a null pointer")
    if writable and readonly:
        raise ValueError(f"{name}: read-only, but results are written to it")
    # Version 2 has no word on streams; its exporters (PyTorch) work on the
    # legacy default stream unless told otherwise, which version 3 calls 1.
    stream = interface.get("stream") if version >= 3 else 1
    if stream == 0:
        raise ValueError(
            f"{name}: stream 0, which the interface forbids "
            "(1 is the legacy default stream, 2 the per-thread one)"
        )
    return DeviceView(
        pointer if size else 0, found, have, bool(readonly), stream, array
    )


def _compact(shape: tuple, strides: tuple, itemsize: int) -> bool:
    """Whether `strides`, in bytes, are those of a C-contiguous array; the
    stride of an extent of 1 or of an empty array says nothing."""
    if 0 in shape:
        return True
    expected = itemsize
    for extent, stride in zip(reversed(shape), reversed(strides)):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return len(strides) == len(shape)
