"""A warning where vectors do not fit into the float16 numbers of an index."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

from . import swigfaiss_ext as native

_PACKAGE = f"{__package__}."
_OURS = (native.GpuIndexFlat, native.GpuIndexFlatL2, native.GpuIndexFlatIP)


def tells_of_too_large(method: Callable) -> Callable:
    """A method of our flat indexes that stores vectors, with the warning."""
    adds = method.__name__ == "replacement_add"

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        first = self.ntotal if adds else 0
        result = method(self, *args, **options)
        tell_of_too_large(self, first)
        return result

    return call


def tell_of_too_large(index: Any, first: int) -> None:
    """Warn, once for an index, if a vector from `first` on can never be found
    because of how it is stored. Waits for the GPU if it stores float16."""
    if not isinstance(index, _OURS) or hasattr(index, "_told_of_too_large"):
        return
    try:
        found = index.beyondFloat16(first, index.ntotal - first)
    except RuntimeError:
        # The vectors are stored, which is what was asked for; of a lost GPU the
        # next call tells.
        return
    if found:
        index._told_of_too_large = True
        warnings.warn(
            "x: numbers beyond float16 in an index that stores float16 "
            "(useFloat16): components of 65520 or more become infinite there, "
            "and with L2 so do the norms where components are 256 or more; the "
            "distances to such vectors are infinite or no numbers. Scale the "
            "vectors and the queries, or store float32",
            RuntimeWarning,
            stacklevel=_frames_of_ours() + 1,
        )


def _frames_of_ours() -> int:
    """How many frames of the package lie above the user's."""
    frame, count = sys._getframe(1), 0
    while frame and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame, count = frame.f_back, count + 1
    return count
