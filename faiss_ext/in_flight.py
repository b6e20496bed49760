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
#: By stream and GPU: what was kept, and the marks behind it, in the order in
#: which they are reached.
_kept: dict[tuple[int, int], collections.deque] = {}


def keep(stream: int, device: int, owners: list[Any]) -> None:
    """Keep `owners` until `stream` of GPU `device` has done what it holds now.
    Does not wait."""
    mark = native.mark_work_c(stream, device)
    with _lock:
        line = _kept.setdefault((stream, device), collections.deque())
        line.append((mark, owners))


def let_go() -> None:
    """Give up what is no longer in use. Does not wait, and asks for one mark of
    a stream more than there are to give up, however many are left."""
    done = []
    with _lock:
        for key, line in list(_kept.items()):
            while line and _is_reached(line[0][0]):
                done.append(line.popleft())
            if not line:
                del _kept[key]
    # Their owners may be code of others, which is not run under the lock.
    done.clear()


def _is_reached(mark: Any) -> bool:
    try:
        return mark.reached()
    except RuntimeError:
        # The work failed: nothing uses the arrays any more, and the call whose
        # work it was tells of the failure.
        return True


@atexit.register
def finish() -> None:
    """Wait for all work that something is kept for, and give that up."""
    with _lock:
        kept = [pair for line in _kept.values() for pair in line]
        _kept.clear()
    for mark, _ in kept:
        try:
            mark.wait()
        except RuntimeError:
            pass
