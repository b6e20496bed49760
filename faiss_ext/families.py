"""Results in the family of the queries: arrays that the caller's own library
makes, found by what it offers and never imported."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import attribute, library_of
from .device_array import DeviceArray
from .errors import InvalidArray

if TYPE_CHECKING:
    from .calls import Call, Operand


def empty(
    call: Call, like: Operand, name: str, shape: tuple, dtype: str
) -> Operand:
    """An uninitialised output on the GPU of `like`.

    Tried in this order: ``like.new_empty`` (PyTorch), ``empty`` of the module
    of its class (CuPy), ``cuda.device_array`` of that module (Numba). What
    they make must be an array that `Call.given_output` takes, on that GPU;
    otherwise the result is a `DeviceArray` on the GPU of the call.
    """
    if not isinstance(like.array, DeviceArray):
        for made in _made_by_its_library(like.array, shape, dtype):
            try:
                operand = call.given_output(made, name, shape, (dtype,))
            except InvalidArray:
                # Such as one that is immutable, or a CPU library's.
                continue
            view = operand.view
            if view.on_gpu and (
                view.span == 0 or view.device == like.view.device
                or like.view.device < 0
            ):
                return operand
    size = math.prod(shape) * np.dtype(dtype).itemsize
    made = DeviceArray(call.make_buffer(size), shape, dtype)
    return call.given_output(made, name, shape, (dtype,))


def _made_by_its_library(
    like: Any, shape: tuple, dtype: str
) -> Iterator[Any]:
    """What the ways of making an array give; a way that fails is none."""
    library = library_of(like)
    cuda = attribute(library, "cuda")
    for make, its_dtype in (
        (attribute(like, "new_empty"), attribute(library, dtype)),
        (attribute(library, "empty"), np.dtype(dtype)),
        (attribute(cuda, "device_array"), np.dtype(dtype)),
    ):
        if callable(make) and its_dtype is not None:
            try:
                with _device_of(like):
                    made = make(shape, dtype=its_dtype)
            except Exception:
                continue
            yield made


def _device_of(like: Any) -> Any:
    """The device of an array as a context, for libraries that allocate on their
    current device."""
    device = attribute(like, "device")
    if hasattr(type(device), "__enter__") and hasattr(type(device), "__exit__"):
        return device
    return contextlib.nullcontext()
