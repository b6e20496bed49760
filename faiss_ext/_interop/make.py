"""Results by the array library of the queries: found by what its arrays and its
module have, and never imported."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._native import swigfaiss_ext as native
from .device_array import DeviceArray
from .placement import current
from .view import attribute, library_of


def _by_new_empty(like: Any, shape: tuple[Any, ...], dtype: str) -> Any:
    """PyTorch's way."""
    return like.new_empty(shape, dtype=getattr(library_of(like), dtype))


def _by_empty(like: Any, shape: tuple[Any, ...], dtype: str) -> Any:
    """CuPy's way."""
    return library_of(like).empty(shape, dtype=np.dtype(dtype))


def _by_device_array(like: Any, shape: tuple[Any, ...], dtype: str) -> Any:
    """Numba's way."""
    return library_of(like).cuda.device_array(shape, dtype=np.dtype(dtype))


_WAYS = (_by_new_empty, _by_empty, _by_device_array)

#: The way that gave an output on the right GPU the last time, by the type of the
#: queries. What it gives is judged again each time.
_known: dict[type, Callable[[Any, tuple[Any, ...], str], Any]] = {}


def results_like(like: Any, n: int, k: int) -> tuple[Any, Any] | None:
    """Uninitialised distances and labels [n, k] by the library of `like`, in the
    way that is known; None where none is, or it fails. What they are is not
    judged."""
    way = _known.get(type(like))
    if way is None:
        return None
    try:
        with _device_of(like, way):
            return way(like, (n, k), "float32"), way(like, (n, k), "int64")
    except Exception:
        return None


def by_library(
    like: Any, shape: tuple[Any, ...], dtype: str
) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Uninitialised arrays on the device of `like`, each made in another way by
    its library; and what remembers the way, for the one that will do.

    Tried in this order: ``like.new_empty`` (PyTorch), ``empty`` of the module of
    its class (CuPy), ``cuda.device_array`` of that module (Numba). What they are
    is not judged.
    """
    for way in () if isinstance(like, DeviceArray) else _WAYS:
        try:
            with _device_of(like, way):
                made = way(like, shape, dtype)
        except Exception:
            # It has no such way, or that takes something else.
            continue
        yield made, functools.partial(_known.__setitem__, type(like), way)


def _device_of(like: Any, way: Callable[..., Any]) -> Any:
    """A context in which a way that allocates on the current device allocates on
    that of an array: the one that the array names (CuPy), or ours (Numba).
    PyTorch's way needs none, and the context of its devices costs more than
    making a tensor."""
    if way is _by_new_empty:
        return contextlib.nullcontext()
    device = attribute(like, "device")
    if hasattr(type(device), "__enter__") and hasattr(type(device), "__exit__"):
        return device
    return current(_gpu_of(like))


def _gpu_of(like: Any) -> int:
    """-1 for an array that is empty, in managed memory, or has no interface."""
    interface = attribute(like, "__cuda_array_interface__")
    address = interface["data"][0] if interface else 0
    return native.placement_c("array", address, 1)[1] if address else -1
