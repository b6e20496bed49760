"""A warning where vectors do not fit into the float16 numbers of an index."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import faiss

from . import swigfaiss_ext as native

#: Classes of Faiss that pass vectors on to the indexes that they hold.
HOLDERS = {
    "IndexIDMap", "IndexIDMap2", "IndexPreTransform", "IndexReplicas",
    "IndexShards",
}

_PACKAGE = f"{__package__}."


def tells_of_too_large(method: Callable) -> Callable:
    """A method that stores vectors, of our flat indexes or of a class that holds
    such, with the warning."""
    adds = "add" in method.__name__

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        result = method(self, *args, **options)
        if not adds:
            # What was stored before is no more.
            vars(self).pop("_checked_for_float16", None)
        tell_of_too_large(self)
        return result

    return call


def tell_of_too_large(index: Any) -> None:
    """Warn, once for an index, if distances to a vector that was stored since
    the last time are wrong because it is stored as float16. Waits for the GPU
    if it is."""
    state = vars(index)
    if state.get("_told_of_too_large"):
        return
    checked = state.setdefault("_checked_for_float16", {})
    for flat in _flats_in(index):
        address, total = int(flat.this), flat.ntotal
        first = checked.get(address, 0)
        # Fewer than before: it was emptied.
        first = first if first <= total else 0
        try:
            found = flat.beyondFloat16(first, total - first)
        except RuntimeError:
            # The vectors are stored, which is what was asked for; of a lost GPU
            # the next call tells.
            continue
        checked[address] = total
        if found:
            state["_told_of_too_large"] = True
            warnings.warn(_TEXT, RuntimeWarning, stacklevel=_frames_of_ours() + 1)
            return


_TEXT = (
    "x: numbers beyond float16 in an index that stores float16 (useFloat16): "
    "components of 65520 or more become infinite there, and with L2 so do the "
    "norms where components are 256 or more; the distances to such vectors are "
    "infinite or no numbers. Scale the vectors and the queries, or store float32"
)


def _flats_in(index: Any) -> Iterator[Any]:
    """Our flat indexes that an index is, or passes vectors on to."""
    for downcast in (
        native.as_GpuIndexFlat,
        native.as_GpuIndexFlatL2,
        native.as_GpuIndexFlatIP,
    ):
        found = downcast(index)
        if found is not None:
            yield found
            return
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.ThreadedIndexBase):
        for i in range(index.count()):
            yield from _flats_in(index.at(i))
    elif type(index).__name__ in HOLDERS:
        yield from _flats_in(index.index)


def _frames_of_ours() -> int:
    """How many frames of the package lie above the user's."""
    frame, count = sys._getframe(1), 0
    while frame and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame, count = frame.f_back, count + 1
    return count
