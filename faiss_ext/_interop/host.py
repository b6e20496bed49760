"""Host memory: what NumPy makes an array of, and which of that is taken.

This is the one place that judges what NumPy makes of an object: numbers are
taken, of every dtype that float32 or the integers of labels can be made of;
all else is refused, though NumPy would convert it (text, dates, None) or drop a
part of it (the imaginary one).
"""

from __future__ import annotations

import decimal
import numbers
from typing import Any

import numpy as np

from ..errors import InvalidArray
from .dlpack import is_on_gpu
from .view import ArrayView, attribute


def is_array_like(array: Any) -> bool:
    """Whether NumPy knows what the object is: an array interface, a buffer,
    or a way to convert itself."""
    for name in ("__array_interface__", "__array__", "__array_struct__"):
        if attribute(array, name) is not None:
            return True
    return supports_buffer(array) or isinstance(array, (list, tuple))


def supports_buffer(array: Any) -> bool:
    """Whether the object supports the buffer protocol."""
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
        or supports_buffer(array)
    ):
        raise InvalidArray(
            f"{name}: {type(array).__name__}; a NumPy array, or one that supports "
            "the CUDA Array Interface, DLPack or the buffer protocol, is needed"
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
    if not writable:
        _refuse_what_are_no_numbers(values, name, array)
    if writable and not values.flags.writeable:
        raise InvalidArray(
            f"{name}: read-only, but results are written to it; it must be "
            "C-contiguous and writable"
        )
    low, high = (
        np.lib.array_utils.byte_bounds(values)
        if hasattr(np.lib, "array_utils")
        else np.byte_bounds(values)  # type: ignore[attr-defined]  # noqa: NPY201
    )
    return ArrayView(
        pointer=values.ctypes.data,
        shape=values.shape,
        strides=values.strides,
        dtype=str(values.dtype),
        kind="host",
        device=-1,
        readonly=not values.flags.writeable,
        nbytes=values.nbytes,
        contiguous=values.flags.c_contiguous,
        lowest=low,
        span=high - low if values.size else 0,
        owner=values,
    )


def indexable(array: Any, name: str) -> str:
    """What a user writes for an array to index it."""
    if isinstance(array, np.ndarray) or is_on_gpu(array):
        return name
    only_dlpack = attribute(array, "__dlpack__") and not is_array_like(array)
    return f"np.{'from_dlpack' if only_dlpack else 'asarray'}({name})"


def _refuse_what_are_no_numbers(
    values: np.ndarray, name: str, array: Any
) -> None:
    """`values` are what NumPy made of `array`."""
    dtype = values.dtype
    if dtype.kind in "fiub" or (
        # A number of another library, such as bfloat16 of ml_dtypes.
        dtype.kind == "V" and dtype.type is not np.void
    ):
        return
    if dtype.kind == "O" and values.ndim == 0:
        raise InvalidArray(f"{name}: {_no_array(array, name)}")
    if dtype.kind == "O":
        found = _among_objects(values, indexable(array, name))
    else:
        found = _no_numbers(dtype, indexable(array, name))
    if found:
        raise InvalidArray(f"{name}: {found}")


def _no_array(array: Any, name: str) -> str:
    if callable(attribute(array, "toarray")):
        return (
            f"{type(array).__name__} is sparse; a dense array is needed, such as "
            f"{name}.toarray(), by blocks of rows where that is too large"
        )
    said = "None" if array is None else type(array).__name__
    return f"{said} is nothing that NumPy makes an array of; one is needed"


def _no_numbers(dtype: np.dtype, it: str) -> str:
    """What an array of this dtype holds, and what to give instead."""
    if dtype.kind == "c":
        return (
            f"complex numbers (dtype {dtype}); real ones are needed, such as "
            f"{it}.real, or np.hstack([{it}.real, {it}.imag]) for both parts"
        )
    if dtype.kind in "mM":
        return (
            f"dates or times (dtype {dtype}); numbers are needed, such as "
            f"{it}.astype('int64'), which counts their units"
        )
    if dtype.kind in "USTO":
        return (
            f"text (dtype {dtype}); numbers are needed; numbers written as text "
            f"are read by {it}.astype('float32')"
        )
    if dtype.names:
        of_rows = [n for n in dtype.names if dtype[n].shape]
        fix = (
            f"one of them, such as {it}[{of_rows[0]!r}]"
            if of_rows
            else "a matrix of their numbers, such as "
            f"np.array({it}.tolist(), 'float32')"
        )
        return f"a table of the fields {', '.join(dtype.names)}; needed is {fix}"
    return f"bytes without a type (dtype {dtype}); numbers are needed"


def _among_objects(values: np.ndarray, it: str) -> str | None:
    """What an array of Python objects holds that is no number, and what to do;
    None where all are numbers."""
    of_type: dict[type, int] = {}
    for place, value in enumerate(values.flat):
        of_type.setdefault(type(value), place)
    strange = [
        place for kind, place in of_type.items()
        if not issubclass(kind, (numbers.Real, decimal.Decimal, np.bool_))
    ]
    if not strange:
        return None
    at = np.unravel_index(strange[0], values.shape)
    value = values[at]
    where = f"at [{', '.join(map(str, at))}]"
    if isinstance(value, (str, bytes)):
        return f"{_no_numbers(values.dtype, it)} ({value[:20]!r} {where})"
    if values.ndim == 1 and np.ndim(value) == 1:
        lengths: set[Any] = {
            np.shape(row)[0] if np.ndim(row) == 1 else None for row in values
        }
        if len(lengths) == 1:
            return (
                f"a column of {len(values)} vectors (dtype object, shape "
                f"{values.shape}); one matrix [{len(values)}, {lengths.pop()}] "
                f"is needed: np.stack({it})"
            )
        if None in lengths:
            odd = next(i for i, row in enumerate(values) if np.ndim(row) != 1)
            return (
                f"a column of vectors (dtype object), but {type(values[odd]).__name__}"
                f" at [{odd}]; leave out such rows"
            )
        return (
            "a column of vectors (dtype object) of different lengths, "
            f"{min(lengths)} to {max(lengths)}; all need the same"
        )
    return (
        f"{'None' if value is None else type(value).__name__} {where}, which is "
        "no number; fill such places, or leave out their rows"
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
    owner; no copy, but of bfloat16 as float32."""
    if isinstance(view.owner, np.ndarray):
        return view.owner
    if view.dtype == "bfloat16":
        # NumPy has no such type. It is the upper half of a float32.
        halves = as_numpy(view._replace(dtype="uint16"), name)
        wide = halves.astype("uint32")
        wide <<= 16
        return wide.view("float32")
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


def converted(values: np.ndarray, name: str, dtype: str) -> np.ndarray:
    """C-contiguous numbers of another dtype: floats rounded as NumPy does;
    integers only from what they are equal to."""
    whole = np.dtype(dtype).kind in "iu"
    try:
        # What is not finite has no integer; that is told below.
        with np.errstate(invalid="ignore" if whole else "warn"):
            made = np.ascontiguousarray(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArray(
            f"{name}: dtype {values.dtype} does not convert to {dtype}: {error}"
        ) from error
    if whole and not np.can_cast(values.dtype, made.dtype):
        changed = made != values
        if changed.any():
            raise InvalidArray(
                f"{name}: {values[changed][0]} is no {dtype}; whole numbers are "
                f"needed, such as np.rint({name}).astype('{dtype}') where they "
                "are only rounded ones"
            )
    return made
