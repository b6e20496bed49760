"""The CUDA Array Interface, versions 2 and 3, as a consumer reads it."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from .._loader.native_part import native
from ..errors import InvalidArray
from . import placement
from .view import ArrayView, attribute

#: The interface's names of CUDA's default streams.
LEGACY, PER_THREAD = 1, 2


def has_stream(interface: Any) -> bool:
    """Whether the producer says which stream its work is on."""
    return isinstance(interface, dict) and interface.get("stream") is not None


def view(array: Any, interface: Any, name: str, writable: bool) -> ArrayView:
    """Describe `array` by its `interface`, or raise InvalidArray."""
    if not isinstance(interface, dict):
        raise InvalidArray(
            f"{name}: its __cuda_array_interface__ is a "
            f"{type(interface).__name__}; a dict is needed"
        )
    version = interface.get("version")
    if not isinstance(version, int) or version not in (2, 3):
        raise InvalidArray(
            f"{name}: CUDA Array Interface version {version!r}; "
            "version 2 or 3 is needed"
        )
    if interface.get("mask") is not None:
        raise InvalidArray(
            f"{name}: masked arrays are not taken; fill it first"
        )
    dtype = _dtype(_entry(interface, "typestr", name), name)
    strides = interface.get("strides")
    data = _entry(interface, "data", name)
    if not isinstance(data, tuple) or len(data) != 2:
        raise InvalidArray(
            f"{name}: data is {data!r}; (pointer, read-only) is needed"
        )
    pointer = 0 if data[0] is None else data[0]
    shape = _integers(_entry(interface, "shape", name), "shape", name)
    found = ArrayView(
        *native.describe_array_c(
            name,
            pointer,
            ord(dtype.kind),
            dtype.itemsize * 8,
            shape,
            None if strides is None else _integers(strides, "strides", name),
            bool(data[1]),
        )
    )
    if writable and found.readonly:
        raise InvalidArray(
            f"{name}: read-only, but results are written to it"
        )
    stream = _stream(interface, name)
    streams = () if stream is None else ((stream, native.current_device_c()),)
    # The interface does not say on which GPU.
    return found._replace(
        device=-1, ready_after=streams, used_next_on=streams, owner=array
    )


def with_streams_of_its_gpu(located: ArrayView, name: str) -> ArrayView:
    """The view of an array whose GPU is known, with the streams of both GPUs
    where it lies on another one than the current.

    The interface names one stream and no GPU. A library with a current stream
    for each GPU (CuPy) names that of the current GPU, which may work on the
    array as that of the array's own does. So it is asked again with the latter
    current. A stream that is named both times is the array's.
    """
    device = located.device
    if device < 0 or all(gpu == device for _, gpu in located.ready_after):
        return located
    named = located.ready_after[0]
    with placement.current(device):
        interface = attribute(located.owner, "__cuda_array_interface__")
        again = _stream(interface, name) if isinstance(interface, dict) else None
    there = (named[0] if again is None else again, device)
    is_shared = named[0] in (LEGACY, PER_THREAD)
    streams = (there,) if named[0] == there[0] and not is_shared else (
        named, there
    )
    return located._replace(ready_after=streams, used_next_on=streams)


def _entry(interface: dict[str, Any], key: str, name: str) -> Any:
    try:
        return interface[key]
    except KeyError:
        raise InvalidArray(
            f"{name}: its __cuda_array_interface__ has no {key!r}"
        ) from None


def _integers(values: Any, what: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise InvalidArray(
            f"{name}: {what} {values!r}; a tuple of int is needed"
        ) from None


def _dtype(typestr: Any, name: str) -> np.dtype:
    try:
        dtype = np.dtype(typestr)
    except (TypeError, ValueError):
        raise InvalidArray(
            f"{name}: typestr {typestr!r} is none of NumPy's"
        ) from None
    if not dtype.isnative:
        raise InvalidArray(
            f"{name}: dtype {typestr!r}; the machine's byte order is needed"
        )
    found: np.dtype[Any] = dtype
    return found


def _stream(interface: dict[str, Any], name: str) -> int | None:
    # Version 2 has no word on streams; its exporters work on the legacy default
    # stream unless told otherwise, which version 3 calls 1.
    stream = (
        interface.get("stream") if interface.get("version") == 3 else LEGACY
    )
    if stream is None:
        return None
    if not isinstance(stream, int) or stream < 0:
        raise InvalidArray(
            f"{name}: stream {stream!r}; the handle of a stream is needed"
        )
    if stream == 0:
        raise InvalidArray(
            f"{name}: stream 0, which the interface forbids "
            "(1 is the legacy default stream, 2 the per-thread one)"
        )
    return stream
