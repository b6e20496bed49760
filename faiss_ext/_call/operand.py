"""The arrays of a call, each with what C++ gets of it.

Half, 8-bit and strided arrays become what is needed on the index's GPU by one kernel;
those of other numbers where `cast` says so. One on another GPU is copied over as it
is, gaps included, and then converted. float16 distances and int32 labels are
converted from the wide results in the same way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import faiss
import numpy as np

from .._interop import cai, host, placement, unit_vectors
from .._interop.view import ArrayView
from .._native import swigfaiss_ext as native
from ..errors import InvalidArray

_CASTS = {
    "float32": faiss.cast_integer_to_float_ptr,
    "float16": faiss.cast_integer_to_void_ptr,
    "int64": faiss.cast_integer_to_idx_t_ptr,
    "int32": faiss.cast_integer_to_int_ptr,
}

#: What the GPU makes a dtype of without being asked: every value stays itself.
_EXACT = {
    "float32": ("float32", "float16", "bfloat16", "int8", "uint8"),
    "int64": ("int64", "int32"),
}
#: What it makes float32 of where the caller says so.
_CAST = ("float64", "int16", "uint16", "int32", "uint32", "int64", "uint64")
#: What results may be written as instead; labels are so only below 2**31.
_NARROW = {"float32": "float16", "int64": "int32"}


class Place(Protocol):
    """Where an operand is made: the stream and the scratch memory of a call."""

    stream: int
    device: int

    def scratch(self, size: int) -> int:
        """The address of GPU memory for what the call enqueues."""


@dataclasses.dataclass
class Operand:
    """An array of a call."""

    name: str
    #: What the caller gave, or gets.
    array: Any
    view: ArrayView
    #: Holds the memory of `view`.
    owner: Any
    #: What C++ reads or writes, and as what; known when the work is done.
    address: int
    dtype: str
    #: Enqueues what must come before the work, and returns the address; and what
    #: must come behind it, with that address. (They hold neither the operand nor
    #: the call: in a cycle the array would outlive its last user.)
    prepare: Callable[[Place], int] | None = None
    finish: Callable[[Place, int], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.view.shape

    @property
    def pointer(self) -> Any:
        """For C++ that takes this dtype."""
        return _CASTS[self.dtype](self.address)

    @property
    def void_pointer(self) -> Any:
        """For C++ that takes any type."""
        return faiss.cast_integer_to_void_ptr(self.address)


def in_place(name: str, array: Any, view: ArrayView) -> Operand:
    """An array that C++ reads or writes where it is."""
    view = _located(view, name)
    return Operand(name, array, view, view.owner, view.pointer, view.dtype)


def host_input(
    name: str,
    array: Any,
    view: ArrayView,
    dtypes: tuple[str, ...],
    column_major: bool,
) -> Operand:
    """Host memory as Faiss takes it: row-major (or with `column_major`, column-
    major), of one of the `dtypes` (the first, if it has none of them)."""
    values = host.as_numpy(view, name).reshape(view.shape)
    if view.dtype not in dtypes or not is_row_major(view, column_major):
        target = view.dtype if view.dtype in dtypes else dtypes[0]
        values = host.converted(values, name, target)
    return in_place(name, array, host.view(values, name, False))


def converted(
    name: str, array: Any, view: ArrayView, target: str, cast: bool
) -> Operand:
    """A vector or matrix in GPU memory of which the GPU of the call makes a
    row-major one of dtype `target`, in scratch memory. One on another GPU is
    copied over as it is."""
    _check_convertible(name, view, target, cast)
    view = _located(view, name)
    made = _row_major(view, target)

    def prepare(call: Place) -> int:
        source = view.pointer
        if _is_elsewhere(view, call):
            raw = call.scratch(view.span)
            native.copy_across_c(
                raw, view.lowest, view.span, call.stream, call.device
            )
            source = raw + view.pointer - view.lowest
        address = call.scratch(made.nbytes)
        _convert(call, source, view, address, target)
        return address

    return Operand(name, array, made, view.owner, 0, target, prepare)


def normalized(
    name: str, array: Any, view: ArrayView, cast: bool
) -> Operand:
    """A matrix of which the call reads a copy, row-major float32, whose vectors
    have length one: in host memory, or in scratch memory of the call's GPU."""
    if not view.on_gpu:
        values = host.converted(
            host.as_numpy(view, name).reshape(view.shape), name, "float32"
        )
        made = unit_vectors.normalized(values)
        return in_place(name, array, host.view(made, name, False))
    plain = converted(name, array, view, "float32", cast)
    n, d = view.shape

    def prepare(call: Place) -> int:
        as_given = view.dtype == "float32" and view.contiguous
        if as_given and not _is_elsewhere(plain.view, call):
            source, address = view.pointer, call.scratch(plain.view.nbytes)
        else:
            assert plain.prepare
            source = address = plain.prepare(call)
        native.normalize_rows_c(
            source, n, d, address, call.stream, call.device
        )
        return address

    return dataclasses.replace(plain, prepare=prepare)


