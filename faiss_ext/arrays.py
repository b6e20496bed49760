"""The array entry: any argument becomes an `ArrayView` by what it offers.

Three things are looked for, and which library an array is from is never asked;
none but NumPy is imported.

1. The CUDA Array Interface with a stream (version 3; CuPy, `DeviceArray`).
2. DLPack, for memory of a GPU. PyTorch offers an interface too, but one without
   a stream: its ``__dlpack__`` is what makes the order right.
3. The CUDA Array Interface without a stream (Numba, older libraries).

A search of arrays that need nothing done to them (PlainArray.h) looks for one
more thing before these: DLPack's table of C functions in the class of the array
(PyTorch 2.10 and newer), which lends the same memory, of a GPU or the host,
without Python code.

A producer's stream is one of its array's GPU, which is the current one while the
producer is asked. An interface names a stream without its GPU, before anybody
knows where the memory lies: see `cuda_array_interface.with_streams_of_its_gpu`.

Everything else is host memory, and NumPy's business as in Faiss; an object that
offers DLPack for host memory and nothing that NumPy knows is taken by that.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, NamedTuple

import numpy as np

from .errors import InvalidArray


class ArrayView(NamedTuple):
    """An array that someone else owns, as it says of itself; its numbers fit
    together. `gpu_memory.locate` finds out whether its memory is there.

    The view holds what it must of the owner (`owner`); keep it until the work
    on the array is done.
    """

    #: Address of the first element; 0 if the array is empty.
    pointer: int
    shape: tuple[int, ...]
    #: In bytes.
    strides: tuple[int, ...]
    #: Such as "float32" or "bfloat16".
    dtype: str
    readonly: bool
    nbytes: int
    #: Row-major, without gaps.
    contiguous: bool
    #: The lowest address in use, and bytes from there to the end of the last
    #: element.
    lowest: int
    span: int
    #: Whether it was offered as memory of a GPU (also managed). Pinned memory
    #: is the host's.
    on_gpu: bool
    #: The GPU that the memory is on; -1: not said, on none, or not on one alone.
    device: int
    #: Streams that the producer's work is on, each as its handle and its GPU.
    ready_after: tuple[tuple[int, int], ...]
    #: Streams on which the producer goes on using the array, which must not get
    #: ahead of our work; none: it takes care itself.
    used_next_on: tuple[tuple[int, int], ...]
    owner: Any


def attribute(array: Any, name: str) -> Any:
    """An attribute, or None if there is none. One that raises is no offer (a
    tensor that records gradients raises on ``__cuda_array_interface__``)."""
    try:
        return getattr(array, name, None)
    except Exception:
        return None


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
        If what it offers breaks its own rules, it is masked, or it is an output
        and read-only or a copy.
    """
    from . import cuda_array_interface, dlpack, host_arrays

    if isinstance(array, np.ndarray):
        return host_arrays.view(array, name, writable)
    interface = attribute(array, "__cuda_array_interface__")
    if interface is not None and cuda_array_interface.has_stream(interface):
        return cuda_array_interface.view(array, interface, name, writable)
    if dlpack.is_offered(array):
        try:
            device = dlpack.device_of(array, name)
        except InvalidArray:
            # PyArrow's arrays all have the method, and most raise.
            if interface is not None or not host_arrays.is_array_like(array):
                raise
            return host_arrays.view(array, name, writable)
        if writable:
            _refuse_immutable(array, interface, name)
        if device[0] in dlpack.GPU:
            return dlpack.view(
                array, name, device, stream, gpu, writable, owner
            )
        if not writable and host_arrays.is_array_like(array):
            try:
                return host_arrays.view(array, name, writable)
            except InvalidArray as error:
                # Where NumPy raised: it knows no bfloat16 of PyTorch's.
                if error.__cause__ is None:
                    raise
        return dlpack.view(array, name, device, None, gpu, writable)
    if interface is not None:
        return cuda_array_interface.view(array, interface, name, writable)
    return host_arrays.view(array, name, writable)


def _refuse_immutable(array: Any, interface: Any, name: str) -> None:
    """Refuse an output that it offers read-only by another protocol: a DLPack
    capsule without a version does not tell."""
    readonly = False
    for offer in (interface, attribute(array, "__array_interface__")):
        data = offer.get("data") if isinstance(offer, dict) else None
        if isinstance(data, tuple) and len(data) == 2 and data[1]:
            readonly = True
    with contextlib.suppress(Exception), memoryview(array) as buffer:
        readonly = readonly or buffer.readonly
    if readonly:
        raise InvalidArray(
            f"{name}: read-only, but results are written to it"
        )


def is_on_gpu(array: Any) -> bool:
    """Whether `array` offers memory of a GPU. Asks for no pointer, and does not
    judge."""
    from . import dlpack

    if array is None or isinstance(array, np.ndarray):
        return False
    if attribute(array, "__cuda_array_interface__") is not None:
        return True
    if not dlpack.is_offered(array):
        return False
    try:
        return dlpack.device_of(array, "array")[0] in dlpack.GPU
    except InvalidArray:
        return False


def library_of(array: Any) -> Any:
    """The module of the library that made `array`'s class, if it is loaded."""
    return _library(type(array))


def libraries_of(array: Any) -> list[Any]:
    """The same of the class and of each that it is derived from; None for one
    that is not loaded."""
    return [_library(base) for base in type(array).__mro__]


def _library(array_type: type) -> Any:
    return sys.modules.get(array_type.__module__.partition(".")[0])
