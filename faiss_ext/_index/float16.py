"""A warning where vectors do not fit into the float16 numbers of an index.

One kernel reads the new ones on the GPU (``beyondFloat16``): 65520 and more become
infinite, and with L2 256 and more, because Faiss' norms are sums of squares in
float16.
"""

from __future__ import annotations

import functools
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .nested import leaves
from .staged import as_our_flat

_PACKAGE = f"{__package__.partition('.')[0]}."


def warns_of_overflow(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that stores vectors, of our flat indexes or of a class that holds
    such, with the warning."""
    adds = "add" in method.__name__

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        # Of the others nothing is kept.
        before = _stored_in(self) if adds else {}
        result = method(self, *args, **options)
        warn_of_overflow(self, before)
        return result

    return call


def warn_of_overflow(index: Any, before: dict[int, int] | None = None) -> None:
    """Warn, once for an index, if distances to a vector that it has stored are
    wrong because it is stored as float16. Waits for the GPU if it is. `before`:
    how many there were already, by the addresses of the flat indexes."""
    state = vars(index)
    if state.get("_warned_of_overflow"):
        return
    for flat in _flats_in(index):
        first = (before or {}).get(int(flat.this), 0)
        if flat.ntotal <= first:
            continue
        try:
            found = flat.beyondFloat16(first, flat.ntotal - first)
        except RuntimeError:
            # The vectors are stored, which is what was asked for; of a lost GPU
            # the next call tells.
            continue
        if found:
            state["_warned_of_overflow"] = True
            warnings.warn(_TEXT, RuntimeWarning, stacklevel=_frames_of_ours() + 1)
            return


def _stored_in(index: Any) -> dict[int, int]:
    if vars(index).get("_warned_of_overflow"):
        return {}
    return {int(flat.this): flat.ntotal for flat in _flats_in(index)}


_TEXT = (
    "x: numbers beyond float16 in an index that stores float16 (useFloat16): "
    "components of 65520 or more become infinite there, and with L2 so do the "
    "norms where components are 256 or more; the distances to such vectors are "
    "infinite or no numbers. Scale the vectors and the queries, or store float32"
)


def _flats_in(index: Any) -> Iterator[Any]:
    """Our flat indexes that an index is, or passes vectors on to."""
    return filter(None, map(as_our_flat, leaves(index)))


def _frames_of_ours() -> int:
    """How many frames of the package lie above the user's."""
    frame: types.FrameType | None = sys._getframe(1)
    count = 0
    while frame and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame, count = frame.f_back, count + 1
    return count