def narrowed(name: str, array: Any, view: ArrayView, dtype: str) -> Operand:
    """An output that the work writes as `dtype` elsewhere, and of which the
    array gets the narrower values."""
    view = _located(view, name)
    ways = _narrow_on_gpu if view.on_gpu else _narrow_on_host
    return Operand(
        name, array, view, view.owner, 0, dtype, *ways(name, view, dtype)
    )


def _located(view: ArrayView, name: str) -> ArrayView:
    return cai.with_streams_of_its_gpu(
        placement.locate(view, name), name
    )


def _narrow_on_gpu(name: str, view: ArrayView, dtype: str) -> tuple[Any, ...]:
    wide = _row_major(view, dtype)

    def prepare(call: Place) -> int:
        return call.scratch(wide.nbytes)

    def finish(call: Place, address: int) -> None:
        if not _is_elsewhere(view, call):
            _convert(call, address, wide, view.pointer, view.dtype)
            return
        narrow = call.scratch(view.nbytes)
        _convert(call, address, wide, narrow, view.dtype)
        native.copy_across_c(
            view.pointer, narrow, view.nbytes, call.stream, call.device
        )

    return prepare, finish


def _narrow_on_host(name: str, view: ArrayView, dtype: str) -> tuple[Any, ...]:
    results = np.empty(view.shape, dtype)

    def prepare(call: Place) -> int:
        return results.ctypes.data

    def finish(call: Place, address: int) -> None:
        # The work has waited: it had an output in host memory.
        with np.errstate(over="ignore"):
            np.copyto(
                host.as_numpy(view, name), results, casting="same_kind"
            )

    return prepare, finish


def narrower(dtype: str) -> str:
    """What results of this dtype may be written as where the caller gives such
    an array."""
    return _NARROW[dtype]


def is_row_major(view: ArrayView, column_major: bool) -> bool:
    """Whether the elements lie row-major without gaps, or column-major where
    that is taken."""
    if view.contiguous or not column_major:
        return view.contiguous
    return view.span == view.nbytes and 0 < view.strides[0] < view.strides[1]


def _check_convertible(
    name: str, view: ArrayView, target: str, cast: bool
) -> None:
    if view.dtype in _EXACT[target]:
        return
    castable = target == "float32" and view.dtype in _CAST
    if castable and cast:
        return
    others = ", ".join(t for t in _EXACT[target] if t != target)
    fix = (
        "cast=True converts it there too, and rounds"
        if castable
        else f"such as {name}.astype('{target}')"
    )
    raise InvalidArray(
        f"{name}: dtype {view.dtype}; {target} is needed in GPU memory, or one "
        f"that is converted there ({others}); {fix}"
    )


def _row_major(view: ArrayView, dtype: str) -> ArrayView:
    """The view of a row-major copy of that dtype, of unknown address; what it
    overlaps is what the original does."""
    size = np.dtype(dtype).itemsize
    strides = [size]
    for extent in reversed(view.shape[1:]):
        strides.append(strides[-1] * extent)
    return view._replace(
        dtype=dtype,
        strides=tuple(reversed(strides)),
        nbytes=math.prod(view.shape) * size,
        contiguous=True,
    )


def _is_elsewhere(view: ArrayView, call: Place) -> bool:
    """Whether it lies on another GPU."""
    return view.span > 0 and view.device not in (-1, call.device)


def _convert(
    call: Place, source: int, view: ArrayView, destination: int, target: str
) -> None:
    """Enqueue the conversion of the elements that `view` describes, which lie
    at `source`."""
    rows, columns = (*view.shape, 1)[:2]
    row, column = (*view.strides, view.strides[-1])[:2]
    native.convert_rows_c(
        source, *_kind_and_bits(view.dtype), rows, columns, row, column,
        destination, *_kind_and_bits(target), call.stream, call.device,
    )


def _kind_and_bits(dtype: str) -> tuple[int, int]:
    """NumPy's kind, "B" for bfloat, as a number."""
    if dtype == "bfloat16":
        return ord("B"), 16
    return ord(np.dtype(dtype).kind), np.dtype(dtype).itemsize * 8
