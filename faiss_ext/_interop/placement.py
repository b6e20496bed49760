"""Where the memory of an array is, as the CUDA runtime knows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .._loader.native_part import native
from ..errors import InvalidArray
from .view import ArrayView


def locate(view: ArrayView, name: str) -> ArrayView:
    """Ask the CUDA runtime where an array's memory is; both ends are asked.

    Returns
    -------
    ArrayView
        With the GPU that the memory is on; -1 for managed and pinned memory,
        and for an empty array.

    Raises
    ------
    InvalidArray
        If it is no memory that CUDA knows, ends before the array does, or is on
        another GPU than the array says.
    """
    if not view.on_gpu or view.span == 0:
        return view
    kind, device = native.placement_c(name, view.lowest, view.span)
    if kind == "pageable":
        raise InvalidArray(
            f"{name}: address {view.lowest:#x} is no memory of a GPU; "
            "the object lies, or its memory is gone"
        )
    if view.device >= 0 and device != view.device:
        raise InvalidArray(
            f"{name}: says it is on GPU {view.device}, but its memory is "
            + (f"on GPU {device}" if device >= 0 else kind)
        )
    return view._replace(device=device)


def refuse_unreadable(
    name: str, lowest: int, span: int, *, pinned: bool
) -> None:
    """Refuse what is said to be memory of the host and is not, as far as the
    CUDA runtime knows: the host would die of reading it. Of ordinary memory it
    knows nothing; what is said to be `pinned` it must know. Without the native
    part there is nobody to ask."""
    if native is None:
        return
    try:
        kind, device = native.placement_c(name, lowest, span)
    except RuntimeError:
        # Without a GPU there is none of its memory, and none pinned for it.
        kind, device = "pageable", -1
    if kind == "device":
        raise InvalidArray(
            f"{name}: said to be memory of the host, but address "
            f"{lowest:#x} is memory of GPU {device}; "
            "the object lies; its DLPack device type must be 2"
        )
    if pinned and kind == "pageable":
        raise InvalidArray(
            f"{name}: said to be pinned memory, but address {lowest:#x} is "
            "none that CUDA knows; the object lies, or its memory is gone"
        )


def is_pageable(lowest: int, span: int) -> bool:
    """Whether host memory has been read when a call returns."""
    return span == 0 or (
        native.placement_c("array", lowest, span)[0] == "pageable"
    )


def current(device: int) -> contextlib.AbstractContextManager[None]:
    """A GPU is this thread's current one, if there is one of that number; -1:
    whichever it is. To be entered at once."""
    before = native.current_device_c() if device >= 0 else device
    return _UNCHANGED if before == device else _changed(device, before)


_UNCHANGED = contextlib.nullcontext()


@contextlib.contextmanager
def _changed(device: int, before: int) -> Iterator[None]:
    # Who is asked under it is judged by what it answers.
    with contextlib.suppress(RuntimeError):
        native.use_device_c(device)
    try:
        yield
    finally:
        native.use_device_c(before)
