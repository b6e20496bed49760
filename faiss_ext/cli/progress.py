"""How far a long step has come."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

import tqdm

__all__ = ["progress"]

_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def progress(
    what: str, total: int, unit: str
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a step on standard error.

    On a terminal as a bar with rate and time left, which disappears at the
    end; elsewhere as a line every ten seconds, so none for a short step.

    Parameters
    ----------
    what : str
        The step, as in "searching".
    total : int
        Units in all.
    unit : str
        What is counted, as in "queries".

    Yields
    ------
    callable
        To be called with the number of units done since the last call.
    """
    if sys.stderr.isatty():
        columns, rows = _shape()
        with tqdm.tqdm(
            desc=what,
            total=total,
            unit=f" {unit}",
            unit_scale=True,
            ncols=columns,
            nrows=rows,
            leave=False,
            file=sys.stderr,
        ) as bar:
            # Follows a window that changes, and asks us and not the terminal.
            bar.dynamic_ncols = _shape
            yield bar.update
    else:
        yield _Lines(what, total, unit).update


def _shape(*_: object) -> tuple[int, int]:
    """Columns and rows for the bar, which is one line wherever it is. Some
    terminals say that they have none, where tqdm would show nothing."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except (OSError, ValueError):
        columns = 0
    return columns if columns > 0 else 79, 24


class _Lines:
    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._done = 0
        self._start = self._last = time.monotonic()

    def update(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = self._done / (now - self._start)
        left = (self._total - self._done) / rate if rate else float("inf")
        print(
            f"{self._what}: {self._done} of {self._total} {self._unit}, "
            f"{rate:.0f} a second, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
