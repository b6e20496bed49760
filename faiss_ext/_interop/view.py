"""What is known of an array that somebody else owns. Imports nothing of ours."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple


class ArrayView(NamedTuple):
    """An array as it describes itself; its numbers fit together.
    `placement.locate` finds out whether its memory is there.

    The native part, and `host_capsules` without it, make the fields up to `span`;
    the others are the business of whoever takes the array. Keep the view, which
    holds what it must of the owner, until the work on the array is done.
    """

    #: Address of the first element; 0 if the array is empty.
    pointer: int
    shape: tuple[int, ...]
    #: In bytes.
    strides: tuple[int, ...]
    #: Such as "float32" or "bfloat16".
    dtype: str
    #: What the array says its memory is: host, device, pinned or managed.
    kind: str
    #: The GPU that the memory is on; -1: not said, on none, or not on one alone.
    device: int
    readonly: bool
    nbytes: int
    #: Row-major, without gaps.
    contiguous: bool
    #: The lowest address in use, and bytes from there to the end of the last
    #: element.
    lowest: int
    span: int
    #: Streams that the producer's work is on, each as its handle and its GPU.
    ready_after: tuple[tuple[int, int], ...] = ()
    #: Streams on which the producer goes on using the array, which must not get
    #: ahead of our work; none: it takes care itself.
    used_next_on: tuple[tuple[int, int], ...] = ()
    owner: Any = None

    @property
    def on_gpu(self) -> bool:
        """Whether it says it is memory of a GPU. Pinned memory is the host's."""
        return self.kind in ("device", "managed")


def attribute(array: Any, name: str) -> Any:
    """An attribute, or None if there is none. One that raises counts as none (a
    tensor that records gradients raises on ``__cuda_array_interface__``)."""
    try:
        return getattr(array, name, None)
    except Exception:
        return None


def library_of(array: Any) -> Any:
    """The module of the library that made `array`'s class, if it is loaded."""
    return _library(type(array))


def libraries_of(array: Any) -> list[Any]:
    """The same of the class and of each that it is derived from; None for one
    that is not loaded."""
    return [_library(base) for base in type(array).__mro__]


def _library(array_type: type) -> Any:
    return sys.modules.get(array_type.__module__.partition(".")[0])
