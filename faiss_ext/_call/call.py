"""One call on a GPU with arrays of any kind: checked, ordered among the streams,
kept until the work is done.

Before the work: the stream that an interface names is joined by an event (one of
version 2 at the legacy default stream); DLPack's method is told our stream and does
the same. An exporter on another GPU than the call's is asked for its library's
current stream there, which is then joined with ours.

After the work: the stream of an interface goes on behind ours. DLPack has no word
for that, and its array's library may reuse the memory: the stream that goes on is
`dlpack.current_stream`.

What the call used is kept until an event behind its work is reached, then given up
by the next call, or waited for at the end of the process (in_flight.py).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._interop import host, make, placement
from .._interop.device_array import DeviceArray
from .._interop.take import array_view
from .._interop.view import ArrayView
from .._native import swigfaiss_ext as native
from ..errors import InvalidArray, check_output, check_shape
from ..memory.pinned import empty_array
from . import in_flight, operand as operands
from .operand import Operand
from .scratch import scratch_of


class Call:
    """The arrays of one call, and its place among the streams.

    Parameters
    ----------
    owner : object
        The index, or the resources, whose scratch memory conversions use.
    resources : GpuResources
        Faiss' resources that do the work.
    device : int
        The GPU.
    stream : int
        Handle of the default stream of the resources there.
    stock : bool
        Whether the work is done by code of Faiss alone, which neither locks the
        resources nor waits for all that it writes to the host.
    borrowed : dict of str to (object, object), optional
        Arrays that were asked through DLPack already, and what holds them or
        was raised, by the names of the arguments.
    """

    def __init__(
        self,
        owner: Any,
        resources: Any,
        device: int,
        stream: int,
        *,
        stock: bool = False,
        borrowed: dict[str, tuple[Any, Any]] | None = None,
    ):
        self.stream = stream
        self.device = device
        self._resources = resources
        self._memory = scratch_of(owner, resources)
        self._stock = stock
        self._borrowed = borrowed or {}
        self._inputs: list[Operand] = []
        self._outputs: list[Operand] = []
        self._pieces: list[Any] = []
        in_flight.release_finished()

    def make_buffer(self, size: int) -> Any:
        """A new ``DeviceBuffer`` on the GPU of the call."""
        return native.make_buffer_c(self._resources, self.device, size)

    def scratch(self, size: int) -> int:
        """The address of scratch memory for what this call enqueues."""
        piece = self._memory.take(size, self)
        self._pieces.append(piece)
        address: int = piece.address()
        return address

    def _owner(self, array: Any, name: str) -> Any:
        """What holds an array that was asked already, or what it raised; None if
        it was not asked."""
        array_asked, owner = self._borrowed.get(name, (None, None))
        return owner if array_asked is array else None

    def view(self, array: Any, name: str) -> ArrayView:
        """What an array that is read says of itself. To be asked for once: for
        an `input` that is judged by another one."""
        return array_view(
            array, name, self.stream, gpu=self.device,
            owner=self._owner(array, name),
        )

    def input(
        self,
        array: Any,
        name: str,
        shape: tuple[Any, ...],
        dtype: str | tuple[str, ...],
        *,
        cast: bool = False,
        column_major: bool = False,
        normalize: bool = False,
        view: ArrayView | None = None,
    ) -> Operand:
        """An array that is read.

        Host arrays are converted by NumPy. GPU arrays that have the `dtype` and
        are C-contiguous (or with `column_major`, whose transpose is) are used in
        place; others are converted on the GPU, where that keeps every value or
        `cast` says so. Of several dtypes, any will do, and the first is what
        others become. With `normalize` it is a copy in float32 whose vectors have
        length one. None in `shape` takes any extent; no vectors at all, such
        as ``[]``, are a matrix of no rows. Raises InvalidArray.
        """
        dtypes = (dtype,) if isinstance(dtype, str) else dtype
        view = view or self.view(array, name)
        if view.shape == (0,) and len(shape) == 2:
            view = view._replace(shape=(0, shape[1] or 0), strides=(4, 4))
        check_shape(
            name, view.shape, shape, host.indexable(array, name)
        )
        if normalize:
            operand = operands.normalized(name, array, view, cast)
        elif not view.on_gpu:
            operand = operands.host_input(
                name, array, view, dtypes, column_major
            )
        elif view.dtype in dtypes and operands.is_row_major(view, column_major):
            operand = operands.in_place(name, array, view)
        else:
            operand = operands.converted(name, array, view, dtypes[0], cast)
        self._inputs.append(operand)
        return operand

    def output(
        self,
        given: Any,
        name: str,
        like: Operand | None,
        shape: tuple[Any, ...],
        dtype: str | tuple[str, ...],
        *,
        narrow: bool = False,
    ) -> Operand:
        """An array that is written: `given`, of any of the dtypes, or a new one
        of the first of them by the library of `like`, where `like` lies (for
        host arrays in pinned memory of the pool, where that has room).
        With `narrow`, a given one may also be of the narrower type. Raises
        InvalidArray."""
        dtypes = (dtype,) if isinstance(dtype, str) else dtype
        if given is not None:
            operand = self.given_output(given, name, shape, dtypes, narrow)
        elif like is not None and like.view.on_gpu:
            operand = self._new_on_gpu(like, name, shape, dtypes[0])
        else:
            # Stored vectors that are read back may be many.
            make = np.empty if like is None else empty_array
            made = make(shape, dtypes[0])
            operand = self.given_output(made, name, shape, dtypes)
        self._outputs.append(operand)
        return operand

    def _new_on_gpu(
        self, like: Operand, name: str, shape: tuple[Any, ...], dtype: str
    ) -> Operand:
        """An output on the GPU of `like`, by its library if that makes one that
        is taken there; otherwise a `DeviceArray` on the GPU of the call."""
        for made, remember in make.by_library(like.array, shape, dtype):
            try:
                operand = self.given_output(made, name, shape, (dtype,))
            except InvalidArray:
                # Such as one that is immutable, or a CPU library's.
                continue
            view = operand.view
            if view.on_gpu and (
                view.span == 0 or view.device == like.view.device
                or like.view.device < 0
            ):
                remember()
                return operand
        size = math.prod(shape) * np.dtype(dtype).itemsize
        made = DeviceArray(self.make_buffer(size), shape, dtype)
        return self.given_output(made, name, shape, (dtype,))

    def given_output(
        self,
        array: Any,
        name: str,
        shape: tuple[Any, ...],
        dtypes: tuple[str, ...],
        narrow: bool = False,
    ) -> Operand:
        """Judge an output without making it one of the call."""
        view = array_view(
            array, name, self.stream, gpu=self.device, writable=True,
            owner=self._owner(array, name),
        )
        also = (operands.narrower(dtypes[0]),) if narrow else ()
        check_output(
            name, view.shape, view.dtype, view.contiguous, shape, dtypes + also
        )
        if view.dtype in dtypes:
            return operands.in_place(name, array, view)
        return operands.narrowed(name, array, view, dtypes[0])

    def run(self, work: Callable[[], Any]) -> None:
        """Do `work` after the producers of all arrays, and let them go on after
        it. The host waits for none of them."""
        self._refuse_overlaps()
        self._refuse_captures()
        before = {s for view in self._views() for s in view.ready_after}
        after = {s for view in self._views() for s in view.used_next_on}
        for stream, device in before:
            native.order_streams_c(stream, device, self.stream, self.device)
        try:
            self._enqueue(work)
        except BaseException:
            # Something may have been enqueued. What fails now fails for the
            # same reason, which is told already.
            with contextlib.suppress(RuntimeError):
                self._hand_on(after)
            raise
        self._hand_on(after)

    def _refuse_captures(self) -> None:
        """Raise before anything is enqueued: what waits for a stream in a
        capture is taken into it."""
        asked = {(self.stream, self.device): "the index"}
        for operand in self._inputs + self._outputs:
            for stream in operand.view.ready_after + operand.view.used_next_on:
                asked.setdefault(stream, operand.name)
        for (handle, device), whose in asked.items():
            native.refuse_capture_c(handle, device, whose)

    def _views(self) -> list[ArrayView]:
        return [operand.view for operand in self._inputs + self._outputs]

    def _enqueue(self, work: Callable[[], Any]) -> None:
        for operand in self._inputs + self._outputs:
            if operand.prepare:
                operand.address = operand.prepare(self)
        if self._stock:
            on_host = not all(view.on_gpu for view in self._views())
            with _work_of_faiss(
                self._resources, self.stream, self.device, wait=on_host
            ):
                work()
        else:
            work()
        for operand in self._outputs:
            if operand.finish:
                operand.finish(self, operand.address)

    def _hand_on(self, after: set[tuple[int, int]]) -> None:
        """Let streams go on, and keep what was borrowed until the work is done."""
        for stream, device in after:
            native.order_streams_c(self.stream, self.device, stream, device)
        waited = any(not operand.view.on_gpu for operand in self._outputs)
        kept: list[Any] = [
            (operand.array, operand.owner, operand.view.owner)
            for operand in self._inputs + self._outputs
            if operand.view.on_gpu
            # Pinned queries are read where they lie.
            or not (
                waited
                or placement.is_pageable(operand.view.lowest, operand.view.span)
            )
        ]
        kept += [p for p in self._pieces if not self._memory.give_back(p)]
        self._pieces = []
        if kept:
            in_flight.keep(self.stream, self.device, kept)

    def _refuse_overlaps(self) -> None:
        for i, output in enumerate(self._outputs):
            for other in self._inputs + self._outputs[i + 1 :]:
                a, b = output.view, other.view
                if a.lowest < b.lowest + b.span and b.lowest < a.lowest + a.span:
                    raise InvalidArray(
                        f"{output.name} and {other.name} overlap in memory; "
                        "results need memory of their own"
                    )


@contextlib.contextmanager
def faiss_alone(index: Any) -> Any:
    """Work of Faiss' own code on an index on a GPU and on host memory: under the
    lock of the index's resources, which it does not know, and done when this
    ends; Faiss does not wait for what it copies to or from pinned memory."""
    device, resources = index.getDevice(), index.getResources()
    stream = native.resources_stream_c(resources, device)
    native.refuse_capture_c(stream, device, "the index")
    with _work_of_faiss(resources, stream, device, wait=True):
        yield


@contextlib.contextmanager
def _work_of_faiss(resources: Any, stream: int, device: int, *, wait: bool) -> Any:
    """Under the lock of the resources, and done when this ends, or fails: with
    `wait`, nothing touches the caller's host memory afterwards."""
    try:
        with locked(resources):
            yield
    finally:
        if wait:
            native.wait_for_work_c(stream, device)


@contextlib.contextmanager
def locked(resources: Any) -> Any:
    """Hold the lock that all our indexes on these resources take."""
    lock = native.ResourcesLock(resources)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
