"""GPU memory for the length of a call: what conversions write to.

A piece is used by one call at a time and given back when the call's work is
enqueued. The next call may write to it at once, because it works on the same
stream, behind what still reads. (Faiss orders a new default stream behind the
one before.)
"""

from __future__ import annotations

import threading
from typing import Any

from .._native import swigfaiss_ext as native

#: Bytes that one index keeps between calls. Pieces beyond it are freed after
#: their call.
KEPT = 256 << 20


class Scratch:
    """Pieces of GPU memory that calls of one stream use one after another, on
    each GPU.

    Where the resources have their memory from a pool of the caller's
    (`PooledGpuResources`), nothing is kept: that pool does the same.

    Safe for any number of threads.
    """

    def __init__(self, resources: Any) -> None:
        self._bound = 0 if native.is_pooled_c(resources) else KEPT
        self._lock = threading.Lock()
        self._idle: list[Any] = []

    def take(self, size: int, call: Any) -> Any:
        """A ``DeviceBuffer`` of `size` bytes or more on the GPU of `call`, for
        use in the order of its stream. New memory is taken only where no idle
        piece is large enough."""
        with self._lock:
            # Resources, for `knn_gpu`, have a stream on each GPU.
            fitting = [
                b for b in self._idle
                if b.bytes() >= size and b.device() == call.device
            ]
            if fitting:
                piece = min(fitting, key=lambda b: b.bytes())
                self._idle.remove(piece)
                return piece
        # Powers of two, so that calls of about the same size share a piece.
        wanted = 1 << max(size - 1, 255).bit_length()
        return call.make_buffer(wanted if wanted <= self._bound else size)

    def give_back(self, piece: Any) -> bool:
        """Let others use `piece` from now on: everything that uses it is
        enqueued. False if it is not kept; then it must live until that is
        done."""
        with self._lock:
            kept = sum(b.bytes() for b in self._idle)
            if piece.bytes() + kept > self._bound:
                return False
            self._idle.append(piece)
            return True


def scratch_of(owner: Any, resources: Any) -> Scratch:
    """The scratch of an index or a resources object, made when it is first
    asked for; it goes when the Python object does."""
    attributes = vars(owner)
    found: Scratch | None = attributes.get("_scratch_of_calls")
    if found is None:
        # One of several threads' is kept.
        found = attributes.setdefault("_scratch_of_calls", Scratch(resources))
    return found
