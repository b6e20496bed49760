"""Dispatch: any argument becomes an `ArrayView`, by one of the protocols that it
supports.

Three things are looked for, and which library an array is from is never asked;
none but NumPy is imported.

1. The CUDA Array Interface with a stream (version 3; CuPy, `DeviceArray`).
2. DLPack, for memory of a GPU. PyTorch has the interface too, but without
   a stream: its ``__dlpack__`` is what makes the order right.
3. The CUDA Array Interface without a stream (Numba, older libraries).

A search of arrays that need nothing done to them (PlainArray.h) looks for one
more thing before these: DLPack's table of C functions in the class of the array
(PyTorch 2.10 and newer), which gives the same memory, of a GPU or the host,
without Python code.

An output that any of these calls read-only is refused, and so is a view whose
memory holds the negatives of its numbers (`dlpack.is_negated`). Pinned memory is the
host's, by whatever protocol: with pinned outputs a call waits.

A producer's stream is one of its array's GPU, which is the current one while the
producer is asked. An interface names a stream without its GPU, before anybody
knows where the memory lies: see `cai.with_streams_of_its_gpu`.

Everything else is host memory, and NumPy's business as in Faiss; an object that
supports DLPack for host memory and nothing that NumPy knows is taken by that.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ..errors import InvalidArray
from . import cai, dlpack, host
from .view import ArrayView, attribute


def array_view(
    array: Any,
    name: str,
    stream: int,
    *,
    gpu: int = -1,
    writable: bool = False,
    owner: Any = None,
) -> ArrayView:
    """Describe an array, or refuse it.

    Parameters
    ----------
    array : object
        Anything; see the module.
    name : str
        What the caller calls the argument; every refusal begins with it.
    stream : int
        Handle of the stream that will use the array. An exporter of DLPack
        orders its pending work before this stream, or, where the array lies on
        another GPU, before one of that GPU, which the view names. -1: the
        caller sees to the order.
    gpu : int
        The GPU of that stream; -1: the array is for the host alone.
    writable : bool
        Whether the array is an output.
    owner : object, optional
        What holds the array, or what its exporter raised, where that was asked
        through DLPack already.

    Returns
    -------
    ArrayView
        Of any shape, dtype and strides. Does not wait.

    Raises
    ------
    InvalidArray
        If it breaks the rules of its protocol, is masked, or is an output and
        read-only or a copy.
    """
    if isinstance(array, np.ndarray):
        return host.view(array, name, writable)
    interface = attribute(array, "__cuda_array_interface__")
    if interface is not None and cai.has_stream(interface):
        return cai.view(array, interface, name, writable)
    if dlpack.is_supported(array):
        try:
            device = dlpack.device_of(array, name)
        except InvalidArray:
            # PyArrow's arrays all have the method, and most raise.
            if interface is not None or not host.is_array_like(array):
                raise
            return host.view(array, name, writable)
        if writable:
            _refuse_immutable(array, interface, name)
        if device[0] in dlpack.ON_GPU:
            return dlpack.view(
                array, name, device, stream, gpu, writable, owner
            )
        if not writable and host.is_array_like(array):
            try:
                return host.view(array, name, writable)
            except InvalidArray as error:
                # Where NumPy raised: it knows no bfloat16 of PyTorch's.
                if error.__cause__ is None:
                    raise
        return dlpack.view(array, name, device, None, gpu, writable)
    if interface is not None:
        return cai.view(array, interface, name, writable)
    return host.view(array, name, writable)


def _refuse_immutable(array: Any, interface: Any, name: str) -> None:
    """Refuse an output that is read-only by another protocol: a DLPack
    capsule without a version does not tell."""
    readonly = False
    for other in (interface, attribute(array, "__array_interface__")):
        data = other.get("data") if isinstance(other, dict) else None
        if isinstance(data, tuple) and len(data) == 2 and data[1]:
            readonly = True
    with contextlib.suppress(Exception), memoryview(array) as buffer:
        readonly = readonly or buffer.readonly
    if readonly:
        raise InvalidArray(
            f"{name}: read-only, but results are written to it"
        )
