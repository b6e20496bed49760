"""Arrays of calls that have returned before their work was done.

An array protocol gives memory to borrow: what was borrowed is kept until the
stream has passed the work. Finished work is let go at the next call, and what
remains at the end of the process is waited for. (InFlight.cpp does it, because a
search of plain arrays stays in C++.)
"""

from __future__ import annotations

import atexit
from typing import Any

from .._native import swigfaiss_ext as native


def keep(stream: int, device: int, owners: list[Any]) -> None:
    """Keep `owners` until `stream` of GPU `device` has done what it holds now.
    Does not wait."""
    native.keep_in_flight_c(stream, device, owners)


def release_finished() -> None:
    """Give up what is no longer in use. Does not wait, and asks for one mark of
    a stream more than there are to give up, however many are left."""
    native.let_go_c()


def finish() -> None:
    """Wait for all work that something is kept for, and give that up."""
    native.finish_c()


@atexit.register
def _at_exit() -> None:
    native.begin_end_c()
    finish()
