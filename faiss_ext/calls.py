"""One call with arrays of any kind: checked, ordered among the streams, kept
until the work is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import faiss
import numpy as np

from . import families, gpu_memory, host_arrays, in_flight
from . import swigfaiss_ext as native
from .arrays import ArrayView, array_view
from .errors import InvalidArray

_CASTS = {
    "float32": faiss.cast_integer_to_float_ptr,
    "float16": faiss.cast_integer_to_void_ptr,
    "int64": faiss.cast_integer_to_idx_t_ptr,
    "int32": faiss.cast_integer_to_int_ptr,
}


#: What the GPU itself makes float32 of: NumPy's kind ("B" for bfloat), bits.
_CONVERTED = {
    "float32": ("f", 32),
    "float16": ("f", 16),
    "bfloat16": ("B", 16),
    "int8": ("i", 8),
    "uint8": ("u", 8),
}


class Operand(NamedTuple):
    """An array of a call."""

    name: str
    #: What the caller gave, or gets.
    array: Any
    view: ArrayView
    #: For C++.
    pointer: Any
    #: Holds the memory that `pointer` is of.
    owner: Any
    #: Enqueues what makes that memory of the view's, or None.
    prepare: Callable[[], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.view.shape

    @property
    def void_pointer(self) -> Any:
        """For C++ that takes any type."""
        return faiss.cast_integer_to_void_ptr(self.view.pointer)


class Call:
    """The arrays of one call on a GPU, and its place among the streams.

    Parameters
    ----------
    stream : int
        Handle of the stream that does the work.
    device : int
        Its GPU.
    make_buffer : callable
        Makes a ``DeviceBuffer`` of a number of bytes there.
    """

    def __init__(
        self, stream: int, device: int, make_buffer: Callable[[int], Any]
    ):
        self.stream = stream
        self.device = device
        self.make_buffer = make_buffer
        self._inputs: list[Operand] = []
        self._outputs: list[Operand] = []
        in_flight.let_go()

    def input(
        self,
        array: Any,
        name: str,
        shape: tuple,
        dtype: str | tuple[str, ...],
        *,
        column_major: bool = False,
    ) -> Operand:
        """An array that is read.

        Host arrays are converted as Faiss does (``np.ascontiguousarray``). GPU
        arrays that have the `dtype` and are C-contiguous (or with
        `column_major`, whose transpose is) are used in place; matrices of half
        and 8-bit types, or with strides, become float32 on the GPU where that
        is wanted. Of several dtypes, any will do, and the first is what others
        in host memory become. None in `shape` takes any extent. Raises
        InvalidArray.
        """
        dtypes = (dtype,) if isinstance(dtype, str) else dtype
        view = array_view(array, name, self.stream)
        if not view.on_gpu:
            host = host_arrays.as_numpy(view, name)
            target = view.dtype if view.dtype in dtypes else dtypes[0]
            try:
                host = np.ascontiguousarray(host, dtype=target)
            except (TypeError, ValueError) as error:
                raise InvalidArray(
                    f"{name}: dtype {view.dtype} does not convert to "
                    f"{target}: {error}"
                ) from error
            _check_shape(name, host.shape, shape)
            view = host_arrays.view(host, name, False)
            operand = Operand(name, array, view, faiss.swig_ptr(host), host)
        else:
            _check_shape(name, view.shape, shape)
            usable = view.dtype in dtypes and _is_usable(view, column_major)
            if not usable and "float32" in dtypes and len(shape) == 2:
                operand = self._converted(name, array, view)
            else:
                _check_dtype(name, view, dtypes)
                _check_contiguous(name, view, column_major)
                operand = self._in_place(name, array, view)
        self._inputs.append(operand)
        return operand

    def output(
        self, given: Any, name: str, like: Operand | None, shape: tuple,
        dtype: str | tuple[str, ...],
    ) -> Operand:
        """An array that is written: `given`, of any of the dtypes, or a new one
        of the first of them and of the family of `like`, where `like` lies.
        Raises InvalidArray."""
        if given is None:
            dtype = dtype if isinstance(dtype, str) else dtype[0]
            if like is not None and like.view.on_gpu:
                operand = families.empty(self, like, name, shape, dtype)
            else:
                operand = self.given_output(
                    np.empty(shape, dtype), name, shape, dtype
                )
        else:
            operand = self.given_output(given, name, shape, dtype)
        self._outputs.append(operand)
        return operand

    def given_output(
        self,
        array: Any,
        name: str,
        shape: tuple,
        dtype: str | tuple[str, ...],
    ) -> Operand:
        """Judge an output without making it one of the call."""
        view = array_view(array, name, self.stream, writable=True)
        if view.shape != tuple(shape):
            raise InvalidArray(
                f"{name}: shape {view.shape}; needed {tuple(shape)}"
            )
        _check_dtype(name, view, (dtype,) if isinstance(dtype, str) else dtype)
        if not view.contiguous:
            raise InvalidArray(
                f"{name}: strides {view.strides}; an output must be "
                "C-contiguous and writable"
            )
        return self._in_place(name, array, view)

    def run(self, work: Callable[[], Any]) -> None:
        """Do `work` after the producers of all arrays, and let them go on after
        it. The host waits for none of them."""
        self._refuse_overlaps()
        views = [operand.view for operand in self._inputs + self._outputs]
        before = {
            (view.ready_after, self._device_of(view))
            for view in views
            if view.ready_after is not None
        }
        after = {
            (view.used_next_on, self._device_of(view))
            for view in views
            if view.used_next_on is not None
        }
        for stream, device in before:
            native.order_streams_c(stream, device, self.stream, self.device)
        try:
            for operand in self._inputs:
                if operand.prepare:
                    operand.prepare()
            work()
        except BaseException:
            # Something may have been enqueued. What fails now fails for the
            # same reason, which is told already.
            with contextlib.suppress(RuntimeError):
                self._hand_on(after)
            raise
        self._hand_on(after)

    def _hand_on(self, after: set[tuple[int, int]]) -> None:
        """Let streams go on, and keep what was lent until the work is done."""
        for stream, device in after:
            native.order_streams_c(self.stream, self.device, stream, device)
        kept = [
            (operand.array, operand.owner, operand.view.owner)
            for operand in self._inputs + self._outputs
            if operand.view.on_gpu
        ]
        if kept:
            in_flight.keep(self.stream, self.device, kept)

    def _in_place(self, name: str, array: Any, view: ArrayView) -> Operand:
        view = gpu_memory.locate(view, name)
        pointer = _CASTS[view.dtype](view.pointer)
        return Operand(name, array, view, pointer, view.owner)

    def _converted(self, name: str, array: Any, view: ArrayView) -> Operand:
        """A matrix that becomes a contiguous one of float32 on this GPU."""
        if view.dtype not in _CONVERTED:
            raise InvalidArray(
                f"{name}: dtype {view.dtype}; float32 is needed in GPU memory, "
                f"or one of {', '.join(list(_CONVERTED)[1:])}, which are "
                f"converted there (such as {name}.astype('float32'))"
            )
        view = gpu_memory.locate(view, name)
        if view.device not in (-1, self.device):
            raise InvalidArray(
                f"{name}: {view.dtype} with strides {view.strides} on GPU "
                f"{view.device}; the work is done on GPU {self.device}, and "
                "only contiguous float32 is taken from another"
            )
        rows, columns = view.shape
        buffer = self.make_buffer(rows * columns * 4)
        kind, bits = _CONVERTED[view.dtype]
        arguments = (
            view.pointer, ord(kind), bits, *view.shape, *view.strides,
            buffer.address(), self.stream, self.device,
        )
        made = view._replace(
            pointer=buffer.address(),
            strides=(columns * 4, 4),
            dtype="float32",
            nbytes=rows * columns * 4,
            contiguous=True,
        )
        return Operand(
            name,
            array,
            made,
            faiss.cast_integer_to_float_ptr(buffer.address()),
            buffer,
            lambda: native.to_float32_c(*arguments),
        )

    def _device_of(self, view: ArrayView) -> int:
        return view.device if view.device >= 0 else self.device

    def _refuse_overlaps(self) -> None:
        for i, output in enumerate(self._outputs):
            for other in self._inputs + self._outputs[i + 1 :]:
                a, b = output.view, other.view
                if a.lowest < b.lowest + b.span and b.lowest < a.lowest + a.span:
                    raise InvalidArray(
                        f"{output.name} and {other.name} overlap in memory; "
                        "results need memory of their own"
                    )


def _check_shape(name: str, found: tuple, wanted: tuple) -> None:
    if len(found) == 1 and len(wanted) == 2:
        raise InvalidArray(
            f"{name}: one vector of shape {found}; "
            f"give [1, {found[0]}] (such as {name}[None, :])"
        )
    if len(found) != len(wanted) or any(
        want is not None and want != have for want, have in zip(wanted, found)
    ):
        text = ", ".join("n" if want is None else str(want) for want in wanted)
        raise InvalidArray(f"{name}: shape {found}; needed ({text})")


def _check_dtype(name: str, view: ArrayView, wanted: tuple[str, ...]) -> None:
    if view.dtype not in wanted:
        where = " in GPU memory" if view.on_gpu else ""
        raise InvalidArray(
            f"{name}: dtype {view.dtype}; {' or '.join(wanted)} is needed"
            f"{where} (such as {name}.astype('{wanted[0]}'))"
        )


def _is_usable(view: ArrayView, column_major: bool) -> bool:
    """Whether the elements lie row-major without gaps, or column-major where
    that is taken."""
    if view.contiguous or not column_major:
        return view.contiguous
    return (
        view.span == view.nbytes
        and 0 < view.strides[0] < view.strides[1]
    )


def _check_contiguous(name: str, view: ArrayView, column_major: bool) -> None:
    if not _is_usable(view, column_major):
        raise InvalidArray(
            f"{name}: strides {view.strides} of shape {view.shape} are not "
            "C-contiguous; make a contiguous copy first"
        )
