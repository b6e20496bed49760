"""Arrays of calls that have returned before their work was done.

An array protocol lends memory and owns nothing: what was lent is kept until the
stream has passed the work. Finished work is let go at the next call, and what
remains at the end of the process is waited for.
"""

from __future__ import annotations

import atexit
import collections
import threading
from typing import Any

from . import swigfaiss_ext as native

_lock = threading.Lock()
_kept: collections.deque = collections.deque()


def keep(stream: int, device: int, owners: list[Any]) -> None:
    """Keep `owners` until `stream` of GPU `device` has done what it holds now.
    Does not wait."""
    mark = native.mark_work_c(stream, device)
    with _lock:
        _kept.append((mark, owners))


def let_go() -> None:
    """Give up what is no longer in use. Does not wait."""
    done = []
    with _lock:
        for _ in range(len(_kept)):
            mark, owners = _kept.popleft()
            try:
                reached = mark.reached()
            except RuntimeError:
                # The work failed: nothing uses the arrays any more, and the
                # call whose work it was tells of the failure.
                reached = True
            if reached:
                done.append(owners)
            else:
                _kept.append((mark, owners))
    # Their owners may be code of others, which is not run under the lock.
    done.clear()


@atexit.register
def finish() -> None:
    """Wait for all work that something is kept for, and give that up."""
    with _lock:
        kept = list(_kept)
        _kept.clear()
    for mark, _ in kept:
        try:
            mark.wait()
        except RuntimeError:
            pass
